"""Sampling: labels are those of the voxels, every voxel can be seen, and observations come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from atlas_samples import RESOLUTION, phantom_shapes
from jaxtyping import TypeCheckError

from implicit_atlas.errors import InputError
from implicit_atlas.geometry import grid
from implicit_atlas.shapes.sampling import (
    Observations,
    ObservationSet,
    PointConfig,
    ShapeSet,
    border_faces,
    unpack,
)


def shape_set(count: int = 4) -> ShapeSet:
    return ShapeSet(np.stack([shape.packed for shape in phantom_shapes(count)]), RESOLUTION)


def sample(target, config, ids=(0, 1, 2, 3), seed=0):
    return target.sample(torch.tensor(ids), config, torch.Generator().manual_seed(seed))


def test_unpacking_undoes_packing():
    cube = np.random.default_rng(0).random((9, 9, 9)) < 0.3
    np.testing.assert_array_equal(unpack(np.packbits(cube), 9), cube)


@pytest.mark.parametrize("density", [0.3, 0.9])
def test_border_faces_lie_between_an_occupied_and_an_empty_voxel(density):
    cube = np.random.default_rng(0).random((7, 7, 7)) < density
    before = cube.copy()
    wanted = {
        (i, j, k, axis)
        for i, j, k in np.ndindex(cube.shape)
        for axis, next_one in enumerate([(i + 1, j, k), (i, j + 1, k), (i, j, k + 1)])
        if max(next_one) < 7 and cube[i, j, k] != cube[next_one]
    }
    faces = border_faces(cube)
    found = {(*map(int, np.unravel_index(face // 3, cube.shape)), int(face % 3)) for face in faces}
    assert found == wanted and len(faces) == len(wanted) and (np.diff(faces) > 0).all()
    np.testing.assert_array_equal(cube, before)


@pytest.mark.parametrize("fill", [True, False])
def test_without_a_border_every_face_counts(fill):
    assert len(border_faces(np.full((4, 4, 4), fill))) == 3 * 3 * 4 * 4


def test_labels_are_the_occupancy_of_the_voxel_at_each_point():
    ids = (2, 0, 0, 3)
    found = sample(shape_set(), PointConfig(lattice=6, band=200), ids)
    assert found.points.shape == (4, 6**3 + 200, 3)
    assert found.points.abs().max() <= 1
    cell = np.clip(((found.points.numpy() + 1) * RESOLUTION / 2).astype(int), 0, RESOLUTION - 1)
    for row, index in enumerate(ids):
        truth = phantom_shapes(4)[index].occupancy[tuple(cell[row].T)]
        np.testing.assert_array_equal(found.occupancy[row], truth)
    assert (found.weight == 1).all()


def test_leading_points_form_the_sub_lattice():
    found = sample(shape_set(), PointConfig(lattice=5, jitter=0.0, band=30))
    assert found.lattice == 5
    assert torch.equal(found.points[:, :125], grid.lattice(5).view(1, -1, 3).expand(4, -1, -1))


def test_a_jittered_sub_lattice_sees_every_voxel():
    target, seen = shape_set(1), torch.zeros(RESOLUTION**3, dtype=torch.bool)
    for seed in range(60):
        points = sample(target, PointConfig(lattice=16, band=0), (0,) * 4, seed).points
        seen[grid.voxel_at(points, RESOLUTION)] = True
    assert seen.all()


def test_a_band_without_width_is_the_border():
    """Its points lie midway between an occupied and an empty voxel of the lattice."""
    found = sample(shape_set(), PointConfig(lattice=2, jitter=0, band=4000, band_width_vox=0.0))
    voxel = (found.points[:, 8:].numpy() + 1) * RESOLUTION / 2 - 0.5
    lower, upper = np.floor(voxel + 1e-3).astype(int), np.ceil(voxel - 1e-3).astype(int)
    assert (np.abs(upper - lower).sum(-1) == 1).all()
    for row, shape in enumerate(phantom_shapes(4)):
        sides = [shape.occupancy[tuple(side[row].T)] for side in (lower, upper)]
        assert (sides[0] != sides[1]).all()
        assert len(np.unique(lower[row], axis=0)) > 0.6 * min(4000, len(border_faces(shape.occupancy)) / 2)


def test_a_band_is_inside_as_often_as_outside():
    """Points that favour one side would make shapes too large or too small."""
    side = np.zeros((RESOLUTION,) * 3, bool)
    side[: RESOLUTION // 2] = True  # a plane: what curvature does is left out
    target = ShapeSet(np.packbits(side)[None], RESOLUTION)
    config = PointConfig(lattice=1, band=40_000, band_width_vox=1.0)
    share = sample(target, config, (0,)).occupancy[:, 1:].mean().item()
    assert share == pytest.approx(0.5, abs=0.01)


def test_a_band_lies_around_the_border_at_its_width():
    still, moved = (
        sample(shape_set(), PointConfig(lattice=1, band=4000, band_width_vox=width)).points[:, 1:]
        for width in (0.0, 1.0)
    )
    inner = (moved.abs() < 1).all(-1)
    offset_vox = ((moved - still) * RESOLUTION / 2)[inner]
    assert offset_vox.std().item() == pytest.approx(1, abs=0.1)


def test_sampling_is_a_matter_of_its_generator():
    config = PointConfig(lattice=4, band=50)
    first, again, other = (sample(shape_set(), config, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.points, again.points) and torch.equal(first.occupancy, again.occupancy)
    assert not torch.equal(first.points, other.points)


@pytest.mark.parametrize("config", [PointConfig(lattice=4, band=50), PointConfig(lattice=2, band=32)])
def test_shared_draws_give_every_shape_what_it_would_get_alone(config):
    target = ObservationSet([observed(500), observed(300, seed=1), observed(500, seed=2)])
    for one in (shape_set(), target):
        together, alone = (
            one.sample(torch.tensor(ids), config, torch.Generator().manual_seed(3), shared=True)
            for ids in ((0, 2), (2,))
        )
        assert torch.equal(together.points[1], alone.points[0])
        assert torch.equal(together.occupancy[1], alone.occupancy[0])


def test_shapes_are_copied():
    packed = np.stack([shape.packed for shape in phantom_shapes(2)])
    target = ShapeSet(packed, RESOLUTION)
    before = sample(target, PointConfig(lattice=4, band=0), (0, 1)).occupancy
    packed[:] = 0
    assert torch.equal(sample(target, PointConfig(lattice=4, band=0), (0, 1)).occupancy, before)
    assert len(target) == 2


def observed(count: int, seed: int = 0, **values) -> Observations:
    rng = np.random.default_rng(seed)
    fields = {
        "points": rng.uniform(-1, 1, (count, 3)),
        "occupancy": rng.integers(0, 2, count).astype(float),
        "weight": rng.uniform(0.5, 2, count),
    }
    return Observations(**(fields | values))


def test_observations_that_fit_come_back_whole_and_padded_without_weight():
    first, second = observed(10), observed(6, seed=1)
    found = sample(ObservationSet([first, second]), PointConfig(lattice=2, band=8), (1, 0))
    assert found.points.shape == (2, 10, 3) and found.lattice == 0
    np.testing.assert_allclose(found.points[1], first.points, rtol=1e-6)
    np.testing.assert_allclose(found.points[0, :6], second.points, rtol=1e-6)
    np.testing.assert_allclose(found.occupancy[0, :6], second.occupancy)
    np.testing.assert_allclose(found.weight[0], [*second.weight, 0, 0, 0, 0], rtol=1e-6)


def test_more_observations_than_the_budget_are_drawn_without_repetition():
    one = observed(500)
    target = ObservationSet([one])
    found = sample(target, PointConfig(lattice=2, band=32), (0,))
    assert found.points.shape == (1, 40, 3)
    rows = {tuple(row) for row in one.points.astype(np.float32).tolist()}
    drawn = [tuple(row) for row in found.points[0].tolist()]
    assert len(set(drawn)) == 40 and set(drawn) <= rows
    assert not torch.equal(found.points, sample(target, PointConfig(lattice=2, band=32), (0,), seed=1).points)


def test_weights_are_one_by_default():
    assert (observed(5, weight=None).weight == 1).all()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"points": np.full((8, 3), np.nan)}, "not finite"),
        ({"occupancy": np.full(8, 1.5)}, "out of range"),
        ({"weight": np.full(8, -1.0)}, "out of range"),
        ({"weight": np.zeros(8)}, "out of range"),
    ],
)
def test_senseless_observations_are_refused(values, problem):
    with pytest.raises(InputError, match=problem):
        observed(8, **values)


@pytest.mark.parametrize(
    "values", [{"points": np.zeros((8, 2))}, {"occupancy": np.zeros(7)}, {"weight": np.ones(9)}]
)
def test_observations_of_different_sizes_are_refused(values):
    with pytest.raises((InputError, TypeCheckError)):  # the second where types are checked at run time
        observed(8, **values)


def test_too_few_observations_are_refused():
    with pytest.raises(InputError, match="only 3 points"):
        observed(3)
    with pytest.raises(InputError, match="fewer than four places"):
        observed(8, points=np.full((8, 3), 0.25))
