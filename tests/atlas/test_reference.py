"""The product's atlas and the paper-literal one have the same values and gradients with the same weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from atlas_samples import CODE, shaken, tiny_model
from reference import LiteralAtlas, LiteralDecoder

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.methods import ModelConfig, build
from implicit_atlas.geometry import grid
from implicit_atlas.geometry.surface import dense_volume


def atlas_of(model: ModelConfig) -> Atlas:
    torch.manual_seed(0)
    atlas = shaken(build(model))
    assert isinstance(atlas, Atlas)
    return atlas


def asked(code_size: int, shapes: int = 3, points: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(shapes, code_size), torch.rand(shapes, points, 3) * 2.2 - 1.1


def assert_same_values(model: ModelConfig, tolerance: float):
    atlas = atlas_of(model).eval()
    codes, points = asked(model.code_size)
    with torch.no_grad():
        ours = atlas(codes, points)
        logits, displacement = LiteralAtlas(atlas)(codes, points)
    assert displacement.abs().max() > 0.01
    torch.testing.assert_close(ours.displacement, displacement, atol=tolerance, rtol=1e-3)
    torch.testing.assert_close(ours.logits, logits, atol=tolerance, rtol=1e-3)


def test_same_values():
    assert_same_values(tiny_model(), 1e-5)


@pytest.mark.slow
def test_same_values_at_the_default_sizes():
    assert_same_values(ModelConfig(), 1e-3)


@pytest.mark.parametrize("which", ["template", "deformation"])
def test_a_decoder_has_the_same_maps_and_values(which):
    decoder = getattr(atlas_of(tiny_model()), which)
    literal = LiteralDecoder(decoder)
    codes, points = asked(CODE)
    for ours, theirs in zip(decoder.levels(codes), literal.levels(codes), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    ours = decoder.query(decoder.expand(codes), torch.arange(len(codes)), points)
    torch.testing.assert_close(ours, literal.values(literal.levels(codes), points), atol=1e-5, rtol=1e-4)


def test_same_gradients_of_codes_points_and_template_codes():
    """With the paper's gradient through the mixed code."""
    atlas = atlas_of(tiny_model(gradient="codes"))
    literal = LiteralAtlas(atlas)
    gradients = []
    for module in (atlas.train(), literal):
        codes, points = (value.requires_grad_() for value in asked(CODE))
        found = module(codes, points)
        logits = found.logits if module is atlas else found[0]
        (logits * torch.linspace(-1, 1, logits.numel()).view(logits.shape)).sum().backward()
        gradients.append((codes.grad, points.grad, module.template_codes.grad, module.selector.weight.grad))
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)


def test_same_dense_volume():
    atlas = atlas_of(dataclasses.replace(tiny_model(), templates=3)).eval()
    code = asked(CODE)[0][:1]
    expanded = atlas.expand(code)

    def values(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return grid.as_numpy(atlas.query(expanded, torch.from_numpy(points)[None]).logits)[0]

    literal = LiteralAtlas(atlas).dense(code[0], grid.lattice(16))
    np.testing.assert_allclose(dense_volume(values, 16).values, literal, atol=1e-5, rtol=1e-4)
