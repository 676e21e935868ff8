"""Pieces of masks: the largest ones stay, islands go, and slices of an organ that runs at an angle are one piece."""

from __future__ import annotations

import numpy as np
import pytest

from implicit_atlas.geometry.pieces import largest_pieces


def test_as_many_pieces_are_kept_as_are_asked_for():
    occupancy = np.zeros((12, 12, 12), bool)
    occupancy[1:4, 1:4, 1:4] = True
    occupancy[4, 4, 4] = True
    expected = occupancy.copy()
    occupancy[8:10, 8:10, 8:10] = True
    before = occupancy.copy()
    np.testing.assert_array_equal(largest_pieces(occupancy)[0], expected)
    both, count = largest_pieces(occupancy, 3)
    assert count == 2 and (both == occupancy).all()
    np.testing.assert_array_equal(occupancy, before)
    np.testing.assert_array_equal(largest_pieces(expected)[0], expected)
    assert not largest_pieces(np.zeros((2, 2, 2), bool))[0].any()


def test_islands_are_no_pieces():
    occupancy = np.zeros((12, 12, 12), bool)
    occupancy[1:5, 1:5, 1:5] = True
    expected = occupancy.copy()
    occupancy[8, 8, 8:10] = True
    kept, count = largest_pieces(occupancy, 5)
    np.testing.assert_array_equal(kept, expected)
    assert count == 1


def slanted(thick_mm: float) -> np.ndarray:
    """An organ on slices 8 mm apart that do not overlap, each 3 mm beside the one before, of voxels of 0.5 mm."""
    occupancy = np.zeros((40, 40, 5), bool)
    for k in range(5):
        start = int(2 * (k * (thick_mm / 2 + 3)) / thick_mm * 4)
        occupancy[start : start + 4, 10:14, k] = True
    return occupancy


@pytest.mark.parametrize("axis", range(3))
def test_thick_slices_that_lie_near_to_each_other_are_one_piece(axis):
    organ = np.moveaxis(slanted(8.0), 2, axis)
    spacing_mm = np.insert([0.5, 0.5], axis, 8.0)
    assert largest_pieces(organ, 9)[1] == 5  # by their corners alone
    found, count = largest_pieces(organ, 9, spacing_mm)
    assert count == 1 and np.array_equal(found, organ)
    island = organ.copy()
    island[tuple(np.insert([30, 35], axis, 0))] = True  # 10 mm away in its slice, and as far in the next
    np.testing.assert_array_equal(largest_pieces(island, 9, spacing_mm)[0], organ)


def test_beside_each_other_in_one_slice_pieces_stay_two():
    two = np.zeros((20, 20, 3), bool)
    two[2:6, 2:6, 1] = two[8:12, 2:6, 1] = True
    assert largest_pieces(two, 9, np.array([0.5, 0.5, 8.0]))[1] == 2
    assert largest_pieces(two, 9, np.array([0.5, 0.5, 0.5]))[1] == 2
