"""Deformations: where points go, from what a decoder says at them.

The paper's deformation is additive: p + 𝒟(d(h), p) (Eq. 3). A stationary velocity field moves points along its flow
for a unit of time instead: with smooth velocities it folds nowhere, and the flow of -v is its inverse (Arsigny et al.,
MICCAI 2006).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Motion = Literal["additive", "velocity"]
Points = Float[Tensor, "batch points 3"]
Vectors = Callable[[Points], Points]

FLOW_STEPS = 4


def flow(velocity: Vectors, points: Points, steps: int = FLOW_STEPS) -> Points:
    """Points after a unit of time in a stationary velocity field, by midpoint steps (second order).

    Args:
        velocity: velocities at (B, P, 3) points, in cube units.
        points: (B, P, 3) in cube coordinates.
        steps: number of steps; each asks for velocities twice.
    """
    for _ in range(steps):
        halfway = points + velocity(points) / (2 * steps)
        points = points + velocity(halfway) / steps
    return points


def displacements(motion: Motion, vectors: Vectors, points: Points) -> Points:
    """From points of a shape to where they lie in its template."""
    return flow(vectors, points) - points if motion == "velocity" else vectors(points)
