"""Surface modes: fields that move surfaces most, coordinates that explain a moved shape, a linear part of the code."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from atlas_samples import CODE, phantom_shapes, tiny_model, tiny_training

from implicit_atlas.grid import sample_volume
from implicit_atlas.learning import train
from implicit_atlas.linear import DISTANCE_RESOLUTION, signed_distances
from implicit_atlas.methods import METHODS, ModelConfig, build
from implicit_atlas.model import Atlas
from implicit_atlas.modes import MOTION_VOX, UNIT, Modes, _surface, coordinates, hats, surface_modes
from implicit_atlas.sampling import border_faces
from implicit_atlas.training import gather, optimise

SHAPES = phantom_shapes(6)
PACKED = np.stack([shape.packed for shape in SHAPES])
RESOLUTION = SHAPES[0].frame.resolution
NODES, COUNT = 5, 40


def fields(count: int = COUNT) -> np.ndarray:
    return surface_modes(PACKED, RESOLUTION, count, NODES)


def distances_of_all() -> np.ndarray:
    rows = [signed_distances(shape.occupancy, DISTANCE_RESOLUTION) for shape in SHAPES]
    return np.stack(rows).reshape(-1, *(DISTANCE_RESOLUTION,) * 3)


def motion_vox(displacements: np.ndarray, seed: int = 1) -> np.ndarray:
    """Normal motion, in voxels, of random surface points of the shapes by fields (rows, k): (points, k)."""
    rng = np.random.default_rng(seed)
    found = []
    for shape in SHAPES:
        points, normals = _surface(shape.occupancy, 2000, rng)
        moved = (hats(points, NODES) @ displacements.reshape(NODES**3, -1)).reshape(len(points), 3, -1)
        found.append(np.einsum("pa,pak->pk", normals, moved))
    return np.concatenate(found) * RESOLUTION / 2


def test_hats_read_trilinearly_and_keep_constants():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.2, 1.2, (50, 3))
    weights = hats(points, NODES)
    np.testing.assert_allclose(weights.sum(1), 1)
    axis = np.linspace(-1, 1, NODES)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    np.testing.assert_allclose(weights @ nodes, points.clip(-1, 1), atol=1e-12)


def test_normals_point_inwards_and_points_lie_on_the_border():
    shape = SHAPES[0]
    points, normals = _surface(shape.occupancy, 500, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    volume = torch.from_numpy(signed_distances(shape.occupancy, 32).reshape(32, 32, 32))
    step = 3 / RESOLUTION
    inner, outer = (
        sample_volume(volume, torch.from_numpy(points + s * normals).float()) for s in (step, -step)
    )
    assert (inner > outer).float().mean() > 0.95
    assert len(border_faces(shape.occupancy)) > 500


def test_every_mode_moves_surfaces_alike_and_they_are_orthogonal_there():
    motion = motion_vox(fields())
    np.testing.assert_allclose(np.sqrt((motion**2).mean(0)), MOTION_VOX, rtol=0.1)
    gram = motion.T @ motion / len(motion) / MOTION_VOX**2
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 0.15


def test_the_first_modes_need_the_least_displacement():
    sizes = np.linalg.norm(fields(), axis=0)
    assert (np.diff(sizes) > -1e-9).all() and sizes[-1] > 1.3 * sizes[0]


def test_more_modes_than_there_are_stay_still():
    found = surface_modes(PACKED, RESOLUTION, 3 * NODES**3 + 7, NODES)
    assert found.shape == (3 * NODES**3, 3 * NODES**3 + 7)
    assert np.isfinite(found).all() and not found[:, -7:].any() and found[:, -8].any()


def test_the_mean_shape_has_no_coordinates():
    mean = distances_of_all().mean(0)
    found = coordinates(mean[None], mean, fields(), NODES, RESOLUTION)
    np.testing.assert_allclose(found, 0, atol=1e-4)


def test_coordinates_explain_a_shape_that_modes_have_moved():
    mean, rng = distances_of_all().mean(0), np.random.default_rng(0)
    modes, truth = fields(), rng.normal(size=COUNT)
    side = len(mean)
    points = (
        np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3) * 2 + 1
    ) / side - 1
    moved = points + (hats(points, NODES) @ modes.reshape(NODES**3, -1)).reshape(-1, 3, COUNT) @ truth
    shape = sample_volume(torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(moved).float())
    found = coordinates(shape.numpy().reshape(1, *mean.shape), mean, modes, NODES, RESOLUTION)[0]
    left, before = (np.sqrt((motion_vox(modes) @ c) ** 2).mean() for c in (found - truth, truth))
    assert left < 0.25 * before


def test_a_module_reads_back_the_fields_that_it_starts_from():
    module, modes = Modes(COUNT, NODES), fields().astype(np.float32)
    codes = torch.randn(3, COUNT)
    assert not module(codes).any()
    module.start(torch.from_numpy(modes))
    expected = (codes.numpy() @ modes.T).reshape(3, NODES, NODES, NODES, 3)
    np.testing.assert_allclose(module(codes).detach().numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(module.weight.detach().numpy() * UNIT, modes, rtol=1e-6)


def test_a_fresh_atlas_deforms_by_its_modes_alone():
    torch.manual_seed(0)
    network = build(tiny_model(modes=NODES))
    assert isinstance(network, Atlas) and network.modes is not None
    modes = surface_modes(PACKED, RESOLUTION, CODE, NODES).astype(np.float32)
    network.modes.start(torch.from_numpy(modes))
    codes, points = torch.randn(1, CODE), torch.rand(1, 60, 3) * 2 - 1
    found = network.displacement(network.expand(codes), points)[0].detach().numpy()
    expected = (hats(points[0].numpy(), NODES) @ modes.reshape(NODES**3, -1)).reshape(-1, 3, CODE)
    np.testing.assert_allclose(found, expected @ codes[0].numpy(), atol=1e-5)


def test_codes_start_as_coordinates_and_training_learns_the_modes_on():
    config = tiny_training(steps=3, warps=4)
    model = tiny_model(modes=NODES)
    data = gather(SHAPES, CODE, config, NODES, workers=1)
    assert data.modes is not None and data.modes.shape == (3 * NODES**3, CODE)
    assert np.mean(data.codes**2) == pytest.approx(1, rel=0.05)
    network = optimise(data, model, config).network
    assert isinstance(network, Atlas) and network.modes is not None
    moved = network.modes.weight.detach().numpy() * UNIT - data.modes
    assert 0 < np.abs(moved).max() < 0.2 * np.abs(data.modes).max()


def test_random_codes_and_methods_without_a_convolutional_deformation_have_no_modes():
    config = dataclasses.replace(tiny_training(), codes="random")
    assert gather(SHAPES, CODE, config, NODES, workers=1).modes is None
    with_modes = {name for name in METHODS if ModelConfig(name).mode_nodes}
    assert with_modes == {"implicit-atlas", "implicit-atlas+reg", "D", "D+MT+LS", "D+MT+DP"}
    assert not any(ModelConfig(name, modes=0).mode_nodes for name in METHODS)


def test_shapes_that_are_all_the_same_can_be_learned():
    atlas = train(
        [SHAPES[0], dataclasses.replace(SHAPES[0], name="again")], tiny_model(), tiny_training(steps=2)
    )
    assert np.isfinite(atlas.codes).all()
