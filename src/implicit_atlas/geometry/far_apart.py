"""A few of many points, far from one another."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def farthest_first(points: Float[np.ndarray, "n d"], count: int, first: int) -> list[int]:
    """Indices of at most `count` points: the first, then always the farthest from those before it (Gonzalez 1985)."""
    chosen, nearest = [first], np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        nearest[chosen[-1]] = -1  # chosen once, where others lie at the same place, too
        chosen.append(int(nearest.argmax()))
    return chosen
