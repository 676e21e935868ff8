"""GPU kernels: equal to torch's operations, on a device where there is one, else by Triton's interpreter.

CPU builds of torch come without Triton: these tests are skipped there.
"""

from __future__ import annotations

import pytest
import torch
from head_samples import random_head, value_and_gradients

from implicit_atlas.geometry import grid

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

from implicit_atlas.geometry.cuda_kernels import HeadOnCuda  # noqa: E402 (imports Triton)


def arguments(outputs=2, **sizes):
    """Arguments of a query on the device; the last block of points is not full."""
    return [value.to(DEVICE) for value in random_head(outputs, points=150, **sizes)]


@pytest.mark.parametrize(("outputs", "nodes", "hidden"), [(1, 17, 32), (3, 9, 32), (3, 5, 6), (2, 2, 7)])
def test_kernels_equal_the_reference_in_value_and_every_gradient(outputs, nodes, hidden):
    given = arguments(outputs, nodes=nodes, hidden=hidden)
    ours = value_and_gradients(HeadOnCuda.apply, given)
    reference = value_and_gradients(grid.query_reference, given)
    for mine, theirs in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)


def test_kernels_give_the_gradients_of_points_alone():
    given = arguments()
    expected = value_and_gradients(grid.query_reference, given)[2]
    points = given[2].requires_grad_()
    values = HeadOnCuda.apply(*given)
    (values * torch.linspace(-1, 1, values.numel(), device=values.device).view(values.shape)).sum().backward()
    torch.testing.assert_close(points.grad, expected, atol=5e-5, rtol=1e-4)


def test_no_points_and_half_precision_are_read():
    maps, owner, points, weight, bias = arguments(hidden=32)
    assert HeadOnCuda.apply(maps, owner, points[:, :0], weight, bias).shape == (4, 0, 2)
    found = HeadOnCuda.apply(maps.bfloat16(), owner, points, weight, bias)
    expected = grid.query_reference(maps.bfloat16(), owner, points, weight, bias)
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)


def test_what_is_not_a_number_comes_out():
    maps, owner, points, weight, bias = arguments()
    points[1, 3, 2] = torch.nan
    found = HeadOnCuda.apply(maps, owner, points, weight, bias)
    assert found[1, 3].isnan().all()
    assert found.isnan().sum() == weight.shape[0]
