"""Synthetic masks for tests: a smooth organ on grids of any orientation, obliquity and spacing."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np

from implicit_atlas.geometry.frame import bounding_box, frame_of_box
from implicit_atlas.io.types import Mask
from implicit_atlas.io.voxel_grid import Grid

AXIS_ORDERS = [
    (order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)
]


def rotation(angles):
    """Rotation about x, then y, then z, by angles in degrees."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles)):
        i, j = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def frame_around(occupancy, grid, resolution=128, margin=0.0, kind="box"):
    return frame_of_box(bounding_box(occupancy, grid), grid, resolution, margin, kind)


def affine_of(spacing_mm=(1.0, 1.0, 1.0), angles=(0, 0, 0), origin_mm=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * np.array(spacing_mm)
    affine[:3, 3] = origin_mm
    return affine


def ellipsoid_mask(shape=(30, 26, 22), radii=(10.3, 8.6, 7.2), centre=None, affine=None, name="organ"):
    """An ellipsoid with a bump that tells every direction from its opposite; radii and centre in voxels."""
    centre = (np.array(shape) - 1) / 2 + (0.21, -0.33, 0.17) if centre is None else np.array(centre)
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    x, y, z = np.moveaxis((voxels - centre) / radii, -1, 0)
    occupancy = x**2 + (y - 0.2 * x**2) ** 2 + z**2 * (1 + 0.3 * x + 0.2 * y) < 0.9
    affine = affine_of() if affine is None else affine
    return Mask(occupancy, Grid(occupancy.shape, affine), Path(f"{name}.nii.gz"), (), np.dtype(np.uint8))


def reoriented(mask, order, flips):
    """The same organ in the same place of the world, with its array's axes in another order and direction."""
    occupancy = mask.occupancy.transpose(order)
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = occupancy.shape[new] - 1 if flip else 0
    occupancy = np.flip(occupancy, [axis for axis in range(3) if flips[axis]])
    return Mask(occupancy, Grid(occupancy.shape, mask.grid.affine @ to_old), mask.path, (), mask.dtype)


def dsc(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def save_mask(folder, name, mask, scale=1):
    path = Path(folder) / f"{name}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask.occupancy.astype(np.uint8) * scale, mask.grid.affine), path)
    return path


NAMES = tuple(f"case_{i}" for i in range(8))


def save_masks(folder):
    """Eight masks of one organ, each a bit different."""
    folder.mkdir()
    for i, name in enumerate(NAMES):
        affine = affine_of((1.0, 1.0, 1.0 + i / 4), (5 * i, 0, 0))
        save_mask(folder, name, ellipsoid_mask((20, 18, 16), (7 + i / 5, 6, 5), affine=affine))
    return folder


def assert_same_shapes(first, second):
    assert [shape.name for shape in first] == [shape.name for shape in second]
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.packed, b.packed)
        assert a.frame.to_json() == b.frame.to_json()
        assert (a.content_hash, a.dtype, a.notes) == (b.content_hash, b.dtype, b.notes)


SPACING = np.array([0.8, 1.0, 1.25])


def ellipsoid(shape=(60, 50, 40), radii=(19.0, 18.0, 17.0), centre=(24.0, 25.0, 25.0)) -> np.ndarray:
    """In millimetres."""
    at = np.stack(np.indices(shape), axis=-1) * SPACING
    return (((at - centre) / radii) ** 2).sum(-1) < 1


ORGAN = ellipsoid()
