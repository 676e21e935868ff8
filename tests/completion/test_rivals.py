"""Where searches ended: a completion is their mean, and unlike ones that explain as much are told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from atlas_samples import tiny_atlas

from implicit_atlas.completion import completion
from implicit_atlas.completion.rivals import NEARLY, MeanShape
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
    radius: float = RADIUS,
) -> Fit:
    """A ball in the middle of a cube of 64 voxels, which is moved in the scan."""
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = np.array(shift_mm) - 32 * voxel_mm
    frame = Frame(Grid((64, 64, 64), affine), np.zeros(3), np.ones(3), 64, "box", 0.0)
    found = CodeFit(np.zeros(2, np.float32), 0, np.zeros(1, np.float32), "mean", 0.0, 0.0, 1, 0.0, 2, failure)
    found = dataclasses.replace(found, improbability=improbability, unguided=improbability)
    return Fit("ball", found, frame, 64, lambda: lambda at: radius - np.linalg.norm(at, axis=-1))


def ended(best: Fit, *rivals: Fit) -> Fit:
    """The best end of some searches, with the others."""
    return dataclasses.replace(best, rivals=rivals)


def least_overlap(fit: Fit) -> float:
    return MeanShape.of(fit).overlap


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


def radius_mm(mean: MeanShape) -> float:
    """Of the ball that has its volume."""
    volume_mm3 = (mean.values > 0).sum() * np.prod(mean.frame.lattice_spacing_mm)
    return float((volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3))


OWN_MM = RADIUS * 32


def test_the_mean_of_ends_lies_between_them_nearer_to_the_more_probable_one():
    for less in (0.0, 1.0, 2.0, 4.0):
        mean = MeanShape.of(ended(ball(), ball(improbability=10 + less, voxel_mm=0.85)))
        share = np.exp(-less / 2) / (1 + np.exp(-less / 2))
        assert radius_mm(mean) == pytest.approx((1 - 0.15 * share) * OWN_MM, abs=0.1)
        assert mean.frame.resolution == 64


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_mean_of_moved_balls_is_between_their_places_and_whole(mirrored):
    """Also where it reaches beyond the cube of the best one, which is mirrored, or not."""
    large = 0.9 / RADIUS
    best, moved = ball(voxel_mm=large, radius=0.9), ball((8.0, 0, 0), voxel_mm=large, radius=0.9)
    mean = MeanShape.of(
        ended(dataclasses.replace(best, frame=dataclasses.replace(best.placed(), mirrored=mirrored)), moved)
    )
    assert mean.frame.resolution > 64 and mean.frame.mirrored == mirrored
    np.testing.assert_allclose(mean.frame.lattice_spacing_mm, best.placed().lattice_spacing_mm)
    border = np.ones(mean.values.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert not (mean.values > 0)[border].any()
    inside = (2 * np.argwhere(mean.values > 0) + 1) / mean.frame.resolution - 1
    middle = mean.frame.cube_to_world(inside).mean(0)
    np.testing.assert_allclose(
        middle, best.placed().cube_to_world(np.zeros(3)) + np.array([4.0, 0, 0]), atol=0.3
    )
    assert radius_mm(mean) == pytest.approx(0.9 * 32 * large, rel=0.03)


def test_ends_that_are_improbable_or_failed_or_unlike_do_not_count():
    one, empty = ball(), ball(radius=-1.0)
    far = ball((25.0, 0, 0))
    for rivals in ([], [ball((4.0, 0, 0), 60.0)], [ball(failure="nothing was found")], [far], [empty]):
        mean = MeanShape.of(ended(one, *rivals))
        np.testing.assert_array_equal(mean.values, one.logits())
        assert mean.frame is one.placed() and mean.degrees_of_freedom == one.found.degrees_of_freedom
    assert MeanShape.of(ended(one, far)).overlap < 0.5  # it is told, all the same


def test_a_completion_is_the_mean_of_its_ends():
    ends = ended(ball(), ball(voxel_mm=0.8), ball((30.0, 0, 0), 60.0))
    seen = Observations(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), np.ones(4))
    done = completion.Completion(ends, MeanShape.of(ends), (), seen, 1, None, None, None, None)
    assert done.whole.degrees_of_freedom == 2 * ends.found.degrees_of_freedom  # of the two that count
    volume = 4 / 3 * np.pi * (0.9 * OWN_MM) ** 3
    assert done.mask_on(ends.placed().grid).sum() == pytest.approx(volume, rel=0.02)
    assert np.ptp(done.mesh().vertices, axis=0) == pytest.approx(1.8 * OWN_MM, abs=0.5)


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
    assert doubt is not None and "another shape" in doubt and "by only 31 % (Dice)" in doubt
