"""Warps: repeatable, put back into their own box, and no warp at all at no strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from atlas_samples import RESOLUTION, dsc, phantom_shapes
from reference import warp_occupancy_literal

from implicit_atlas.geometry.kernels import warp_occupancy
from implicit_atlas.shapes.manifest import PrepareConfig
from implicit_atlas.shapes.store import shape_from_array
from implicit_atlas.training.augment import REACH, WarpConfig, random_warp, warp

STILL = WarpConfig(affine=0.0, elastic=(), nodes=())


def faces_touched(occupancy: np.ndarray) -> list[bool]:
    return [bool(occupancy.take(end, axis).any()) for axis in range(3) for end in (0, -1)]


def test_the_same_seed_gives_the_same_warp():
    shape = phantom_shapes(1)[0].occupancy
    first, again, other = (warp(shape, WarpConfig(), seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert dsc(first, other) < 0.99


@pytest.mark.parametrize("seed", range(8))
def test_warps_fill_their_box_and_stay_shapes(seed):
    shape = phantom_shapes(4)[seed % 4].occupancy
    warped = warp(shape, WarpConfig(), seed)
    assert warped.shape == shape.shape and warped.dtype == bool
    assert all(faces_touched(warped))
    assert 0.4 < warped.sum() / shape.sum() < 2
    assert dsc(warped, shape) < 0.995


@pytest.mark.parametrize(
    ("margin", "kind"), [(0.0, "box"), (0.1, "box"), (0.0, "isotropic"), (0.1, "isotropic")]
)
def test_warps_lie_in_their_frames_as_the_shapes_do(margin, kind):
    wide = np.zeros((160, 160, 160), bool)
    places = np.indices((80, 128, 48)).T / (39.5, 63.5, 23.5) - 1
    wide[40:120, 16:144, 56:104] = np.linalg.norm(places, axis=-1).T < 1
    shape = shape_from_array(wide, np.eye(4), like=PrepareConfig(64, margin, kind))
    copy = warp(shape.occupancy, STILL, 0, margin, kind)
    assert dsc(copy, shape.occupancy) > 0.95
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        ends = [np.flatnonzero(one.any(others))[[0, -1]] for one in (copy, shape.occupancy)]
        assert np.abs(ends[0] - ends[1]).max() <= 1


def test_no_strength_is_no_warp():
    for shape in phantom_shapes(3):
        assert dsc(warp(shape.occupancy, STILL, 0), shape.occupancy) > 0.97


def test_an_affine_warp_of_a_box_fills_the_cube():
    """Stretching a box along its axes leaves nothing once it is put back into its own box."""
    full = np.ones((RESOLUTION,) * 3, bool)
    assert warp(full, STILL, 0).mean() > 0.98


def test_shapes_are_not_mutated():
    shape = phantom_shapes(1)[0].occupancy
    before = shape.copy()
    warp(shape, WarpConfig(), 0)
    np.testing.assert_array_equal(shape, before)


def test_a_warp_that_leaves_nothing_returns_the_shape():
    shape = phantom_shapes(1)[0].occupancy
    far = WarpConfig(affine=0.0, elastic=(1e6,), nodes=(4,))
    np.testing.assert_array_equal(warp(shape, far, 0), shape)


@pytest.mark.parametrize("seed", range(6))
def test_the_kernel_warps_as_grid_sample_does(seed):
    """Also for points far outside the volume and the lattice."""
    rng = np.random.default_rng(seed)
    occupancy = phantom_shapes(3)[seed % 3].occupancy
    displacement, matrix = random_warp(WarpConfig(affine=0.2, elastic=(0.3,), nodes=(5,)), rng, nodes=9)
    axes = np.sort(rng.uniform(-2, 2, (20, 3)).astype(np.float32), axis=0)
    out = np.empty((20, 20, 20), bool)
    warp_occupancy(np.pad(occupancy.astype(np.uint8), 1), displacement, np.float32(REACH), matrix, axes, out)
    volume = torch.from_numpy(occupancy.astype(np.float32))
    tensors = [torch.from_numpy(array) for array in (displacement, matrix, axes)]
    expected = warp_occupancy_literal(volume, tensors[0], REACH, *tensors[1:]).numpy()
    assert (
        out.any() and (out != expected).sum() <= 2
    )  # a point whose value is 1/2 to rounding may go either way
