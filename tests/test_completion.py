"""Completions as they are written: of as many pieces as the organ, and of those in which something was seen."""

from __future__ import annotations

import numpy as np
from atlas_samples import tiny_atlas

from implicit_atlas import completion
from implicit_atlas.code_fit import CodeFit
from implicit_atlas.completion import Completion
from implicit_atlas.fit import Fit
from implicit_atlas.frame import Frame
from implicit_atlas.sampling import Observations
from implicit_atlas.voxel_grid import Grid


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
        return Completion(fit, (), seen, 1, None, None, None, None)

    def sample_nearest(volume: np.ndarray, points: np.ndarray) -> np.ndarray:
        nodes = np.clip(np.rint((points + 1) * 32 - 0.5).astype(int), 0, 63)
        return volume[tuple(nodes.T)].astype(np.float64)

    assert not made().mask_on(grid)[56, 8, 8] and made().mask_on(grid)[24, 32, 32]
    assert made().mesh().vertices[:, 0].max() < 45
    assert made((56, 8, 8)).mask_on(grid)[56, 8, 8]
    assert made((-500, 8, 8)).mask_on(grid).sum() == made().mask_on(grid).sum()


def judged(points: np.ndarray, occupancy: np.ndarray | float = 0.5) -> Completion:
    """What is said of a ball of 18 nodes around (32, 32, 32), found from clicks on its boundary, or from labelled ones.

    A node is as many mm as makes the ball's diameter the atlas's mean size.
    """
    atlas = tiny_atlas()
    node_mm = float(np.mean(atlas.config.size_mm)) / 36
    at = np.stack(np.meshgrid(*[np.arange(64.0)] * 3, indexing="ij"), axis=-1)
    ball = (18 - np.linalg.norm(at - MIDDLE, axis=-1)).astype(np.float32)
    grid = Grid((64, 64, 64), np.diag([node_mm] * 3 + [1]))
    frame = Frame(grid, np.zeros(3), np.ones(3), 64, "box", 0.0)

    def values(points: np.ndarray) -> np.ndarray:
        nodes = np.clip(np.rint((points + 1) * 32 - 0.5).astype(int), 0, 63)
        return ball[tuple(nodes.T)].astype(np.float64)

    found = CodeFit(np.zeros(2, np.float32), 0, np.zeros(1, np.float32), "mean", 0.0, 0.0, 1, 0.0, 2)
    labels = np.broadcast_to(np.asarray(occupancy, np.float64), len(points)).copy()
    seen = Observations(points * node_mm, labels, spread=node_mm)
    fits = [Fit("ball", found, frame, 64, lambda: values)]
    size_mm = float(np.mean(atlas.config.size_mm))
    return completion._judged(atlas, seen, 1, completion._Searched.of(fits, seen, size_mm))


MIDDLE = np.array([32.0, 32, 32])
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
