"""Which slices were drawn of a mask that was drawn on a few of them: parallel ones, or in several directions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from implicit_atlas.errors import InputError
from implicit_atlas.io import Mask

Slices = dict[int, Int[np.ndarray, " _"]]
"""Indices of slices, by the axis of the array across them."""

MOST = 1 / 2  # of the slices of the organ's largest extent, that slices of several directions may be


def drawn_slices(mask: Mask) -> Slices:
    """The slices on which a mask was drawn: as parallel or crossing ones, whichever are fewer.

    A slice that sticks out beyond another leaves lines in planes that nobody drew, and gaps between them.

    Raises:
        InputError: parallel or crossing, no slices with gaps between them hold all of it. Two thick parts with one gap
            between them are taken for an organ of two pieces.
    """
    readings = [found for found in (_parallel(mask.occupancy), _crossing(mask.occupancy)) if found]
    if not readings:
        problem = "has slices left out between its first and last along none of its axes"
        raise InputError(
            mask.path,
            problem,
            "Draw slices with gaps between them, reconstruct it as a whole mask, or say that its volume was seen: "
            "--seen volume.",
        )
    return min(readings, key=lambda slices: sum(map(len, slices.values())))


def _runs(planes: Int[np.ndarray, " n"]) -> Int[np.ndarray, " runs"]:
    """How many slices lie side by side, run by run."""
    return np.diff(np.flatnonzero(np.r_[True, np.diff(planes) > 1, True]))


def _have_gaps(planes: Int[np.ndarray, " n"]) -> bool:
    runs = _runs(planes)
    return len(planes) == 1 or len(runs) > 2 or (len(runs) == 2 and bool(runs.min() == 1))


def _parallel(occupancy: Bool[np.ndarray, "x y z"]) -> Slices:
    """Slices across the axis along which the organ's runs are thinnest; none where none has gaps."""
    best: tuple[float, int, np.ndarray] | None = None
    for axis in range(3):
        planes = np.flatnonzero(occupancy.any(axis=tuple(a for a in range(3) if a != axis)))
        if _have_gaps(planes) and (best is None or _runs(planes).mean() < best[0]):
            best = float(_runs(planes).mean()), axis, planes
    return {} if best is None else {best[1]: best[2]}


def _crossing(occupancy: Bool[np.ndarray, "x y z"]) -> Slices:
    """Slices across several axes that hold the whole mask, found one by one, the one with most of the rest first.

    One that was drawn holds an area, another a line of each that was. None where they are many, or side by side.
    """
    left = np.argwhere(occupancy)
    if not len(left):
        return {}
    most, found = MOST * (np.ptp(left, axis=0) + 1).max(), []
    while len(left):
        if len(found) >= most:
            return {}
        counts = [np.bincount(left[:, axis]) for axis in range(3)]
        axis = int(np.argmax([count.max() for count in counts]))
        found.append((axis, int(counts[axis].argmax())))
        left = left[left[:, axis] != found[-1][1]]
    slices = {a: np.array(sorted(k for axis, k in found if axis == a)) for a in range(3)}
    slices = {axis: planes for axis, planes in slices.items() if len(planes)}
    return slices if all(map(_have_gaps, slices.values())) else {}
