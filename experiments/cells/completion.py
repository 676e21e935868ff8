"""Completion from points near the boundary (paper §5.1, Fig. 6): how well shapes are found from a few clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from implicit_atlas.metrics import score
from implicit_atlas.shapes.sampling import Observations, PointConfig, ShapeSet
from implicit_atlas.shapes.shape import Shape

COUNTS = (64, 256, 1024)
BAND_WIDTH_VOX = 2.0
SEED = 0

Complete = Callable[[list[Observations]], list[Bool[np.ndarray, "r r r"] | None]]
"""Occupancies of shapes that are seen at some points only; None where a method gives up."""


def observe(shape: Shape, count: int) -> Observations:
    """Points near the boundary, each labelled inside or outside; the frame is given, as in the paper.

    Every method is told how near they are, too: who clicks along a boundary knows that.
    """
    target = ShapeSet(shape.packed[None], shape.frame.resolution)
    config = PointConfig(lattice=1, band=count, band_width_vox=BAND_WIDTH_VOX)
    found = target.sample(torch.tensor([0]), config, torch.Generator().manual_seed(SEED))
    points, inside = (
        found.points[0, 1:].numpy(),
        found.occupancy[0, 1:].numpy(),
    )  # the first is of the lattice
    spread = 2 * BAND_WIDTH_VOX / shape.frame.resolution
    return Observations(points.astype(np.float64), inside.astype(np.float64), name=shape.name, spread=spread)


def completion(shapes: Sequence[Shape], complete: Complete) -> dict[str, Any]:
    """DSC and NSD in percent for each number of points: {"64": {"mean": {"dsc", "nsd"}, "cases": [...]}, ...}.

    A shape that the method gave up counts as 0.
    """
    out = {}
    for count in COUNTS:
        found = complete([observe(shape, count) for shape in shapes])
        cases = []
        for shape, occupancy in zip(shapes, found, strict=True):
            values = {"dsc": 0.0, "nsd": 0.0}
            if occupancy is not None:
                scores = score(shape.occupancy, occupancy)
                values = {"dsc": 100 * scores.dsc, "nsd": 100 * scores.nsd}
            cases.append({"name": shape.name, **values})
        mean = {name: float(np.mean([case[name] for case in cases])) for name in ("dsc", "nsd")}
        out[str(count)] = {"mean": mean, "cases": cases}
    return out
