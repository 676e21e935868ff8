"""Local residuals: added to what a code says, and closer to the mask."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from atlas_samples import CODE, FIT, dsc, phantom_shapes, shaken, tiny_atlas, tiny_model

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.methods import build
from implicit_atlas.atlas.modes import node_places
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.local import REACH, LocalConfig, ResidualNodes, fit_residuals, residual_nodes
from implicit_atlas.geometry.grid import interpolate_maps
from implicit_atlas.tasks.evaluate import evaluate

SHAPES = phantom_shapes(8)


def atlas_and_codes() -> tuple[Atlas, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    atlas = shaken(build(tiny_model("implicit-atlas+reg"))).eval()
    assert isinstance(atlas, Atlas)
    return atlas, torch.randn(2, CODE), torch.rand(2, 50, 3) * 2 - 1


def test_nodes_of_a_residual_lie_near_a_templates_surface_and_point_inwards():
    axis = torch.arange(32) / 16 - 1 + 1 / 32
    place = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    balls = torch.stack([radius - place.norm(dim=-1) for radius in (0.4, 0.8)])
    nodes = residual_nodes(balls, 17)
    where = node_places(17)[nodes.kept.numpy()]
    radius = np.linalg.norm(where, axis=1)
    reach = REACH / 8 + 1 / 32  # nodes on the faces of the cube are read at the nearest cell
    assert (np.minimum(abs(radius - 0.4), abs(radius - 0.8)) < reach).all()
    assert (
        len(radius) > 0.9 * (np.abs(np.linalg.norm(node_places(17), axis=1) - 0.8) < REACH / 8 - 0.02).sum()
    )
    for own, normals in zip((0.4, 0.8), nodes.normals.numpy(), strict=True):
        near = normals.any(1)
        assert (near == (abs(radius - own) < reach)).mean() > 0.95 and near.sum() <= nodes.free < len(radius)
        assert ((normals[near] * where[near]).sum(1) < -0.95 * radius[near]).all()


def test_a_residual_moves_points_of_the_template_along_its_normals():
    atlas, codes, points = atlas_and_codes()
    torch.manual_seed(1)
    nodes = ResidualNodes(torch.arange(20, 80), torch.randn(2, 60, 3), 5)
    lengths, template = torch.randn(2, 60) * 0.1, torch.tensor([1, 0])
    lattice = nodes.lattice(lengths, template)
    np.testing.assert_allclose(lattice.reshape(2, 125, 3)[0, 20:80], lengths[0, :, None] * nodes.normals[1])
    assert not lattice.reshape(2, 125, 3)[:, :20].any()
    without = atlas.displacement(atlas.expand(codes), points)
    found = atlas.displacement(atlas.expand(codes, residual=lattice), points)
    torch.testing.assert_close(found, without + interpolate_maps(lattice, points + without))


def test_no_residual_is_a_residual_of_zero():
    atlas, codes, points = atlas_and_codes()
    zero = torch.zeros(2, 9, 9, 9, 3)
    found, expected = atlas.query(atlas.expand(codes, residual=zero), points), atlas(codes, points)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-4)


def test_a_fit_with_a_residual_comes_closer_and_says_what_was_free():
    plain = dataclasses.replace(FIT, iterations=20)
    local = dataclasses.replace(plain, local=LocalConfig(17, iterations=60))
    for shape, a, b in zip(
        SHAPES[5:], tiny_atlas().fit(SHAPES[5:], plain), tiny_atlas().fit(SHAPES[5:], local), strict=True
    ):
        np.testing.assert_array_equal(a.found.code, b.found.code)
        assert a.found.residual is None and b.found.residual is not None
        assert b.found.loss < a.found.loss
        assert dsc(b.occupancy(), shape.occupancy) > dsc(a.occupancy(), shape.occupancy)
        assert (
            b.found.degrees_of_freedom - a.found.degrees_of_freedom
            == tiny_atlas().residual_nodes(17).free
            > 100
        )


def test_the_protocol_counts_the_residual():
    config = dataclasses.replace(FIT, iterations=2, local=LocalConfig(9, iterations=1))
    nodes = tiny_atlas().residual_nodes(9)
    assert nodes is not None
    found = evaluate(tiny_atlas(), SHAPES[:1], config)
    assert found.protocol.degrees_of_freedom == CODE + nodes.free


def test_a_heavy_penalty_leaves_nothing_and_a_light_one_finds_the_least():
    wanted = torch.randn(2, 40) * 0.02
    nodes = ResidualNodes(torch.arange(40), torch.randn(2, 40, 3), 5)

    def losses(residual, iteration):
        return (residual - wanted).square().mean(1)

    found = [
        fit_residuals(losses, 2, nodes, LocalConfig(iterations=300, weight=weight))
        for weight in (0.0, 1.0, 1e6)
    ]
    torch.testing.assert_close(found[0], wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], wanted / 2, atol=1e-3, rtol=0)
    assert found[2].abs().max() < 1e-3


@pytest.mark.parametrize("method", ["conv", "MT"])
def test_methods_without_a_deformation_refuse(method):
    atlas = tiny_atlas()
    network = shaken(build(tiny_model(method))).eval()
    config = dataclasses.replace(atlas.config, model=tiny_model(method))
    other = type(atlas)(config, network, atlas.codes, atlas.encoder, atlas.prior, {})
    with pytest.raises(InputError, match="needs a deformation"):
        other.fit(SHAPES[:1], dataclasses.replace(FIT, iterations=1, local=LocalConfig()))


def test_a_lattice_without_an_inside_is_refused():
    with pytest.raises(InputError, match="too few"):
        LocalConfig(2)
