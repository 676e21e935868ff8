"""Where the searches for a shape ended: their mean, and whether some are as probable and unlike the best one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from implicit_atlas.completion.correction import field_distances, values_at
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.geometry.grid import lattice

# A mean by probability itself, of which the best shape has most, gains three quarters as much in completing pancreases
# of `val` from 64 clicks and three slices, and one by equal shares as much of Dice and less of the boundary.
SHARED = 2.0  # the root of the probabilities by which ends count
FAINT = 0.01  # shares of less than this are none
NEARLY = 3.0  # by how much the logarithms of two probabilities differ at most where one does not rule out the other
# Of `val`, from 24 to 256 clicks and three slices: 88 to 98 % of hippocampi, 91 to 98 % of livers, and of pancreases
# 71 to 97 % of those that came to more than 0.73 of the truth by Dice, and 55 to 70 % of five of eight that did not.
ALIKE = 0.7
SIDE = 40  # nodes a side of the lattices on which shapes are compared


def ends_of(fit: Fit) -> list[tuple[float, Fit]]:
    """Where the searches for a shape ended, and how much each counts in the mean: 1 the best one, first, others less.

    Args:
        fit: the best one, with the others as its rivals.
    """
    ends = [(1.0, fit)]
    for rival in fit.rivals:
        weight = np.exp((fit.found.improbability - rival.found.improbability) / SHARED)
        if weight > FAINT and rival.failure is None:
            ends.append((float(weight), rival))
    return ends


def mean_of_ends(fit: Fit) -> Float[np.ndarray, "r r r"]:
    """Mean signed distance to the surfaces where searches ended, on the lattice of the best one's cube.

    Each end counts by the square root of its probability: they err in other places, and of many shapes that explain
    what was observed the mean lies nearest to most. Distances are in millimetres, positive inside.

    Args:
        fit: the most probable shape, with its place in the scan.

    Returns:
        The mean; where no other end counts, the logits of the best one.
    """
    _, *others = ends = ends_of(fit)
    if not others:
        return fit.logits()
    frame = fit.placed()
    total = _distances(fit)
    places = frame.cube_to_world(lattice(frame.resolution).double().numpy().reshape(-1, 3))
    for weight, rival in others:
        own = rival.placed()
        cube = own.world_to_cube(places)
        beyond_mm = np.linalg.norm(
            (cube - cube.clip(-1, 1)) * own.lattice_spacing_mm * own.resolution / 2, axis=1
        )
        total += weight * (values_at(_distances(rival), own, places) - beyond_mm).reshape(total.shape)
    return total / np.float32(sum(weight for weight, _ in ends))


def _distances(fit: Fit) -> Float[np.ndarray, "r r r"]:
    return field_distances(fit.logits(), fit.placed().lattice_spacing_mm)


def least_overlap(fit: Fit) -> float:
    """Dice overlap of a shape with the one of its rivals that it overlaps least; 1 without such as are as probable."""
    near = [
        rival
        for rival in fit.rivals
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
    return (
        f"{share}, explains what was observed nearly as well: --draws 8 shows where; click or draw there, too"
    )


def _holds(fit: Fit, points_mm: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Which points of the scan lie within a shape."""
    points = fit.placed().world_to_cube(points_mm)
    return (np.abs(points) < 1).all(1) & (fit.logits_at(points) > 0)


def _node_mm3(fit: Fit) -> float:
    frame = fit.placed()
    return float(np.prod(frame.lattice_spacing_mm)) * (frame.resolution / SIDE) ** 3
