"""Losses: analytic values, terms without weight that do not count, gradients that stay finite."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from implicit_atlas.atlas.losses import (
    LossTerms,
    LossWeights,
    code_penalty,
    deformation_penalty,
    laplacian_smoothness,
    second_differences,
    task_loss,
    total_loss,
)

AXES = torch.meshgrid(*[torch.arange(6.0)] * 3, indexing="ij")


def polynomial(*powers: tuple[float, int]) -> torch.Tensor:
    """Sum over the axes of factor * coordinate ** power, as a batch of two."""
    field = sum(factor * axis**power for (factor, power), axis in zip(powers, AXES, strict=True))
    return torch.stack([field, -field])


def test_cross_entropy_has_its_value():
    torch.manual_seed(0)
    logits, occupancy = torch.randn(3, 8), (torch.rand(3, 8) < 0.5).float()
    inside = logits.sigmoid()
    expected = -(occupancy * inside.log() + (1 - occupancy) * (1 - inside).log()).mean()
    torch.testing.assert_close(task_loss(logits, occupancy), expected)


def test_cross_entropy_stays_finite_for_wrong_certainty():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = task_loss(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad.isfinite().all()


def test_code_penalty_is_the_mean_norm():
    codes = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert code_penalty(codes).item() == pytest.approx(3)


def test_second_differences_of_a_linear_field_are_zero():
    differences = second_differences(polynomial((1.5, 1), (-2, 1), (0.25, 1)))
    assert differences.shape == (2, 3, 4, 4, 4)
    assert differences.abs().max() < 1e-5


def test_second_differences_of_a_quadratic_field_are_its_curvatures():
    differences = second_differences(polynomial((1, 2), (-2, 2), (0.5, 2)))
    expected = torch.tensor([2.0, -4.0, 1.0]).view(3, 1, 1, 1).expand(3, 4, 4, 4)
    torch.testing.assert_close(differences, torch.stack([expected, -expected]), atol=1e-4, rtol=0)
    assert laplacian_smoothness(polynomial((1, 2), (-2, 2), (0.5, 2))).item() == pytest.approx(7, rel=1e-4)


def test_second_differences_equal_shifted_sums():
    torch.manual_seed(0)
    field = torch.randn(2, 5, 6, 7)
    centre = field[:, 1:-1, 1:-1, 1:-1]
    along_x = field[:, 2:, 1:-1, 1:-1] + field[:, :-2, 1:-1, 1:-1] - 2 * centre
    along_z = field[:, 1:-1, 1:-1, 2:] + field[:, 1:-1, 1:-1, :-2] - 2 * centre
    differences = second_differences(field)
    torch.testing.assert_close(differences[:, 0], along_x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(differences[:, 2], along_z, atol=1e-5, rtol=1e-5)


def test_deformation_penalty_is_the_largest_plus_the_mean_length():
    constant = torch.tensor([0.3, 0.0, 0.4]).expand(2, 10, 3)
    assert deformation_penalty(constant).item() == pytest.approx(1.0)
    spike = torch.zeros(1, 10, 3)
    spike[0, 4] = torch.tensor([0.0, 2.0, 0.0])
    assert deformation_penalty(spike).item() == pytest.approx(2.2, rel=1e-5)


@pytest.mark.parametrize(
    ("penalty", "shape"),
    [(code_penalty, (2, 5)), (deformation_penalty, (2, 7, 3)), (laplacian_smoothness, (2, 4, 4, 4))],
)
def test_gradients_at_zero_are_finite(penalty, shape):
    value = torch.zeros(shape, requires_grad=True)
    penalty(value).backward()
    assert value.grad.isfinite().all()
    assert value.grad.abs().max() < 1e-3 or penalty is laplacian_smoothness


def terms(**values) -> LossTerms:
    numbers = {"task": 1.0, "code": 10.0, "laplacian": 100.0, "deformation": 1000.0} | values
    return LossTerms(**{k: None if v is None else torch.tensor(v) for k, v in numbers.items()})


def test_the_total_is_the_weighted_sum():
    assert total_loss(terms(), LossWeights(0.1, 0.01, 0.002)).item() == pytest.approx(1 + 1 + 1 + 2)


@pytest.mark.parametrize("name", ["laplacian", "deformation"])
def test_a_term_without_weight_does_not_count(name):
    weights = dataclasses.replace(LossWeights(), **{name: 0.0})
    without = total_loss(terms(**{name: None}), weights).item()
    for value in (5.0, float("nan")):
        assert total_loss(terms(**{name: value}), weights).item() == without


def test_a_term_that_a_model_does_not_have_does_not_count():
    assert total_loss(terms(laplacian=None, deformation=None), LossWeights(0.1)).item() == pytest.approx(2)
