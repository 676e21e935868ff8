"""Local residuals: added to what a code says, and closer to the mask."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from atlas_samples import CODE, FIT, dsc, phantom_shapes, shaken, tiny_atlas, tiny_model

from implicit_atlas.errors import InputError
from implicit_atlas.evaluate import evaluate
from implicit_atlas.local import LocalConfig, fit_residuals
from implicit_atlas.methods import build
from implicit_atlas.model import Atlas
from implicit_atlas.modes import kept_nodes

SHAPES = phantom_shapes(8)


def atlas_and_codes() -> tuple[Atlas, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    atlas = shaken(build(tiny_model("implicit-atlas+reg"))).eval()
    assert isinstance(atlas, Atlas)
    return atlas, torch.randn(2, CODE), torch.rand(2, 50, 3) * 2 - 1


def test_a_residual_is_added_to_the_lengths_of_the_modes():
    atlas, codes, points = atlas_and_codes()
    assert atlas.modes is not None
    residual = torch.randn(2, len(atlas.modes.kept)) * 0.01
    plain = atlas.expand(codes)
    assert plain.motion is not None
    expected = dataclasses.replace(plain, motion=plain.motion + atlas.modes.lattice(residual))
    found = atlas.displacement(atlas.expand(codes, residual=residual), points)
    torch.testing.assert_close(found, atlas.displacement(expected, points))
    assert (found - atlas.displacement(plain, points)).abs().max() > 1e-3


def test_no_residual_is_a_residual_of_zero():
    atlas, codes, points = atlas_and_codes()
    zero = torch.zeros(2, kept_nodes(9))
    found, expected = atlas.query(atlas.expand(codes, residual=zero), points), atlas(codes, points)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-4)


def test_a_fit_with_a_residual_comes_closer_and_says_what_was_free():
    plain = dataclasses.replace(FIT, iterations=20)
    local = dataclasses.replace(plain, local=LocalConfig(iterations=60))
    for shape, a, b in zip(
        SHAPES[5:], tiny_atlas().fit(SHAPES[5:], plain), tiny_atlas().fit(SHAPES[5:], local), strict=True
    ):
        np.testing.assert_array_equal(a.found.code, b.found.code)
        assert a.found.residual is None and b.found.residual is not None
        assert b.found.loss < a.found.loss
        assert dsc(b.occupancy(), shape.occupancy) > dsc(a.occupancy(), shape.occupancy)
        assert (
            b.found.degrees_of_freedom - a.found.degrees_of_freedom == kept_nodes(9) == b.found.residual.size
        )


def test_the_protocol_counts_the_residual():
    config = dataclasses.replace(FIT, iterations=2, local=LocalConfig(iterations=1))
    assert evaluate(tiny_atlas(), SHAPES[:1], config).protocol.degrees_of_freedom == CODE + kept_nodes(9)


def test_a_heavy_penalty_leaves_nothing_and_a_light_one_finds_the_least():
    wanted = torch.randn(2, 40) * 0.02

    def losses(residual, iteration):
        return (residual - wanted).square().mean(1)

    found = [
        fit_residuals(losses, 2, 40, LocalConfig(300, weight=weight), torch.device("cpu"))
        for weight in (0.0, 1.0, 1e6)
    ]
    torch.testing.assert_close(found[0], wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], wanted / 2, atol=1e-3, rtol=0)
    assert found[2].abs().max() < 1e-3


@pytest.mark.parametrize("method", ["mlp+template", "conv", "MT"])
def test_methods_without_modes_refuse(method):
    atlas = tiny_atlas()
    network = shaken(build(tiny_model(method))).eval()
    other = type(atlas)(
        dataclasses.replace(atlas.config, model=tiny_model(method)), network, atlas.codes, atlas.encoder, {}
    )
    with pytest.raises(InputError, match="surface modes"):
        other.fit(SHAPES[:1], dataclasses.replace(FIT, iterations=1, local=LocalConfig()))
