"""Surface modes: fields that move surfaces most, coordinates that explain a moved shape, a linear part of the code."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from atlas_samples import CODE, phantom_shapes, tiny_model, tiny_training

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.linear import DISTANCE_RESOLUTION, signed_distances
from implicit_atlas.atlas.methods import METHODS, ModelConfig, build
from implicit_atlas.atlas.modes import (
    MOTION,
    SMOOTHING,
    UNIT,
    Modes,
    SurfaceModes,
    bumps,
    coordinates,
    hats,
    kept_nodes,
    leading,
    node_places,
    surface_modes,
)
from implicit_atlas.geometry.grid import interpolate_maps, sample_volume
from implicit_atlas.training import gather, optimise
from implicit_atlas.training.learning import train
from implicit_atlas.training.modal_start import CHOICE, clusters, modal_start, shrunk

SHAPES = phantom_shapes(6)
NODES, COUNT = 9, 40
OWNER = torch.zeros(3, dtype=torch.long)


@cache
def distances() -> np.ndarray:
    rows = [signed_distances(shape.occupancy, DISTANCE_RESOLUTION) for shape in SHAPES]
    return np.stack(rows).reshape(-1, *(DISTANCE_RESOLUTION,) * 3)


def mean_shape() -> np.ndarray:
    return distances().mean(0)


@cache
def modes(count: int = COUNT, nodes: int = NODES) -> SurfaceModes:
    return surface_modes(mean_shape(), count, nodes)


def lattice(side: int) -> np.ndarray:
    """Cell-centred points of the cube, in C order."""
    axis = (np.arange(side) * 2 + 1) / side - 1
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def surface() -> tuple[np.ndarray, np.ndarray]:
    """Points near the mean surface, and unit vectors towards the inside there."""
    mean = mean_shape()
    slope = np.stack(np.gradient(mean), axis=-1).reshape(-1, 3)
    near = np.abs(mean.ravel()) < 1 / len(mean)
    return lattice(len(mean))[near], slope[near] / np.linalg.norm(slope[near], axis=1, keepdims=True)


def motion_along_normals(found: SurfaceModes) -> np.ndarray:
    points, inwards = surface()
    return np.einsum("pa,pak->pk", inwards, found.motions(points))


def test_hats_read_trilinearly_and_keep_constants():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.2, 1.2, (50, 3))
    weights = hats(points, NODES)
    np.testing.assert_allclose(weights.sum(1), 1)
    axis = np.linspace(-1, 1, NODES)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    np.testing.assert_allclose(weights @ nodes, points.clip(-1, 1), atol=1e-12)


def test_nodes_with_lengths_are_those_nearest_to_the_surface_and_point_inwards():
    found = modes()
    axis = np.linspace(-1, 1, NODES)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    volume = torch.from_numpy(mean_shape().astype(np.float32))
    far = sample_volume(volume, torch.from_numpy(nodes).float()).abs().numpy()
    rest = np.delete(far, found.kept)
    assert len(found.kept) == kept_nodes(NODES) and far[found.kept].max() <= rest.min() + 1e-6
    np.testing.assert_allclose(np.linalg.norm(found.normals[0], axis=1), 1, atol=1e-6)
    near = found.kept[far[found.kept] < 0.1]
    inner, outer = (
        sample_volume(
            volume, torch.from_numpy(nodes[near] + step * found.normals[0][np.isin(found.kept, near)]).float()
        )
        for step in (0.05, -0.05)
    )
    assert (inner > outer).float().mean() > 0.95


def test_every_mode_moves_the_surface_alike_and_they_are_orthogonal_there():
    motion = motion_along_normals(modes())
    np.testing.assert_allclose(np.sqrt((motion**2).mean(0)), MOTION, rtol=0.2)
    gram = motion.T @ motion / len(motion) / MOTION**2
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 0.2


def test_the_first_modes_are_the_widest():
    points, _ = surface()
    motion = motion_along_normals(modes())
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    first, second = np.nonzero(np.triu(apart < 0.15, 1))
    roughness = np.square(motion[first] - motion[second]).mean(0) / np.square(motion).mean(0)
    assert roughness[:5].mean() < 0.5 * roughness[-5:].mean()


def test_more_modes_than_there_are_sources_stay_still():
    found = modes(300, 5)
    still = ~found.lengths.any(0)
    assert found.lengths.shape == (kept_nodes(5), 300) and np.isfinite(found.lengths).all()
    assert still[-1] and not still[0] and (np.diff(still.astype(int)) >= 0).all()


def test_the_mean_shape_has_no_coordinates():
    found = coordinates(mean_shape()[None], mean_shape(), modes())
    np.testing.assert_allclose(found, 0, atol=1e-4)


def test_coordinates_explain_a_shape_that_modes_have_moved():
    mean, rng = mean_shape(), np.random.default_rng(0)
    truth = rng.normal(size=COUNT)
    points = lattice(len(mean))
    moved = points + modes().motions(points) @ truth
    shape = sample_volume(torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(moved).float())
    found = coordinates(shape.numpy().reshape(1, *mean.shape), mean, modes())[0]
    motion = motion_along_normals(modes())
    left, before = (np.sqrt(np.square(motion @ c).mean()) for c in (found - truth, truth))
    assert left < 0.25 * before


def test_a_module_moves_points_as_the_patterns_that_it_starts_from():
    module, codes = Modes(COUNT, NODES), torch.randn(3, COUNT)
    assert not module(codes, OWNER).any() and module.is_valid()
    module.start(modes())
    points = np.random.default_rng(0).uniform(-1, 1, (3, 50, 3))
    expected = [modes().motions(p) @ code for p, code in zip(points, codes.numpy(), strict=True)]
    found = interpolate_maps(module(codes, OWNER), torch.from_numpy(points).float()).detach()
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("wrong", [-1, NODES**3, 0])
def test_nodes_beyond_the_lattice_or_twice_are_noticed(wrong):
    module = Modes(COUNT, NODES)
    module.start(modes())
    assert module.is_valid()
    module.kept[-1 if wrong else 1] = wrong if wrong else module.kept[0]
    assert not module.is_valid()


def test_a_fresh_atlas_deforms_by_its_modes_alone():
    torch.manual_seed(0)
    network = build(tiny_model(modes=NODES, templates=1))
    assert isinstance(network, Atlas) and network.modes is not None
    network.modes.start(modes(CODE))
    codes, points = torch.randn(1, CODE), torch.rand(1, 60, 3) * 2 - 1
    found = network.displacement(network.expand(codes), points)[0].detach().numpy()
    expected = modes(CODE).motions(points[0].numpy()) @ codes[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_codes_start_as_coordinates_and_training_learns_the_modes_on():
    config = tiny_training(steps=3, warps=4)
    model = tiny_model(modes=NODES)
    data = gather(SHAPES, model, config, workers=1)
    assert data.modes is not None and data.modes.lengths.shape == (kept_nodes(NODES), CODE)
    assert np.mean(data.codes[:, :-2] ** 2) == pytest.approx(1, rel=0.05)
    network = optimise(data, model, config).network
    assert isinstance(network, Atlas) and network.modes is not None
    np.testing.assert_array_equal(network.modes.kept, data.modes.kept)
    moved = network.modes.weight.detach().numpy() * UNIT - data.modes.lengths
    assert 0 < np.abs(moved).max() < 0.2 * np.abs(data.modes.lengths).max()


def test_random_codes_and_methods_without_a_convolutional_deformation_have_no_modes():
    config, model = dataclasses.replace(tiny_training(), codes="random"), tiny_model(modes=NODES)
    assert gather(SHAPES, model, config, workers=1).modes is None
    with_modes = {name for name in METHODS if ModelConfig(name).mode_nodes}
    assert with_modes == {"implicit-atlas", "implicit-atlas+reg", "D", "D+MT+LS", "D+MT+DP"}
    assert not any(ModelConfig(name, modes=0).mode_nodes for name in METHODS)


def test_templates_start_as_means_of_clusters_and_shapes_choose_their_own():
    start = modal_start(distances(), len(SHAPES), CODE, NODES, templates=2)
    means, owner = clusters(distances(), len(SHAPES), 2, 0)
    assert set(owner) == {0, 1}
    for template in range(2):
        np.testing.assert_allclose(means[template], distances()[owner == template].mean(0), atol=1e-5)
    np.testing.assert_allclose(start.codes[:, CODE - 2 :], CHOICE * np.eye(2)[owner], atol=1e-6)
    assert not start.modes.lengths[:, CODE - 2 :].any()
    network = build(tiny_model(modes=NODES))
    assert isinstance(network, Atlas) and network.modes is not None
    network.start_selection(torch.from_numpy(start.centres))
    scores = network.selector(torch.from_numpy(start.codes)).detach().numpy()
    assert (scores.argmax(1) == owner).all()
    np.testing.assert_allclose(np.ptp(scores, axis=1), 10, atol=1e-3)
    network.modes.start(start.modes)
    assert not torch.equal(network.modes.normals[0], network.modes.normals[1])


def test_an_outlier_is_no_template():
    rng = np.random.default_rng(0)
    shapes = np.concatenate(
        [rng.normal(size=(20, 3, 3, 3)) + at for at in (0, 20)] + [np.full((1, 3, 3, 3), 500)]
    )
    means, owner = clusters(shapes, len(shapes), 2, 0)
    assert sorted(means.mean((1, 2, 3)).round()) == [0, 20]
    assert sorted(np.bincount(owner)) == [20, 21]


def test_shapes_that_are_all_alike_have_means():
    means, _ = clusters(np.ones((30, 2, 2, 2)), 30, 5, 0)
    assert (means == 1).any() and np.isfinite(means).all()


@pytest.mark.parametrize("templates", [6, 9])
def test_few_shapes_are_templates_themselves(templates):
    means, owner = clusters(distances(), len(SHAPES), templates, 0)
    assert owner.tolist() == list(range(6))
    np.testing.assert_allclose(means[:6], distances(), atol=1e-6)
    start = modal_start(distances(), len(SHAPES), CODE, NODES, templates)
    np.testing.assert_allclose(start.codes[:, : CODE - templates], 0, atol=1e-3)


def test_means_of_small_clusters_are_drawn_towards_the_mean_of_all():
    values = np.array([0.0, 0.0, 0.0, 8.0])[:, None, None, None] * np.ones((4, 2, 2, 2))
    means = np.array([0.0, 8.0])[:, None, None, None] * np.ones((2, 2, 2, 2))
    owner = np.array([0, 0, 0, 1])
    found = shrunk(means, owner, values, 3.0)  # the mean of all is 2
    np.testing.assert_allclose(found[:, 0, 0, 0], [2 + 3 / 6 * (0 - 2), 2 + 1 / 4 * (8 - 2)])
    np.testing.assert_allclose(shrunk(means, owner, values, 0.0), means)
    # Shapes are then no longer their templates, and their coordinates say how they differ.
    start = modal_start(distances(), len(SHAPES), CODE, NODES, 6, shrinkage=3.0)
    assert np.abs(start.codes[:, : CODE - 6]).max() > 0.1


def test_all_templates_may_start_as_the_mean():
    config = tiny_training(templates="mean")
    data = gather(SHAPES, tiny_model(modes=NODES), config, workers=1)
    assert data.modes is not None and data.modes.normals.shape == (2, kept_nodes(NODES), 3)
    assert np.array_equal(*data.modes.normals) and data.centres.shape == (2, CODE)
    assert data.codes[:, -2:].std() > 0


def test_shapes_that_are_all_the_same_can_be_learned():
    atlas = train(
        [SHAPES[0], dataclasses.replace(SHAPES[0], name="again")], tiny_model(), tiny_training(steps=2)
    )
    assert np.isfinite(atlas.codes).all()


@pytest.mark.parametrize("size", [12, 600])
def test_leading_patterns_are_those_of_a_dense_decomposition(size):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((size, size)))[0]
    matrix = axes * np.exp(-np.arange(size) / 20) @ axes.T
    values, vectors = leading(lambda columns: matrix @ columns, size, 10, rng)
    exact, directions = np.linalg.eigh(matrix)
    np.testing.assert_allclose(values, exact[::-1][:10], rtol=1e-9)
    alike = np.abs(np.sum(vectors * directions[:, ::-1][:, :10], axis=0))
    np.testing.assert_allclose(alike, 1, atol=1e-9)


def test_bumps_axis_by_axis_are_those_of_distances():
    nodes, rng = 9, np.random.default_rng(0)
    where, sources, wanted = node_places(nodes), *(rng.choice(nodes**3, 20, replace=False) for _ in range(2))
    strengths = rng.standard_normal((20, 3))
    apart = np.square(where[wanted][:, None] - where[sources]).sum(-1)
    exact = np.exp(-apart / (2 * SMOOTHING**2)) @ strengths
    np.testing.assert_allclose(bumps(strengths, sources, wanted, nodes), exact, atol=1e-12)
