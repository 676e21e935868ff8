"""Outlines by themselves: stairs are found and interpolated, what is rough is smoothed, the rest stays."""

from __future__ import annotations

import numpy as np
import pytest
from atlas_samples import dsc
from experiments.cells.corrupt import keep_slices, move_outline
from shape_masks import ORGAN, SPACING, ellipsoid

from implicit_atlas.geometry.outlines import (
    between_slices,
    depths,
    roughness,
    smoothed,
    stairs_of,
    thin_part,
    without_stairs,
)


def test_of_an_empty_mask_all_is_far_outside():
    np.testing.assert_allclose(depths(np.zeros((3, 4), bool), np.array([1.0, 1.0])), -5.0)


def test_depths_are_those_of_a_half_space():
    half = np.zeros((12, 5, 5), bool)
    half[:6] = True
    found = depths(np.pad(half, ((0, 0), (20, 20), (20, 20)), mode="edge"), np.array([2.0, 2.0, 2.0]))
    np.testing.assert_allclose(found[3:, 22, 22], 2.0 * (5.5 - np.arange(3, 12)))


def test_depths_across_thick_slices_are_those_of_a_slab():
    slab = np.zeros((60, 60, 9), bool)
    slab[..., 2:7] = True
    found = depths(np.pad(slab, ((20, 20), (20, 20), (0, 0)), mode="edge"), np.array([1.0, 1.0, 5.0]))
    np.testing.assert_allclose(found[50, 50], [-7.5, -2.5, 2.5, 7.5, 12.5, 7.5, 2.5, -2.5, -7.5])


def test_a_clean_mask_has_no_stairs():
    assert stairs_of(ORGAN) is None
    assert stairs_of(np.zeros((8, 8, 8), bool)) is None
    # Two slices across are too few, and along the others there is one, repeated.
    assert stairs_of(np.ones((8, 8, 2), bool)) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thick", [3, 5])
def test_stairs_are_found_and_their_outline_is_nearer_to_the_organ(axis, thick):
    drawn = np.moveaxis(ORGAN, axis, 0)[thick // 2 :: thick]
    poor = np.zeros_like(ORGAN)
    planes = np.repeat(drawn, thick, axis=0)[: ORGAN.shape[axis]]
    np.moveaxis(poor, axis, 0)[: len(planes)] = planes
    stairs = stairs_of(poor)
    assert stairs is not None and (stairs.axis, stairs.apart) == (axis, thick)
    found = without_stairs(poor, SPACING, stairs)
    assert dsc(found, ORGAN) > dsc(poor, ORGAN) + 0.3 * (1 - dsc(poor, ORGAN))


def test_slices_that_were_drawn_alike_are_not_cut_off():
    """Of a prism in slices of three planes, the last two alike."""
    organ = np.zeros((40, 20, 20), bool)
    for k, radius in enumerate((3, 5, 7, 8, 8, 7, 6, 6)):
        at = np.indices((20, 20)) - 9.5
        organ[6 + 3 * k : 9 + 3 * k] = (at**2).sum(0) < radius**2
    stairs = stairs_of(organ)
    assert stairs is not None and stairs.apart == 3
    found = without_stairs(organ, np.ones(3), stairs)
    last = 6 + 3 * 8
    assert (found[last - 5 : last - 1].sum((1, 2)) > 0.9 * organ[last - 1].sum()).all()
    assert not found[last + 1 :].any()


def test_pieces_with_empty_slices_between_them_stay_apart():
    pair = np.zeros((60, 24, 24), bool)
    pair[6:24, 4:20, 4:20] = pair[36:54, 6:18, 6:18] = True
    pair[6:12, :8] = pair[36:42, :10] = False  # the slices differ every six
    pair[48:54, 14:] = False
    stairs = stairs_of(pair)
    assert stairs is not None and stairs.axis == 0
    found = without_stairs(pair, np.ones(3), stairs)
    assert not found[27:33].any() and found[10:20].any() and found[40:50].any()


def test_an_organ_that_the_volume_cuts_off_is_not_closed_there():
    poor = np.repeat(ORGAN[:, :, 8:32:4], 4, axis=2)
    assert poor[:, :, 0].any() and poor[:, :, -1].any()
    stairs = stairs_of(poor)
    assert stairs is not None
    found = without_stairs(poor, SPACING, stairs)
    assert np.array_equal(found[:, :, 0], poor[:, :, 0]) and np.array_equal(found[:, :, -1], poor[:, :, -1])


def test_what_is_thin_in_a_slice_stays_as_it_was_drawn():
    at = np.stack(np.indices((64, 64)), axis=-1) - 31.5
    round_part = np.hypot(at[..., 0], at[..., 1]) < 27
    spike = (np.abs(at[..., 0]) < 1) & (at[..., 1] > 25) & (at[..., 1] < 32)
    drawn = [round_part | spike, round_part] * 3
    poor = np.repeat(np.stack(drawn), 4, axis=0)
    stairs = stairs_of(poor)
    assert stairs is not None and stairs.axis == 0 and stairs.apart == 4
    found = without_stairs(poor, np.ones(3), stairs)
    assert np.array_equal(found[8:12], poor[8:12]) and not (found[12:16] & ~round_part).any()


def test_the_thin_part_is_where_no_ball_fits():
    plate = np.zeros((40, 40), bool)
    plate[5:25, 5:25] = plate[14:16, 25:38] = True
    thin = thin_part(depths(plate, np.ones(2)), np.ones(2), 3.0)
    assert thin[14:16, 29:38].all() and not thin[8:22, 8:22].any() and not thin[~plate].any()
    assert not thin_part(depths(plate, np.ones(2)), np.ones(2), 30.0).any()


def test_interpolated_slices_pass_through_those_that_were_drawn():
    discs = [depths(np.hypot(*(np.indices((31, 31)) - 15)) < radius, np.ones(2)) for radius in (4, 10)]
    found = between_slices(discs, [2, 8], range(11))
    areas = found.sum((1, 2))
    assert (found[2] == (discs[0] > 0)).all() and (found[8] == (discs[1] > 0)).all()
    assert (areas[[0, 1, 9, 10]] == 0).all() and (np.diff(areas[2:9]) > 0).all()
    assert (between_slices(discs[:1], [3], range(5)).any((1, 2)) == [False, False, False, True, False]).all()


def test_smooth_outlines_stay_and_rough_ones_come_nearer():
    rng, like = np.random.default_rng(0), ellipsoid(radii=(19.5, 17.5, 17.0))
    assert abs(roughness(ORGAN, SPACING) - roughness(like, SPACING)) < 0.03
    assert smoothed(ORGAN, like, SPACING) is ORGAN
    poor = move_outline(ORGAN, SPACING, 2.0, rng)
    found = smoothed(poor, like, SPACING)
    assert roughness(poor, SPACING) > roughness(like, SPACING) + 0.1
    assert dsc(found, ORGAN) > dsc(poor, ORGAN) + 0.1 * (1 - dsc(poor, ORGAN))
    assert roughness(np.zeros((4, 4, 4), bool), SPACING) == 0


def test_smoothing_does_not_round_off_where_the_volume_ends():
    cut = move_outline(ORGAN, SPACING, 2.0, np.random.default_rng(0))[:, :, 20:]
    found = smoothed(cut, ORGAN[:, :, 20:], SPACING)
    inner = depths(ORGAN, SPACING)[:, :, 20] > 6
    assert not np.array_equal(found, cut) and found[:, :, 0][inner].all()


def test_slices_that_were_kept_and_repeated_are_found():
    poor = keep_slices(ORGAN, SPACING, 3.75, np.random.default_rng(1))
    stairs = stairs_of(poor)
    assert stairs is not None and stairs.axis == 2 and stairs.apart == 3
