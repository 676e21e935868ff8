"""Muon: its step is orthogonal, blind to the gradient's size, and lowers a loss."""

from __future__ import annotations

import pytest
import torch
from atlas_samples import tiny_model

from implicit_atlas.atlas.methods import METHODS, build
from implicit_atlas.training.muon import STEP, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (9, 9)])
def test_singular_values_are_driven_towards_one_along_the_same_directions(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonalised(matrix) @ vt.T
    torch.testing.assert_close(found, torch.diag(found.diagonal()), atol=1e-9, rtol=0)
    large = s > 0.2 * s[0]
    assert ((found.diagonal()[large] > 0.6) & (found.diagonal()[large] < 1.3)).all()


def test_a_zero_gradient_changes_nothing():
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3, 3))
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=1.0).step()
    assert torch.equal(weight, before)


def test_the_step_does_not_depend_on_the_size_of_the_gradient_and_has_the_stated_size():
    steps = []
    for scale in (1.0, 1e-4):
        torch.manual_seed(1)
        weight = torch.nn.Parameter(torch.zeros(16, 8, 3, 3, 3))
        weight.grad = torch.randn_like(weight) * scale
        Muon([weight], lr=0.5).step()
        steps.append(weight.detach())
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-3, atol=1e-5)
    size = steps[0].square().mean().sqrt().item()
    assert size == pytest.approx(0.5 * STEP, rel=0.2)


def test_it_finds_the_least_squares_solution_up_to_its_step():
    torch.manual_seed(2)
    target, weight = torch.randn(8, 12), torch.nn.Parameter(torch.zeros(8, 12))
    optimizer = Muon([weight], lr=0.0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert (weight - target).abs().max() < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_hidden_weights_are_matrices_of_the_network_and_leave_codes_and_heads_out(method):
    network = build(tiny_model(method=method))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    hidden = [names[id(weight)] for weight in network.hidden_weights()]
    assert len(set(hidden)) == len(hidden) > 0
    assert not [name for name in hidden if any(part in name for part in ("head", "first", "codes", "bias"))]
    assert all(weight.ndim >= 2 for weight in network.hidden_weights())
