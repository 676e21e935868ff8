"""Whether other shapes, unlike the one that was kept, explain what was observed nearly as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from implicit_atlas.fitting.fit import Fit
from implicit_atlas.geometry.grid import lattice

NEARLY = 3.0  # by how much the logarithms of two probabilities differ at most where one does not rule out the other
ALIKE = 0.7
SIDE = 40  # nodes a side of the lattices on which shapes are compared


def least_overlap(fit: Fit, rivals: Sequence[Fit]) -> float:
    """Dice overlap of a shape with the one of its rivals that it overlaps least; 1 without such as are as probable.

    Args:
        fit: the most probable shape, with its place in the scan.
        rivals: where other searches ended.
    """
    near = [
        rival
        for rival in rivals
        if rival.failure is None and rival.found.improbability - fit.found.improbability < NEARLY
    ]
    if not near:
        return 1.0
    nodes = lattice(SIDE).double().numpy().reshape(-1, 3)
    points, inside = fit.placed().cube_to_world(nodes), fit.logits_at(nodes) > 0
    own_mm3 = inside.sum() * _node_mm3(fit)
    overlaps = []
    for rival in near:
        both_mm3 = (inside & _holds(rival, points)).sum() * _node_mm3(fit)
        other_mm3 = (rival.logits_at(nodes) > 0).sum() * _node_mm3(rival)
        overlaps.append(2 * both_mm3 / max(own_mm3 + other_mm3, 1e-9))
    return float(min(overlaps))


def rival_doubt(overlap: float) -> str | None:
    """The doubt about a shape that overlaps a rival by so much."""
    if overlap >= ALIKE:
        return None
    share = f"another shape, which it overlaps by only {100 * overlap:.0f} % (Dice)"
    return f"{share}, explains what was observed nearly as well: --draws 8 shows where; click there, too"


def _holds(fit: Fit, points_mm: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Which points of the scan lie within a shape."""
    points = fit.placed().world_to_cube(points_mm)
    return (np.abs(points) < 1).all(1) & (fit.logits_at(points) > 0)


def _node_mm3(fit: Fit) -> float:
    frame = fit.placed()
    return float(np.prod(frame.lattice_spacing_mm)) * (frame.resolution / SIDE) ** 3
