"""Velocity fields: flows whose answers are known, their inverse, and the atlas that moves points by them."""

from __future__ import annotations

import dataclasses
import math

import torch
from atlas_samples import CODE, shaken, tiny_model

from implicit_atlas.atlas.deformation import displacements, flow
from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.methods import build
from implicit_atlas.geometry.grid import interpolate_maps


def points(count: int = 50) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(1, count, 3) * 2 - 1


def swirl(at: torch.Tensor) -> torch.Tensor:
    """A smooth field without a closed solution."""
    x, y, z = at.unbind(-1)
    return 0.3 * torch.stack([torch.sin(3 * y), torch.cos(2 * z), torch.sin(x + y)], dim=-1)


def test_a_constant_velocity_is_a_shift():
    shift = torch.tensor([0.1, -0.2, 0.3])
    torch.testing.assert_close(flow(lambda at: shift.expand_as(at), points()), points() + shift)


def test_a_rotation_turns_by_its_angle_with_the_error_of_second_order():
    def spin(at):
        x, y, z = at.unbind(-1)
        return 0.5 * torch.stack([-y, x, torch.zeros_like(z)], dim=-1)

    c, s = math.cos(0.5), math.sin(0.5)
    turned = points() @ torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
    errors = [float((flow(spin, points(), steps) - turned).abs().max()) for steps in (2, 4, 8)]
    assert (
        errors[0] < 0.5**3 / 6 / 2**2 * math.sqrt(2) * 1.1
    )  # a step of angle a is wrong by a³ / 6 of the radius
    assert errors[0] / errors[1] > 3.5 and errors[1] / errors[2] > 3.5


def test_the_way_back_undoes_the_flow_the_better_the_more_steps():
    errors = [
        float((flow(lambda at: -swirl(at), flow(swirl, points(), steps), steps) - points()).abs().max())
        for steps in (4, 16)
    ]
    assert errors[0] < 2e-3 and errors[1] < errors[0] / 12


def test_a_flow_does_not_fold():
    at = points(200).requires_grad_()
    rows = [torch.autograd.grad(flow(swirl, at)[..., i].sum(), at)[0] for i in range(3)]
    assert torch.linalg.det(torch.stack(rows, dim=-2)).min() > 0


def test_additive_displacements_are_what_the_field_says():
    torch.testing.assert_close(displacements("additive", swirl, points()), swirl(points()))
    moved = points() + displacements("velocity", swirl, points())
    torch.testing.assert_close(moved, flow(swirl, points()))


def test_an_atlas_of_velocities_reads_its_template_at_the_end_of_the_flow_and_learns():
    torch.manual_seed(0)
    model = dataclasses.replace(tiny_model("implicit-atlas+reg"), motion="velocity")
    atlas = shaken(build(model)).eval()
    assert isinstance(atlas, Atlas) and atlas.deformation is not None and atlas.modes is not None
    codes, at = torch.randn(2, CODE), points(20).expand(2, -1, -1).contiguous()
    found = atlas(codes, at)
    features, owner = atlas.expand(codes).shape_features, torch.arange(2)
    assert features is not None
    deformation = atlas.deformation
    end = flow(lambda where: deformation.query(features, owner, where), at)
    end = end + interpolate_maps(atlas.modes(codes, found.assignment.argmax(-1)), end)
    torch.testing.assert_close(at + found.displacement, end)
    template = atlas.template.query(atlas.expand_templates(), found.assignment.argmax(-1), end)[..., 0]
    torch.testing.assert_close(found.logits, template)
    found.logits.square().sum().backward()
    for name, parameter in atlas.named_parameters():
        if name.startswith(("deformation", "modes")):
            assert (
                parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.any()
            )
