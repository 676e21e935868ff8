"""Where searches ended: a completion is their mean, and unlike ones that explain as much are told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from atlas_samples import tiny_atlas

from implicit_atlas.completion import completion
from implicit_atlas.completion.rivals import NEARLY, least_overlap, mean_of_ends
from implicit_atlas.fitting.code_fit import CodeFit
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.sampling import Observations

RADIUS = 0.6  # cube units


def ball(
    shift_mm: tuple[float, float, float] = (0.0, 0, 0),
    improbability: float = 10.0,
    failure: str | None = None,
    voxel_mm: float = 1.0,
) -> Fit:
    """A ball in the middle of a cube of 64 voxels, which is moved in the scan."""
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = np.array(shift_mm) - 32 * voxel_mm
    frame = Frame(Grid((64, 64, 64), affine), np.zeros(3), np.ones(3), 64, "box", 0.0)
    found = CodeFit(np.zeros(2, np.float32), 0, np.zeros(1, np.float32), "mean", 0.0, 0.0, 1, 0.0, 2, failure)
    found = dataclasses.replace(found, improbability=improbability)
    return Fit("ball", found, frame, 64, lambda: lambda at: RADIUS - np.linalg.norm(at, axis=-1))


def ended(best: Fit, *rivals: Fit) -> Fit:
    """The best end of some searches, with the others."""
    return dataclasses.replace(best, rivals=rivals)


def dice_of_balls(apart: float) -> float:
    """Of two equal balls, by the volume of a lens; their distance in radii."""
    return (1 - apart / 2) ** 2 * (2 + apart / 2) / 2


@pytest.mark.parametrize("apart", [0.0, 0.2, 0.7, 1.5])
def test_overlap_is_that_of_the_shapes_in_the_scan(apart):
    moved = ball((0.0, 0.6 * RADIUS * 32 * apart, -0.8 * RADIUS * 32 * apart))
    assert least_overlap(ended(ball(), moved)) == pytest.approx(dice_of_balls(apart), abs=0.015)


def test_cubes_may_be_of_other_sizes():
    assert least_overlap(ended(ball(), ball(voxel_mm=0.5))) == pytest.approx(2 / 9, abs=0.01)
    assert least_overlap(ended(ball(voxel_mm=0.5), ball())) == pytest.approx(2 / 9, abs=0.01)


def test_rivals_count_that_are_nearly_as_probable_and_the_least_like_one_decides():
    far, near = ball((30.0, 0, 0)), ball((4.0, 0, 0))
    unlikely = ball((30.0, 0, 0), 10 + NEARLY + 0.1)
    failed = ball((30.0, 0, 0), failure="nothing was found")
    assert least_overlap(ball()) == least_overlap(ended(ball(), unlikely, failed)) == 1
    assert least_overlap(ended(ball(), unlikely, near)) > 0.8
    assert least_overlap(ended(ball(), near, far, unlikely)) < 0.2


def radius_mm(values: np.ndarray, voxel_mm: float = 1.0) -> float:
    """Of the ball that has its volume."""
    return float(((values > 0).sum() * 3 / (4 * np.pi)) ** (1 / 3) * voxel_mm)


def test_the_mean_of_ends_lies_between_them_nearer_to_the_more_probable_one():
    best, smaller = ball(), ball(voxel_mm=0.8)
    own, other = radius_mm(best.logits()), 0.8 * radius_mm(smaller.logits())
    for less in (0.0, 1.0, 2.0, 4.0):
        rival = ball(improbability=10 + less, voxel_mm=0.8)
        share = np.exp(-less / 2) / (1 + np.exp(-less / 2))
        found = radius_mm(mean_of_ends(ended(best, rival)))
        assert found == pytest.approx((1 - share) * own + share * other, abs=0.1)
    larger = ball(voxel_mm=1.25)  # which reaches beyond the best one's cube
    found = mean_of_ends(ended(smaller, larger))
    assert radius_mm(found, 0.8) == pytest.approx((0.8 + 1.25) / 2 * RADIUS * 32, abs=0.3)


def test_the_mean_of_moved_balls_is_between_their_places():
    found = mean_of_ends(ended(ball(), ball((6.0, 0, 0))))
    places = np.argwhere(found > 0)
    np.testing.assert_allclose(places.mean(0), (31.5 + 3, 31.5, 31.5), atol=0.2)


def test_ends_that_are_improbable_or_failed_do_not_count():
    one = ball()
    for rivals in ([], [ball((30.0, 0, 0), 60.0)], [ball(failure="nothing was found")]):
        np.testing.assert_array_equal(mean_of_ends(ended(one, *rivals)), one.logits())


def test_a_completion_is_the_mean_of_its_ends():
    ends = ended(ball(), ball(voxel_mm=0.8), ball((30.0, 0, 0), 60.0))
    seen = Observations(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), np.ones(4))
    done = completion.Completion(ends, (), seen, 1, None, None, None, None)
    assert radius_mm(done.values) == pytest.approx(0.9 * RADIUS * 32, abs=0.2)
    assert done.degrees_of_freedom == 2 * ends.found.degrees_of_freedom  # of the two that count
    assert radius_mm(done.mask_on(ends.placed().grid)) == pytest.approx(0.9 * RADIUS * 32, abs=0.2)


def test_a_shape_with_an_unlike_rival_is_doubtful():
    size_mm = float(np.mean(tiny_atlas().config.size_mm))
    voxel_mm = size_mm / (RADIUS * 64)  # the ball is as large as the atlas's organs
    ways = np.random.default_rng(0).standard_normal((200, 3))
    on_surface = size_mm / 2 * ways / np.linalg.norm(ways, axis=1, keepdims=True)
    seen = Observations(on_surface, np.full(200, 0.5), spread=0.02 * size_mm)

    def said(*rivals: Fit) -> str | None:
        fits = [ended(ball(voxel_mm=voxel_mm), *rivals)]
        found = completion._Searched.of(fits, seen, size_mm)
        return completion._judged(tiny_atlas(), seen, 1, found).doubt

    assert said() is None and said(ball((0.1 * size_mm, 0, 0), voxel_mm=voxel_mm)) is None
    doubt = said(ball((0.5 * size_mm, 0, 0), voxel_mm=voxel_mm))
    assert (
        doubt is not None
        and "another shape" in doubt
        and "by only 31 % (Dice)" in doubt
        and "--draws" in doubt
    )
