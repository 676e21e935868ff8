"""Learning rates over the course of an optimisation."""

from __future__ import annotations

import math

FIT_FLOOR = 0.02  # the rate of a fit ends at this share of its peak


def cosine_decay(progress: float, floor: float) -> float:
    """Share of the peak rate: 1 at progress 0, `floor` at progress 1, a half cosine between."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
