"""Sides of clicks on a boundary: the minimum cut, its labels, and clicks of which nothing can be said."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.spatial import Delaunay, KDTree

from implicit_atlas.completion.click_sides import bare_share, beside_clicks
from implicit_atlas.geometry.surface import volume_mesh
from implicit_atlas.geometry.tetrahedra import Cells, cut
from implicit_atlas.io import Mesh
from implicit_atlas.shapes.sampling import Observations

RADIUS_MM, TUBE_MM = 30.0, 7.0
BULGE_MM, BALL_MM = np.array([15.0, -26.0, 8.0]), 18.0


def bent(points: np.ndarray) -> np.ndarray:
    """Signed distance in mm of three quarters of a torus with round ends, positive inside."""
    angle = np.clip(np.arctan2(points[:, 1], points[:, 0]), -0.75 * np.pi, 0.75 * np.pi)
    middle = RADIUS_MM * np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)
    return TUBE_MM - np.linalg.norm(points - middle, axis=1)


def filled(points: np.ndarray) -> np.ndarray:
    """Signed distance in mm, about, of a disc that fills the bend."""
    return np.minimum(
        RADIUS_MM + TUBE_MM - np.linalg.norm(points[:, :2], axis=1), TUBE_MM - np.abs(points[:, 2])
    )


def on_surface(count: int) -> np.ndarray:
    """Random points on the bent tube."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (400 * count, 3)) * [RADIUS_MM + 10, RADIUS_MM + 10, TUBE_MM + 3]
    points = points[np.abs(bent(points)) < 1][:count]
    for _ in range(5):
        steps = np.eye(3) * 1e-4
        slope = np.stack([bent(points + step) - bent(points - step) for step in steps], axis=1) / 2e-4
        points = points - bent(points)[:, None] * slope
    assert np.abs(bent(points)).max() < 1e-6
    return points


def clicks(points: np.ndarray) -> Observations:
    """Clicks on a boundary."""
    return Observations(points, np.full(len(points), 0.5), spread=1.0)


def cost(
    inside: np.ndarray, pairs: np.ndarray, between: np.ndarray, pull: np.ndarray, push: np.ndarray
) -> float:
    """What a cut severs."""
    severed = inside[pairs[:, 0]] != inside[pairs[:, 1]]
    return between[severed].sum() + pull[~inside].sum() + push[inside].sum()


def test_the_least_cut_is_that_of_all_cuts() -> None:
    """Against all sets of nodes of small random graphs."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        pairs = np.array([(i, j) for i in range(6) for j in range(i) if rng.random() < 0.6])
        between, pull, push = rng.random(len(pairs)), rng.random(6), rng.random(6)

        costs = pairs, between, pull, push
        best = min(cost(np.array(inside), *costs) for inside in product((False, True), repeat=6))
        assert cost(cut(*costs), *costs) == pytest.approx(best, abs=1e-6)


def test_facets_of_a_ball_are_smooth_and_those_within_are_not() -> None:
    """A ball's tetrahedra all have the ball as their sphere: its faces are rough by what reaches to the wide box."""
    points = np.random.default_rng(2).normal(size=(300, 3))
    cells = Cells.between(points / np.linalg.norm(points, axis=1, keepdims=True))
    assert isinstance(cells.mesh, Delaunay)
    outer = cells.outer[cells.pairs]
    surface, within = outer[:, 0] != outer[:, 1], ~outer.any(1)
    rough = cells.roughness()
    assert rough[surface].mean() < rough[within].mean() / 2
    outwards = (cells.normals * cells.mesh.points[cells.facets].mean(1)).sum(1)
    first_within = ~outer[surface, 0]
    assert ((outwards[surface] > 0) == first_within).all()
    assert cells.volume[~cells.outer].sum() == pytest.approx(4 / 3 * np.pi, rel=0.1)


@pytest.mark.parametrize("count", [256, 1024])
def test_a_bend_that_a_shape_fills_is_outside(count: int) -> None:
    """The shape says inside in the bend; the clicks say otherwise. Half the points in the bend do by the shape."""
    seen = clicks(on_surface(count))
    beside = beside_clicks(seen, filled, 74.0)
    inside = beside.distance_mm > 0
    assert inside.any()
    assert len(inside) > 1.3 * count
    assert np.median(np.abs(bent(beside.points) - beside.distance_mm) / beside.spread_mm) < 1
    right = (bent(beside.points) > 0) == inside
    wrong_shape = (filled(beside.points) > 0) == inside
    assert right.mean() > 0.97
    assert wrong_shape.mean() < 0.92


def bulging(points: np.ndarray) -> np.ndarray:
    """Signed distance in mm, about, of the bent tube with a ball at its side that no click is on."""
    return np.maximum(bent(points), BALL_MM - np.linalg.norm(points - BULGE_MM, axis=1))


def test_where_clicks_leave_no_gap_a_bulge_without_them_is_outside() -> None:
    """Of clicks on the whole organ; of those on half of it nothing is said of what lies beyond."""
    points = on_surface(1024)
    whole = beside_clicks(clicks(points), bulging, 74.0)
    far = np.abs(whole.distance_mm) > 6
    assert far.sum() > 5
    assert (whole.distance_mm[far] < 0).all() and (bent(whole.points[far]) < 0).all()
    assert np.linalg.norm(whole.points[far] - BULGE_MM, axis=1).max() < BALL_MM
    assert not (np.abs(beside_clicks(clicks(points), bent, 74.0).distance_mm) > 6).any()
    some = clicks(points[points[:, 1] < 10])
    for shape, count in ((bent, 0), (bulging, 5)):
        half = beside_clicks(some, shape, 74.0)
        far = np.abs(half.distance_mm) > 6
        assert far.sum() >= count
        assert (np.linalg.norm(half.points[far] - BULGE_MM, axis=1) < BALL_MM).all()


def test_facets_that_no_click_is_near_are_bare() -> None:
    """Of a ball with a cap missing, those that close it; of a whole one hardly any."""
    points = np.random.default_rng(2).normal(size=(600, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for some, bare in ((points, 0), (points[points[:, 2] < 0.5], 1)):
        cells = Cells.between(some)
        outer = cells.outer[cells.pairs]
        surface = outer[:, 0] != outer[:, 1]
        middle = cells.mesh.points[cells.facets[surface]].mean(1)
        closing = (middle[:, 2] > 0.4) & (np.linalg.norm(middle, axis=1) < 0.9)
        assert (cells.bareness[surface][~closing] > 3).mean() < 0.03
        assert (cells.bareness[surface][closing] > 3).any() == bare


def test_a_surface_without_clicks_is_bare() -> None:
    """A quarter of a ball without clicks, and nothing of one that has them all over, or in curves alone."""
    axes = np.linspace(-12, 12, 49)
    values = 10 - np.linalg.norm(np.stack(np.meshgrid(axes, axes, axes, indexing="ij"), axis=-1), axis=-1)
    mesh = volume_mesh(values.astype(np.float32))
    mesh = Mesh(mesh.vertices * 12.25, mesh.faces)  # of a cube from -1 to 1
    points = np.random.default_rng(0).normal(size=(800, 3))
    points *= 10 / np.linalg.norm(points, axis=1, keepdims=True)
    assert bare_share(clicks(points), mesh)[0] < 0.01
    share, far_mm = bare_share(clicks(points[points[:, 0] < 5]), mesh)
    assert share == pytest.approx(0.25 * (1 - far_mm / 5 * 0.8), abs=0.05) and 1 < far_mm < 3
    curves = points[:100] * [1, 1, 0] * 10 / np.linalg.norm(points[:100, :2], axis=1, keepdims=True)
    assert bare_share(clicks(curves), mesh)[0] == 0


def test_labels_move_with_the_clicks_and_do_not_depend_on_the_unit() -> None:
    """The same labels of clicks far away, and of clicks and an organ twice as large."""
    points = on_surface(200)
    there = np.array([900.0, -700.0, 1500.0])
    plain = beside_clicks(clicks(points), filled, 74.0)
    moved = beside_clicks(clicks(points + there), lambda p: filled(p - there), 74.0)
    large = beside_clicks(clicks(2 * points), lambda p: 2 * filled(p / 2), 148.0)
    for other, scale, shift in ((moved, 1, there), (large, 2, 0)):
        expected = scale * plain.points + shift
        # What is nearly a tie may be cut otherwise.
        assert len(other.points) == pytest.approx(len(expected), rel=0.02)
        apart, nearest = KDTree(expected).query(other.points)
        same = apart < 1e-6
        assert same.mean() > 0.97
        expected_mm = scale * plain.distance_mm[nearest]
        assert other.distance_mm[same] == pytest.approx(expected_mm[same], abs=1e-6)


def test_places_as_labels() -> None:
    """What was observed stays in front; places are inside where their distance is positive, and say no more."""
    seen = clicks(on_surface(50))
    beside = beside_clicks(seen, bent, 74.0)
    labelled = beside.labels_with(seen)
    assert np.array_equal(labelled.points, np.concatenate([seen.points, beside.points]))
    assert np.array_equal(labelled.occupancy[50:], beside.distance_mm > 0)
    assert np.isinf(labelled.spreads[50:]).all()
    assert (labelled.spreads[:50] == 1.0).all()


def test_nothing_is_said_where_nothing_is_known() -> None:
    """Labelled clicks, clicks far from the shape, in one plane, at one place, and too many."""
    points = on_surface(100)
    far = clicks(points + 500)
    labelled = Observations(points, np.ones(100))
    flat = clicks(points * [1, 1, 0])
    many = clicks(np.repeat(points, 30, axis=0))
    turn = 2 * np.pi * np.arange(150) / 30
    curves = clicks(20 * np.stack([np.cos(turn), np.sin(turn), np.arange(150) // 30], axis=1))
    for seen in (far, labelled, many, curves):
        assert not len(beside_clicks(seen, filled, 74.0).points)
    for seen in (flat, clicks(np.concatenate([points, points]))):
        assert np.isfinite(beside_clicks(seen, filled, 74.0).points).all()
