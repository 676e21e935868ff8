"""Local residuals: read as they are between their nodes, added to what a code says, and closer to the mask."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from atlas_samples import CODE, FIT, dsc, phantom_shapes, shaken, tiny_atlas, tiny_model

from implicit_atlas import grid
from implicit_atlas.errors import InputError
from implicit_atlas.evaluate import evaluate
from implicit_atlas.local import LocalConfig, fit_residuals
from implicit_atlas.methods import build
from implicit_atlas.model import Atlas

SHAPES = phantom_shapes(8)


def atlas_and_codes(modes: int = 9) -> tuple[Atlas, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    atlas = shaken(build(tiny_model("implicit-atlas+reg", modes=modes))).eval()
    assert isinstance(atlas, Atlas)
    return atlas, torch.randn(2, CODE), torch.rand(2, 50, 3) * 2 - 1


@pytest.mark.parametrize("nodes", [5, 9, 17])
def test_a_residual_is_added_to_the_displacement_trilinear_between_its_nodes(nodes):
    atlas, codes, points = atlas_and_codes(modes=0)  # modes are read where the rest has moved a point to
    residual = torch.randn(2, nodes, nodes, nodes, 3) * 0.1
    expected = torch.stack(
        [
            torch.stack(
                [
                    # A corner-aligned volume is a cell-centred one whose cells are half a cell wider.
                    grid.sample_volume(volume, at * (nodes - 1) / nodes)
                    for volume in one.permute(3, 0, 1, 2)
                ],
                dim=-1,
            )
            for one, at in zip(residual, points, strict=True)
        ]
    )
    without = atlas.displacement(atlas.expand(codes), points)
    found = atlas.displacement(atlas.expand(codes, residual=residual), points)
    torch.testing.assert_close(found, without + expected, atol=1e-5, rtol=1e-4)


def test_no_residual_is_a_residual_of_zero():
    atlas, codes, points = atlas_and_codes()
    zero = torch.zeros(2, 9, 9, 9, 3)
    found, expected = atlas.query(atlas.expand(codes, residual=zero), points), atlas(codes, points)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-4)


def test_a_fit_with_a_residual_comes_closer_and_says_what_was_free():
    plain = dataclasses.replace(FIT, iterations=20)
    local = dataclasses.replace(plain, local=LocalConfig(9, iterations=60))
    for shape, a, b in zip(
        SHAPES[5:], tiny_atlas().fit(SHAPES[5:], plain), tiny_atlas().fit(SHAPES[5:], local), strict=True
    ):
        np.testing.assert_array_equal(a.found.code, b.found.code)
        assert a.found.residual is None and b.found.residual is not None
        assert b.found.loss < a.found.loss
        assert dsc(b.occupancy(), shape.occupancy) > dsc(a.occupancy(), shape.occupancy)
        assert b.found.degrees_of_freedom - a.found.degrees_of_freedom == 3 * 9**3 == b.found.residual.size


def test_the_protocol_counts_the_residual():
    config = dataclasses.replace(FIT, iterations=2, local=LocalConfig(5, iterations=1))
    assert evaluate(tiny_atlas(), SHAPES[:1], config).protocol.degrees_of_freedom == CODE + 3 * 5**3


def test_a_heavy_penalty_leaves_nothing_and_a_light_one_finds_the_least():
    wanted = torch.randn(2, 5, 5, 5, 3) * 0.02

    def losses(residual, iteration):
        return (residual - wanted).square().mean((1, 2, 3, 4))

    found = [
        fit_residuals(losses, 2, LocalConfig(5, 300, weight=weight), torch.device("cpu"))
        for weight in (0.0, 1.0, 1e6)
    ]
    torch.testing.assert_close(found[0], wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], wanted / 2, atol=1e-3, rtol=0)
    assert found[2].abs().max() < 1e-3


@pytest.mark.parametrize("method", ["mlp+template", "conv", "MT"])
def test_methods_without_a_convolutional_deformation_refuse(method):
    atlas = tiny_atlas()
    network = shaken(build(tiny_model(method))).eval()
    other = type(atlas)(
        dataclasses.replace(atlas.config, model=tiny_model(method)), network, atlas.codes, atlas.encoder, {}
    )
    with pytest.raises(InputError, match="deformation"):
        other.fit(SHAPES[:1], dataclasses.replace(FIT, iterations=1, local=LocalConfig(5)))


def test_lattices_that_do_not_nest_are_refused():
    with pytest.raises(InputError, match="5, 9, 17 or 33"):
        LocalConfig(8)
