"""Slices that were drawn: parallel ones, crossing ones, and masks that were drawn on no slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from experiments.cells.observed import crossing_slices

from implicit_atlas.completion.drawn_slices import drawn_slices
from implicit_atlas.completion.observe import Drawn
from implicit_atlas.errors import InputError
from implicit_atlas.io import Mask
from implicit_atlas.io.voxel_grid import Grid


def mask_of(occupancy: np.ndarray) -> Mask:
    grid = Grid(occupancy.shape, np.diag([1.0, 1, 2, 1]))
    return Mask(occupancy, grid, Path("organ.nii.gz"), (), np.dtype(np.uint8))


def organ() -> np.ndarray:
    x, y, z = np.indices((40, 36, 30)) - np.array([20, 17, 14]).reshape(3, 1, 1, 1)
    return (x / 15) ** 2 + ((y + 0.02 * x**2) / 11) ** 2 + (z / 9) ** 2 < 1


def drawn_on(whole: np.ndarray, slices: dict[int, list[int]]) -> np.ndarray:
    kept = np.zeros_like(whole)
    for axis, planes in slices.items():
        np.moveaxis(kept, axis, 0)[planes] = np.moveaxis(whole, axis, 0)[planes]
    return kept


def bent_organ() -> np.ndarray:
    """One that slices across one axis leave and enter again, so that a slice sticks out beyond those across another."""
    x, y, z = np.indices((40, 36, 30)) - np.array([20, 17, 14]).reshape(3, 1, 1, 1)
    return ((y - 6 + 0.06 * x**2) / 7) ** 2 + (z / 6) ** 2 + (x / 18) ** 2 < 1


@pytest.mark.parametrize(
    "slices", [{0: [8, 20, 32], 1: [21]}, {0: [6, 13, 20, 27, 34], 2: [14]}, {1: [12, 21]}]
)
def test_lines_in_planes_that_nobody_drew_are_no_slices(slices):
    kept = drawn_on(bent_organ(), slices)
    assert {axis: planes.tolist() for axis, planes in drawn_slices(mask_of(kept)).items()} == slices


@pytest.mark.parametrize(
    "slices",
    [
        {0: [22]},
        {1: [8, 14, 20]},
        {0: [20], 2: [14]},
        {0: [18], 1: [16], 2: [12]},
        {1: [10, 18], 2: [7, 13, 20]},
    ],
)
def test_slices_are_found_in_whatever_direction_they_were_drawn(slices):
    found = drawn_slices(mask_of(drawn_on(organ(), slices)))
    assert {axis: planes.tolist() for axis, planes in found.items()} == slices


def test_whole_masks_were_drawn_on_no_slices():
    slab = drawn_on(organ(), {0: [18, 19, 20], 2: [14]})
    for occupancy in (organ(), slab, np.zeros_like(organ())):
        with pytest.raises(InputError, match="Draw slices with gaps"):
            drawn_slices(mask_of(occupancy))


def test_all_of_crossing_slices_is_observed_and_nothing_else():
    slices = {0: [18], 1: [16], 2: [12]}
    drawn = Drawn.of(mask_of(drawn_on(organ(), slices)), "slices")
    expected = np.zeros(organ().shape, bool)
    expected[18], expected[:, 16], expected[:, :, 12] = True, True, True
    assert np.array_equal(drawn.observed, expected)
    seen = drawn.observations("organ")
    voxels = np.rint(seen.points / (1, 1, 2)).astype(int)
    assert expected[tuple(voxels.T)].all()
    assert np.array_equal(organ()[tuple(voxels.T)], seen.occupancy == 1)
    # What is next to the border is judged within each slice: a slice's inside lies next to no border of its neighbours.
    deep = [tuple(v) for v in voxels if v[0] == 18 and abs(v[1] - 17) < 2 and abs(v[2] - 14) < 2]
    assert len(deep) <= 16


def test_slices_across_all_axes_are_evenly_spaced():
    whole = mask_of(organ())
    found = drawn_slices(crossing_slices(whole, 2))
    assert [len(found[axis]) for axis in range(3)] == [2, 2, 2]
    assert found[0].tolist() == [13, 27]
