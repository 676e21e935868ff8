"""Completions as they are written: of as many pieces as the organ, and of those in which something was seen."""

from __future__ import annotations

import numpy as np

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
