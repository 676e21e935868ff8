"""Corrections by clicks: the surface goes where they say, and stays elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from implicit_atlas.completion import click_sides, correction
from implicit_atlas.completion.click_sides import Beside
from implicit_atlas.completion.correction import (
    Clicks,
    corrected,
    field_distances,
    moved_at_random,
    values_at,
)
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.sampling import Observations

SIDE, RADIUS = 64, 20.0
SPACING = np.array([1.0, 1.5, 2.0])  # mm from node to node
FRAME = Frame(Grid((SIDE, SIDE, SIDE), np.diag([*SPACING, 1.0])), np.zeros(3), np.ones(3), SIDE, "box", 0.0)
MIDDLE = (SIDE - 1) / 2 * SPACING
RNG = np.random.default_rng(0)


def distance_mm(points: np.ndarray) -> np.ndarray:
    """Exact signed distance to the ball."""
    return RADIUS - np.linalg.norm(points - MIDDLE, axis=-1)


NODES = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), axis=-1) * SPACING
BALL = np.tanh(distance_mm(NODES) / 3).astype(np.float32) * 8  # logits that level off


def clicks_near(count: int) -> np.ndarray:
    """Points on both sides of the ball's surface."""
    away = RNG.standard_normal((count, 3))
    radius = RADIUS + RNG.uniform(1, 4, (count, 1)) * RNG.choice([-1, 1], (count, 1))
    return MIDDLE + away / np.linalg.norm(away, axis=1, keepdims=True) * radius


def test_draws_are_corrected_by_clicks_that_are_moved_by_their_noise():
    """Those on the boundary by their spread, places beside them in depth; labels stay, and a draw has its own noise."""
    points = np.random.default_rng(0).uniform(-20, 20, (4000, 3))
    occupancy = np.r_[np.full(2000, 0.5), np.ones(2000)]
    seen = Observations(points, occupancy, spread=np.full(4000, 2.0))
    beside = Beside(points, np.full(4000, 3.0), np.full(4000, 0.5))
    moved, aside = moved_at_random(seen, beside, 1)
    assert (moved.points - points)[:2000].std() == pytest.approx(2.0, rel=0.05)
    assert np.array_equal(moved.points[2000:], points[2000:])
    assert aside.distance_mm.mean() == pytest.approx(3.0, abs=0.05) and np.array_equal(aside.points, points)
    assert aside.distance_mm.std() == pytest.approx(0.5, rel=0.05)
    again, other = moved_at_random(seen, beside, 1)[0], moved_at_random(seen, beside, 2)[0]
    assert np.array_equal(again.points, moved.points) and not np.array_equal(other.points, moved.points)
    unsaid = Observations(points, occupancy)
    assert np.array_equal(moved_at_random(unsaid, beside, 1)[0].points, points)


def test_what_agrees_with_all_labels_stays():
    points = clicks_near(100)
    seen = Observations(points, (distance_mm(points) > 0).astype(float))
    assert corrected(BALL, FRAME, seen) is BALL


def test_distances_are_exact_near_the_surface_and_beyond():
    found, exact = field_distances(BALL, SPACING), distance_mm(NODES)
    near = np.abs(exact) < 12
    assert np.abs(found - exact)[near].max() < np.linalg.norm(SPACING)  # a cell
    assert np.abs(found - exact)[near].mean() < 0.3 and np.abs(found - exact)[np.abs(exact) < 1].mean() < 0.15
    assert ((found > 0) == (BALL > 0)).all()


def test_a_contradicted_part_goes_and_the_rest_stays():
    """A corner of the ball is labelled outside: it is cut off; the far side is as it was."""
    points = clicks_near(400)
    inner = MIDDLE + RNG.uniform(-RADIUS, RADIUS, (400, 3)) * 0.9
    points = np.concatenate([points, inner[distance_mm(inner) > 1]])
    cut = points[:, 0] > MIDDLE[0] + 10
    seen = Observations(points, ((distance_mm(points) > 0) & ~cut).astype(float))
    before, after = (values_at(v, FRAME, points) > 0 for v in (BALL, corrected(BALL, FRAME, seen)))
    assert (before == (seen.occupancy > 0)).mean() < 0.93
    assert (after == (seen.occupancy > 0)).mean() > 0.97
    far = NODES[..., 0] < MIDDLE[0] - 5
    assert ((corrected(BALL, FRAME, seen) > 0) == (BALL > 0))[far].mean() > 0.9995


@pytest.mark.parametrize("off_mm", [-4.0, 5.0])
def test_the_surface_goes_through_clicks_on_the_boundary(off_mm):
    around = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 0.6, 5)])
    away = np.stack([around[:, 0], around[:, 1], np.linspace(-0.3, 0.3, 5)], axis=1)
    points = MIDDLE + (RADIUS + off_mm) * away / np.linalg.norm(away, axis=1, keepdims=True)
    seen = Observations(points, np.full(5, 0.5), spread=np.full(5, 0.5))
    found = corrected(BALL, FRAME, seen)
    moved = field_distances(found, SPACING)
    assert np.abs(values_at(moved, FRAME, points)).max() < 1.0
    assert ((found > 0) == (BALL > 0))[NODES[..., 0] < MIDDLE[0] - 10].mean() > 0.9995


def test_masks_are_left_to_their_shapes():
    points = np.repeat(clicks_near(600), 4, axis=0)
    seen = Observations(points, (distance_mm(points) < 0).astype(float))
    assert len(points) > click_sides.MOST and corrected(BALL, FRAME, seen) is BALL
    assert corrected(-np.abs(BALL), FRAME, seen).max() <= 0  # empty shapes stay empty


def test_the_addition_is_the_most_probable_one():
    """Where the objective is least, weights are the negative slopes of the labels' surprise."""
    places, count = RNG.uniform(-0.5, 0.5, (60, 3)), 60
    sign = RNG.choice([-1.0, 0.0, 1.0], count)
    spread = np.where(sign == 0, 0.02, np.inf)
    aim = np.where(sign == 0, RNG.choice([-0.05, 0.0, 0.05], count), 0.0)
    clicks = Clicks(places, RNG.normal(0, 0.05, count), sign, aim, spread, np.ones(count))
    share = RNG.uniform(0.2, 1, count)
    weights = correction._most_probable(clicks, share)
    covariance = share[:, None] * correction._covariance(places, places) * share
    _, slope, _ = clicks.surprise(clicks.distance + covariance @ weights)
    assert np.abs(slope).max() > 1  # not all labels are certain
    np.testing.assert_allclose(covariance @ weights, covariance @ -slope, atol=1e-3)


def test_what_is_beside_clicks_is_followed():
    """Clicks on a half of the ball whose sides are said to be swapped, as where a shape fills a bend."""
    away = RNG.standard_normal((400, 3))
    out = away / np.linalg.norm(away, axis=1, keepdims=True)
    out = out[out[:, 0] > 0.3]
    points, count = MIDDLE + RADIUS * out, len(out)
    seen = Observations(points, np.full(count, 0.5), spread=0.3)
    places = np.concatenate([points - 3 * out, points + 3 * out])
    swapped = Beside(places, np.repeat([-3.0, 3.0], count), np.full(2 * count, 0.5))
    told = swapped.distance_mm > 0
    assert ((values_at(BALL, FRAME, places) > 0) == ~told).all()
    assert ((values_at(corrected(BALL, FRAME, seen), FRAME, places) > 0) == ~told).mean() > 0.98
    assert ((values_at(corrected(BALL, FRAME, seen, swapped), FRAME, places) > 0) == told).mean() > 0.98


def test_additions_in_single_precision_are_those_in_double():
    places, clicks = RNG.uniform(-1, 1, (700, 3)), RNG.uniform(-1, 1, (300, 3))
    weights = 100 * RNG.standard_normal(300)
    exact = correction._covariance(places, clicks) @ weights
    found = correction._added_at(places, clicks, weights)
    np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())
    assert correction._added_at(places[:0], clicks, weights).shape == (0,)


def test_slopes_and_curvatures_are_those_of_the_surprise():
    sign = np.array([-1.0, 0, 1, 1])
    clicks = Clicks(
        places=np.zeros((4, 3)),
        distance=np.zeros(4),
        sign=sign,
        aim=np.array([0, 0.05, 0, 0]),
        spread=np.where(sign == 0, 0.1, np.inf),
        weight=np.array([1, 2, 0.5, 1]),
    )
    at, step = np.array([0.003, 0.02, -0.01, 0.004]), 1e-6
    up, _, _ = clicks.surprise(at + step)
    down, _, _ = clicks.surprise(at - step)
    _, slope, curvature = clicks.surprise(at)
    np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5)
    _, after, _ = clicks.surprise(at + step)
    _, before, _ = clicks.surprise(at - step)
    np.testing.assert_allclose(curvature, (after - before) / (2 * step), rtol=1e-5)
