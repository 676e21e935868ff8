"""Poor annotation on purpose: the same for the same case, worse with strength, never empty, in the clean frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from experiments.cells.corrupt import NOISES, STRENGTHS, corrupt, corrupted, in_frame, keep_slices, slice_axis
from shape_masks import affine_of, dsc, ellipsoid_mask, reoriented

from implicit_atlas import InputError
from implicit_atlas.shapes.shape import prepare, restore

SPACINGS = ((1.0, 1.0, 1.0), (0.8, 0.8, 2.5))


def shapes_of(spacing_mm, count=3):
    affine = affine_of(spacing_mm, (5, 3, 0))
    return [prepare(ellipsoid_mask(affine=affine, name=f"case_{i}"), name=f"case_{i}") for i in range(count)]


@pytest.fixture(scope="module", params=SPACINGS, ids=str)
def shapes(request):
    return shapes_of(request.param)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_of_the_case_s_name_and_changes_nothing_but_the_organ(shapes, noise):
    before = [shape.packed.copy() for shape in shapes]
    found = [corrupted(shape, noise) for shape in shapes]
    corrupted.cache_clear()
    for shape, bits, poor in zip(shapes, before, found, strict=True):
        np.testing.assert_array_equal(shape.packed, bits)
        np.testing.assert_array_equal(corrupted(shape, noise).packed, poor.packed)
        assert (poor.name, poor.frame, poor.source) == (shape.name, shape.frame, shape.source)
        assert poor.occupancy.any()
    hashes = {poor.content_hash for poor in found}
    assert len(hashes) == len(found) and not hashes & {shape.content_hash for shape in shapes}


@pytest.mark.parametrize("kind", STRENGTHS)
def test_a_stronger_noise_costs_more(shapes, kind):
    of = [[corrupted(shape, f"{kind}-{i}") for shape in shapes] for i in (1, 2, 3)]
    means = [
        np.mean([dsc(p.occupancy, s.occupancy) for p, s in zip(poor, shapes, strict=True)]) for poor in of
    ]
    assert 1 >= means[0] >= means[1] >= means[2] > 0.5 and means[2] < 0.97
    assert len({shape.content_hash for poor in of for shape in poor[:1]}) == 3


def test_random_noise_differs_between_cases(shapes):
    for noise in ("label-1", "border-3"):
        first, second = (corrupted(shape, noise) for shape in shapes[:2])
        assert not np.array_equal(first.packed, second.packed)


def test_without_noise_the_shape_itself_is_learned_from_and_its_frame_gives_it_back(shapes):
    shape = shapes[0]
    assert corrupted(shape, "") is shape
    window = shape.frame.voxel_window()
    organ = shape.frame.grid.to_canonical(restore(shape))[window]
    np.testing.assert_array_equal(in_frame(organ, shape.frame), shape.occupancy)


def test_how_a_file_orders_its_axes_does_not_matter():
    mask = ellipsoid_mask()
    other = reoriented(mask, (2, 0, 1), (True, False, True))
    for noise in NOISES:
        here, there = (corrupted(prepare(m, name="case"), noise).packed for m in (mask, other))
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(("noise", "share"), [("border-1", 0.05), ("border-2", 0.1), ("border-3", 0.2)])
def test_a_cap_is_a_known_share_of_the_volume_and_the_smaller_one_lies_in_the_larger(noise, share):
    clean = ellipsoid_mask().occupancy
    poor = corrupt(clean, np.ones(3), noise, "case")
    assert not (poor & ~clean).any()
    assert (clean & ~poor).sum() == round(share * clean.sum())
    assert not (corrupt(clean, np.ones(3), "border-3", "case") & ~poor).any()


def test_kept_slices_are_repeated_and_so_far_apart():
    clean, spacing_mm = ellipsoid_mask().occupancy, np.array([1.0, 1.0, 2.0])
    assert slice_axis(clean, spacing_mm) == 2 and slice_axis(clean, np.ones(3)) == 0
    for apart_mm, every in ((3.0, 2), (5.0, 3), (8.0, 4)):
        poor = keep_slices(clean, spacing_mm, apart_mm, np.random.default_rng(0))
        changes = np.flatnonzero((poor[..., 1:] != poor[..., :-1]).any((0, 1)))
        assert len(changes) > 2 and (np.diff(changes) == every).all()
        outlines = {poor[..., z].tobytes() for z in range(poor.shape[2])}
        assert outlines <= {clean[..., z].tobytes() for z in range(clean.shape[2])}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("radii", [(0.6, 0.6, 0.6), (1.2, 9.0, 1.2), (9.0, 9.0, 1.1)], ids=str)
def test_a_thin_organ_does_not_vanish(noise, radii):
    clean = ellipsoid_mask(radii=radii, centre=(14, 12, 10)).occupancy
    before = clean.copy()
    for name in ("a", "b", "c"):
        assert corrupt(clean, np.ones(3), noise, name).any()
    np.testing.assert_array_equal(clean, before)


def test_an_unknown_noise_is_refused(shapes):
    for noise in ("label-4", "slices", "blur-1"):
        with pytest.raises(InputError, match="is not known"):
            corrupted(dataclasses.replace(shapes[0]), noise)
