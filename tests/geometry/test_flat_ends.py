"""Flat ends: where a plane cut an organ off is found, round ends and flat sides are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shape_masks import ORGAN, SPACING, ellipsoid

from implicit_atlas.completion.observe import Drawn
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.flat_ends import (
    FLAT,
    FlatEnd,
    cut_ends,
    faces_cut_at,
    flat_ends,
    flatness_of,
    sphere,
)
from implicit_atlas.io import Mask
from implicit_atlas.io.voxel_grid import Grid


def cut(organ: np.ndarray, normal: np.ndarray, share: float) -> tuple[np.ndarray, float]:
    """An organ without the share of it that is farthest along a direction, and where the plane lies."""
    height = np.stack(np.indices(organ.shape), axis=-1) * SPACING @ normal
    top = float(np.quantile(height[organ], 1 - share))
    return organ & (height <= top), top


def flattest(organ: np.ndarray, spacing: np.ndarray = SPACING) -> FlatEnd:
    """Of its ends."""
    ends = flat_ends(organ, spacing)
    assert [one.flatness for one in ends] == sorted((one.flatness for one in ends), reverse=True)
    return ends[0]


def test_directions_are_unit_vectors_that_balance():
    found = sphere(500)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-2)


@pytest.mark.parametrize("normal", [(1.0, 0, 0), (0, 0, -1.0), (1.0, 2, -1.5), (-0.2, 1, 0.1)])
@pytest.mark.parametrize("share", [0.08, 0.2])
def test_a_cut_is_found_where_it_is(normal, share):
    normal = np.array(normal) / np.linalg.norm(normal)
    organ, top = cut(ORGAN, normal, share)
    end = flattest(organ)
    assert end.flatness > FLAT
    assert end.normal @ normal > np.cos(np.deg2rad(3))
    assert end.top_mm == pytest.approx(top, abs=end.layer_mm)
    beyond = end.beyond(organ.shape, SPACING)
    assert beyond[ORGAN & ~organ].mean() > 0.98  # what was cut off
    assert beyond[organ].mean() < 0.1


def test_round_ends_are_not_flat():
    assert flattest(ORGAN).flatness < 0.4


def test_both_of_two_cuts_are_found():
    organ, _ = cut(ORGAN, np.array([1.0, 0, 0]), 0.1)
    organ, _ = cut(organ, np.array([0, -0.6, 0.8]), 0.1)
    first, second = (one.normal for one in flat_ends(organ, SPACING)[:2])
    assert max(first[0], second[0]) > 0.99 and min(first[0], second[0]) < 0.1


def bent_tube() -> np.ndarray:
    """Half a ring, which its array cuts off at one side."""
    x, y, z = np.indices((48, 48, 48)) - 23.5
    return np.hypot(np.hypot(x + 10, z) - 16, 0.8 * y) < 4 + 0.03 * z


@pytest.mark.parametrize("kept", [24, 27, 30])
def test_a_cut_between_slices_is_found_however_little_of_the_surface_lies_near_it(kept):
    tube = bent_tube()
    tube[..., kept:] = False
    ends = [end.normal for end in cut_ends(tube, np.ones(3))]
    assert max(normal @ [-1, 0, 0] for normal in ends) > 0.99
    assert max(normal @ [0, 0, 1] for normal in ends) > 0.99


def test_faces_of_a_volume_that_cut_an_organ_off():
    tube = bent_tube()
    assert faces_cut_at(tube, np.ones(3)) == [(0, False)]
    assert faces_cut_at(tube[..., ::-1][..., 22:], np.ones(3)) == [(0, False), (2, False)]
    assert faces_cut_at(np.pad(tube, 1), np.ones(3)) == []  # a cut, but not the volume's
    window = tuple(slice(n.min(), n.max() + 1) for n in np.nonzero(ORGAN))
    assert faces_cut_at(ORGAN[window], SPACING) == []  # it touches all faces, and ends at none


def test_what_lies_beyond_any_flat_end_was_not_seen():
    tube = np.pad(bent_tube(), 3)
    tube[..., 29:] = False
    grid = Grid(tube.shape, np.eye(4))
    drawn = Drawn.of(Mask(tube, grid, Path("part.nii.gz"), (), np.dtype(np.uint8)), "volume")
    assert drawn.observed[tube].all()
    assert not drawn.observed[:2].any() and not drawn.observed[..., 31:].any()
    assert drawn.observed[8:, :, :28].all()


def test_flat_sides_of_a_flat_organ_are_no_ends():
    plate = ellipsoid((70, 60, 60), (26.0, 26.0, 60.0), (28.0, 30.0, 37.0))
    plate[..., :28] = plate[..., 34:] = False
    end = flattest(plate)
    assert end.flatness < 0.5


def test_flatness_is_that_between_a_round_end_and_a_plane():
    depth = np.arange(1, 21)
    assert flatness_of(np.r_[0, depth * (20 - depth)], 2.0) == pytest.approx(0, abs=0.01)
    assert flatness_of(np.full(20, 9), 2.0) == 1
    assert flatness_of(np.full(20, 9), 0.4) == pytest.approx(0.5)
    assert flatness_of(np.r_[9, 9, 9, 9, 9, np.full(15, 36)], 2.0) == pytest.approx(0.5)
    assert flatness_of(np.array([9, 9, 9, 9]), 2.0) == flatness_of(np.array([9]), 2.0) == 0


def test_where_the_organ_lies_and_the_order_of_the_axes_do_not_matter():
    organ, _ = cut(ORGAN, np.array([0.6, 0.8, 0]), 0.1)
    end = flattest(organ)
    moved = flattest(np.pad(organ, ((5, 0), (0, 3), (7, 1))))
    turned = flattest(organ.transpose(2, 0, 1), SPACING[[2, 0, 1]])
    np.testing.assert_allclose(moved.normal, end.normal, atol=1e-6)
    assert moved.top_mm == pytest.approx(end.top_mm + end.normal @ ([5, 0, 7] * SPACING))
    assert turned.normal @ end.normal[[2, 0, 1]] > np.cos(np.deg2rad(2))


def test_what_is_too_small_has_no_end():
    few = np.zeros((9, 9, 9), bool)
    assert flat_ends(few, SPACING) == []
    few[3:6, 3:6, 3:6] = True
    assert flat_ends(few, SPACING) == []
    line = np.zeros((200, 3, 3), bool)
    line[:, 1, 1] = True
    assert flat_ends(line, SPACING)  # no error


def test_a_part_that_ends_within_its_volume_goes_on_beyond_its_flat_end():
    organ = np.pad(ORGAN, 4)
    height = np.stack(np.indices(organ.shape), axis=-1) @ (SPACING * [0.8, 0.6, 0])
    part = organ & (height < np.quantile(height[organ], 0.7))
    mask = Mask(part, Grid(part.shape, np.diag([*SPACING, 1.0])), Path("part.nii.gz"), (), np.dtype(np.uint8))
    drawn = Drawn.of(mask, "volume")
    gone = organ & ~part
    assert drawn.ends and drawn.observed[part].all() and drawn.observed[gone].mean() < 0.05
    assert drawn.observed.mean() > 0.5  # the rest is seen to be empty
    whole = replace(mask, occupancy=organ)
    with pytest.raises(InputError, match="no flat end"):
        Drawn.of(whole, "volume")
    half = ORGAN[24:]
    cropped = replace(mask, occupancy=half, grid=Grid(half.shape, np.eye(4)))
    assert Drawn.of(cropped, "volume").observed.all()
