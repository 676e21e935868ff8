"""Completions as they are written: of as many pieces as the organ, and of those in which something was seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from atlas_samples import tiny_atlas

from implicit_atlas.completion import completion, spaces
from implicit_atlas.completion.completion import Completion
from implicit_atlas.completion.observe import CLICK_MM, as_clicks, from_points
from implicit_atlas.completion.rivals import MeanShape
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import CodeFit
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.trained_atlas import TrainedAtlas


def test_completions_have_no_stray_pieces_but_those_that_were_seen():
    grid = Grid((64, 64, 64), np.diag([1.0, 1, 1, 1]))
    at = np.stack(np.meshgrid(*[np.arange(64.0)] * 3, indexing="ij"), axis=-1)
    values = np.max(
        [r - np.linalg.norm(at - c, axis=-1) for r, c in ((18.3, (24, 32, 32)), (5.3, (56, 8, 8)))], axis=0
    ).astype(np.float32)
    frame = Frame(grid, np.zeros(3), np.ones(3), 64, "box", 0.0)
    found = CodeFit(np.zeros(2, np.float32), 0, np.zeros(1, np.float32), "mean", 0.0, 0.0, 1, 0.0, 2)

    def made(*inside: tuple[float, float, float]) -> Completion:
        fit = Fit("two", found, frame, 64, lambda: lambda points: sample_nearest(values, points))
        points = [(24.0, 32, 32), (20.0, 32, 32), (24.0, 36, 32), (24.0, 32, 36), *inside]
        seen = Observations(np.array(points), np.ones(len(points)))
        return Completion(fit, MeanShape.of(fit), (), seen, 1, None, None, None, None)

    def sample_nearest(volume: np.ndarray, points: np.ndarray) -> np.ndarray:
        nodes = np.clip(np.rint((points + 1) * 32 - 0.5).astype(int), 0, 63)
        return volume[tuple(nodes.T)].astype(np.float64)

    assert not made().mask_on(grid)[56, 8, 8] and made().mask_on(grid)[24, 32, 32]
    assert made().mesh().vertices[:, 0].max() < 45
    assert made((56, 8, 8)).mask_on(grid)[56, 8, 8]
    assert made((-500, 8, 8)).mask_on(grid).sum() == made().mask_on(grid).sum()


AT = np.stack(np.meshgrid(*[np.arange(64.0)] * 3, indexing="ij"), axis=-1)
MIDDLE = np.array([32.0, 32, 32])
BALL = (18 - np.linalg.norm(AT - MIDDLE, axis=-1)).astype(np.float32)
NODE_MM = float(np.mean(tiny_atlas().config.size_mm)) / 36  # makes the ball's diameter the atlas's mean size


def observed(points: np.ndarray, occupancy: np.ndarray | float = 0.5) -> Observations:
    """Clicks in nodes, on the boundary or labelled."""
    labels = np.broadcast_to(np.asarray(occupancy, np.float64), len(points)).copy()
    return Observations(points * NODE_MM, labels, spread=NODE_MM)


def found_as(nodes: np.ndarray, improbability: float = 0.0) -> Fit:
    """A shape of 64³ nodes."""
    grid = Grid((64, 64, 64), np.diag([NODE_MM] * 3 + [1]))
    frame = Frame(grid, np.zeros(3), np.ones(3), 64, "box", 0.0)

    def values(points: np.ndarray) -> np.ndarray:
        nearest = np.clip(np.rint((points + 1) * 32 - 0.5).astype(int), 0, 63)
        return nodes[tuple(nearest.T)].astype(np.float64)

    found = CodeFit(np.zeros(2, np.float32), 0, np.zeros(1, np.float32), "mean", 0.0, 0.0, 1, 0.0, 2)
    found = dataclasses.replace(found, improbability=improbability, unguided=improbability)
    return Fit("ball", found, frame, 64, lambda: values)


def judged(points: np.ndarray, occupancy: np.ndarray | float = 0.5) -> Completion:
    """What is said of a ball of 18 nodes around the middle, found from clicks on its boundary or from labelled ones."""
    seen, fits = observed(points, occupancy), [found_as(BALL)]
    return completion._judged(tiny_atlas(), seen, 1, completion._Searched.of(fits, seen, 36 * NODE_MM))


WAYS = np.random.default_rng(0).standard_normal((200, 3))
AROUND = MIDDLE + 18 * WAYS / np.linalg.norm(WAYS, axis=1, keepdims=True)


def test_clicks_on_the_surface_are_believed():
    done = judged(AROUND)
    assert done.doubt is None and done.moved == 0 and done.boundary_mm is not None
    assert done.boundary_mm < 0.02 * np.mean(tiny_atlas().config.size_mm)


def test_a_click_far_off_is_named():
    done = judged(np.concatenate([AROUND, [[32.0, 32, 61]]]))
    x, y, z = done.seen.points[-1]
    place = f"the click at ({x:.1f}, {y:.1f}, {z:.1f}) mm RAS"
    assert done.doubt is not None and place in done.doubt and "check it" in done.doubt
    within = MIDDLE + 0.8 * (AROUND - MIDDLE)
    done = judged(np.concatenate([within, [[32.0, 32, 61]]]), 1)
    assert done.doubt is not None and place in done.doubt and "on the wrong side of" in done.doubt


def test_a_surface_that_was_moved_to_many_clicks_is_doubtful():
    """Clicks in the wrong space are of another organ; corrected, the surface passes through them all the same."""
    dented = AROUND.copy()
    dented[AROUND[:, 0] > 40] -= (4, 0, 0)
    done = judged(dented)
    assert done.boundary_mm is not None
    assert done.boundary_mm < 0.03 * np.mean(tiny_atlas().config.size_mm)
    assert 0.15 < done.moved < 0.35
    assert done.doubt is not None and "wrong space" in done.doubt


def test_a_surface_without_clicks_is_doubtful():
    """A third of the ball has none, where there are many on the rest."""
    done = judged(AROUND[AROUND[:, 0] < 38])
    assert done.doubt is not None and "from all clicks" in done.doubt and "click there, too" in done.doubt
    assert judged(AROUND[AROUND[:, 0] < 49]).doubt is None


@pytest.mark.parametrize(
    ("short", "whole", "told"),
    [(90, None, True), (160, 120, True), (160, 149, False), (190, None, False)],
)
def test_clicks_that_fit_better_when_turned_may_be_in_the_wrong_space(monkeypatch, short, whole, told):
    """LPS read as RAS: a short search of the clicks turned, and a whole one where that one comes near to the first."""
    seen = observed(MIDDLE + 0.8 * (AROUND - MIDDLE), 1)
    asked = []

    def search(_, observations, config=None):
        asked.append((observations, config))
        return [found_as(BALL, whole if config is None else short)]

    monkeypatch.setattr(TrainedAtlas, "complete_and_draw", lambda *_, **__: [[found_as(BALL, 150)]])
    monkeypatch.setattr(TrainedAtlas, "complete_in_scan", search)
    (done,) = completion.complete(tiny_atlas(), [seen])
    assert (done.doubt is not None and "signs of x and y swapped" in done.doubt) == told
    assert len(asked) == (1 if whole is None else 2)
    for (turned,), config in asked:
        np.testing.assert_array_equal(turned.points, seen.points * (-1, -1, 1))
        assert config is None or config.iterations < 10


def test_where_the_side_is_not_known_clicks_are_turned_as_both(monkeypatch):
    """Clicks in the wrong space of one side look somewhat like the other side in theirs."""
    asked = []

    def search(_, observations, config=None):
        asked.extend(observations)
        return [found_as(BALL, 190), found_as(BALL, 90)]

    monkeypatch.setattr(TrainedAtlas, "complete_in_scan", search)
    seen = observed(AROUND, 1)
    assert spaces.space_doubts(tiny_atlas(), [seen], [found_as(BALL, 150)], either=True) == [spaces.TURNED]
    assert [one.mirrored for one in asked] == [False, True]


@pytest.mark.parametrize("more_probable", [True, False])
def test_a_shape_that_bulges_out_of_its_clicks_is_searched_for_again(monkeypatch, more_probable):
    """With both sides of the clicks and the bulge as labels; the more probable shape is kept, and doubted if wrong."""
    bulge = np.array([52.0, 32, 32])
    bulging = np.maximum(BALL, 12 - np.linalg.norm(AT - bulge, axis=-1)).astype(np.float32)
    asked = []

    def search(_, observations, draws=0, progress=None):
        asked.append(observations)
        first = len(asked) == 1
        return [[found_as(bulging, 5.0) if first else found_as(BALL, 4.0 if more_probable else 6.0)]]

    def improbable(_, observations, config=None):  # in the other space
        return [found_as(BALL, 1e3) for _ in observations]

    monkeypatch.setattr(TrainedAtlas, "complete_and_draw", search)
    monkeypatch.setattr(TrainedAtlas, "complete_in_scan", improbable)
    (done,) = completion.complete(tiny_atlas(), [observed(AROUND)])
    _, (labelled,) = asked
    labels = labelled.occupancy[len(AROUND) :]
    beyond = np.linalg.norm(labelled.points[len(AROUND) :] / NODE_MM - MIDDLE, axis=1) - 18
    assert set(labels) == {0.0, 1.0} and (beyond > 7).any()
    assert ((beyond < 0) == labels).mean() > 0.97 and not labels[beyond > 7].any()
    assert (done.turned < 0.01) == more_probable == (done.doubt is None)
    surface = np.linalg.norm(done.mesh().vertices / NODE_MM - MIDDLE, axis=1)
    assert surface.max() < 23  # of 32: corrected by the same places where the wrong shape is kept


def test_points_on_the_boundary_lie_as_near_to_it_as_clicks_where_nothing_says_how_near(monkeypatch):
    given = []
    monkeypatch.setattr(
        TrainedAtlas,
        "complete_and_draw",
        lambda atlas, seen, *rest, **more: given.extend(seen) or [[found_as(BALL)]],
    )
    bare, own = AROUND * NODE_MM, observed(AROUND)
    completion.complete(tiny_atlas(), [Observations(bare, np.full(len(bare), 0.5))])
    np.testing.assert_array_equal(given[0].spread, from_points(bare).spread)
    assert set(given[0].spread) == {CLICK_MM}
    completion.complete(tiny_atlas(), [own])
    assert given[-1].spread is own.spread


@pytest.mark.parametrize("given", [observed(AROUND), [AROUND], AROUND])
def test_what_is_no_list_of_observations_is_refused(given):
    with pytest.raises(InputError, match="no list of observations"):
        as_clicks(given)


def test_clicks_in_another_unit_are_doubtful():
    assert "check its unit" in str(judged(MIDDLE + (AROUND - MIDDLE) / 10).doubt)
