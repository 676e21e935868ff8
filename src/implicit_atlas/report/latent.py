"""Training codes as a map in the plane, and a few of them that show how shapes vary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from implicit_atlas.geometry.far_apart import farthest_first


@dataclass(frozen=True, eq=False)
class LatentMap:
    """Codes by their first two principal components.

    Args:
        points: (n, 2) in the units of the codes; the mean code is the origin.
        shares: of the codes' variance, 0 to 1, that each component holds.
    """

    points: Float[np.ndarray, "n 2"]
    shares: tuple[float, float]


def principal_map(codes: Float[np.ndarray, "n c"]) -> LatentMap | None:
    """The map of codes; None where they do not differ. The largest entry of a component is positive."""
    centred = codes.astype(np.float64) - codes.mean(0, dtype=np.float64)
    total = float((centred**2).sum())
    if total == 0:
        return None
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    points, shares = np.zeros((len(codes), 2)), [0.0, 0.0]
    for component in range(min(2, len(axes))):
        axis = axes[component]
        points[:, component] = centred @ axis * np.sign(axis[np.abs(axis).argmax()])
        shares[component] = float(lengths[component] ** 2 / total)
    return LatentMap(points, (shares[0], shares[1]))


def spread(codes: Float[np.ndarray, "n c"], count: int) -> list[int]:
    """Indices of at most `count` codes: the nearest to the mean, then always the farthest from those before."""
    middle = np.linalg.norm(codes - codes.mean(0), axis=1).argmin()
    return farthest_first(codes, count, int(middle))
