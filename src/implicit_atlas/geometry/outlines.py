"""Outlines of masks by themselves, without a shape model: stairs of thick slices, and outlines that jump about.

Both are mended in signed distances, on which averages and interpolations move surfaces instead of blurring labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

from implicit_atlas.geometry.distance import nearest_empty, squared_distance

# A third of the organ's slices repeat the one before: of clean masks less than a twentieth do, of slices that were
# drawn on every second one half.
REPEATED = 1 / 3
THIN = 0.04  # of the largest depth: where no disc of this radius fits, a drawn slice is thin
FEWEST = 3  # different slices, below which there is nothing to interpolate
# Roughness: the median distance in voxels that a Gaussian of `SCALE` voxels moves a surface. It is that of a smooth
# shape of the same place and size, whose voxels and bends are alike, and more: of clean hippocampi and livers up to
# 0.05, of liver outlines that jump about by 0.5, 1 and 2 mm 0.1, 0.16 and 0.22.
SCALE, ROUGH = 1.5, 0.08
SMOOTHNESS = 10.0  # voxels of a Gaussian for a roughness of 1 more than the smooth shape's
FAR = 6.0  # voxels around the organ that are looked at
AT_MOST = 2.0  # how many times the root mean square move a surface may move: what lies farther is no noise


@dataclass(frozen=True)
class Stairs:
    """Slices that were repeated.

    Args:
        axis: across the slices.
        runs: first plane of each run of equal slices that hold the organ, and the one after its last.
        apart: planes from one drawn slice to the next.
    """

    axis: int
    runs: tuple[tuple[int, int], ...]
    apart: float


def depths(
    occupancy: Bool[np.ndarray, "*axes"], spacing_mm: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "*axes"]:
    """Depth of voxel centres below a surface in mm, negative outside; beyond the array is background.

    In an empty mask all lie as far outside as the array is long.
    """
    padded = np.pad(occupancy, 1)
    depth = np.where(padded, _to_surface(padded, spacing_mm), -_to_surface(~padded, spacing_mm))
    longest_mm = float(np.linalg.norm(np.multiply(occupancy.shape, spacing_mm)))
    return np.maximum(depth[(slice(1, -1),) * occupancy.ndim], -longest_mm).astype(np.float32)


def _to_surface(
    inside: Bool[np.ndarray, "*axes"], spacing_mm: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "*axes"]:
    """Distances in mm from centres inside to the surface, half a voxel before the nearest centre that is empty.

    Half of a voxel as it is in that direction: of thick slices it is many times as long across as along them.
    """
    if np.ptp(spacing_mm) == 0:
        return np.sqrt(squared_distance(inside, spacing_mm)) - float(spacing_mm[0]) / 2
    squares, nearest = nearest_empty(inside, spacing_mm)
    steps = np.zeros(inside.shape)  # squared distances to the same centres, in voxels
    for axis in reversed(range(inside.ndim)):
        count = inside.shape[axis]
        own = np.arange(count).reshape(-1, *(1,) * (inside.ndim - 1 - axis))
        steps += np.square(nearest % count - own)
        nearest = nearest // count
    return np.sqrt(squares) * (1 - 0.5 / np.sqrt(np.maximum(steps, 1)))


def stairs_of(occupancy: Bool[np.ndarray, "x y z"]) -> Stairs | None:
    """Thick slices that were repeated on thinner ones; None where most slices differ."""
    found = [_stairs(occupancy, axis) for axis in range(3)]
    steep = [one for one in found if one is not None]
    return max(steep, key=lambda one: one.apart, default=None)


def _stairs(occupancy: Bool[np.ndarray, "x y z"], axis: int) -> Stairs | None:
    planes = np.moveaxis(occupancy, axis, 0)
    used = np.asarray(planes.any((1, 2)))
    if used.sum() < FEWEST:
        return None
    same = [used[k] and np.array_equal(planes[k], planes[k + 1]) for k in range(len(planes) - 1)]
    if sum(same) < REPEATED * used.sum():
        return None
    cuts = [0, *(k + 1 for k, one in enumerate(same) if not one), len(planes)]
    runs = tuple((first, last) for first, last in pairwise(cuts) if used[first])
    apart = float(np.median([last - first for first, last in runs]))
    return Stairs(axis, runs, apart) if len(runs) >= FEWEST else None


def without_stairs(
    occupancy: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, "3"], stairs: Stairs
) -> Bool[np.ndarray, "x y z"]:
    """The mask with its outline interpolated between the slices that were drawn, the middles of the runs.

    An end of the organ closes halfway to where the next slice would have been drawn, but where the volume ends. What is
    thin in a slice would vanish right beside it, so it stays as it was drawn.
    """
    planes = np.moveaxis(occupancy, stairs.axis, 0)
    out = np.zeros_like(planes)
    rows, columns = (np.flatnonzero(planes.any(axes)) for axes in ((0, 2), (0, 1)))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    across_mm, gap_mm = np.delete(spacing_mm, stairs.axis), stairs.apart * spacing_mm[stairs.axis]
    for runs in _together(stairs.runs):
        # What is in one slice and not in the next ends halfway between them, however far the next one's outline is.
        inner = [depths(planes[k][window], across_mm) for k, _ in runs]
        drawn = [np.clip(depth, -gap_mm, gap_mm) for depth in inner]
        each = [_middles(run, stairs.apart) for run in runs]
        drawn = [depth for depth, own in zip(drawn, each, strict=True) for _ in own]
        middles = [middle for own in each for middle in own]
        places = [middles[0] - stairs.apart, *middles, middles[-1] + stairs.apart]
        open_ends = runs[0][0] == 0, runs[-1][1] == len(planes)
        ends = [
            drawn[k] if is_open else np.full_like(drawn[k], -drawn[k].max())
            for k, is_open in zip((0, -1), open_ends, strict=True)
        ]
        out[(slice(None), *window)] |= between_slices([ends[0], *drawn, ends[1]], places, range(len(planes)))
        thin_mm = THIN * max(float(depth.max()) for depth in inner)
        for (first, last), depth in zip(runs, inner, strict=True):
            out[(slice(first, last), *window)] |= thin_part(depth, across_mm, thin_mm)
    return np.moveaxis(out, 0, stairs.axis)


def _middles(run: tuple[int, int], apart: float) -> list[float]:
    """Middle of the slice that a run repeats, or of its first and last one where several were drawn alike."""
    first, last = run
    if last - first <= apart:
        return [(first + last - 1) / 2]
    return [first + (apart - 1) / 2, last - (apart + 1) / 2]


def thin_part(
    depth_mm: Float[np.ndarray, "*axes"], spacing_mm: Float[np.ndarray, " n"], radius_mm: float
) -> Bool[np.ndarray, "*axes"]:
    """Where no ball of a radius fits within what has these depths; nothing where no ball fits at all."""
    core = depth_mm >= radius_mm
    if not core.any():
        return core
    return (depth_mm > 0) & (depths(core, spacing_mm) <= -radius_mm)


def _together(runs: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Runs with no empty plane between them: the pieces of an organ are interpolated one by one."""
    found = [[runs[0]]]
    for before, run in pairwise(runs):
        if before[1] != run[0]:
            found.append([])
        found[-1].append(run)
    return found


def between_slices(
    depths_mm: Sequence[Float[np.ndarray, "x y"]], places: Sequence[float], wanted: Sequence[int]
) -> Bool[np.ndarray, "k x y"]:
    """Slices at the wanted places: signed distances, interpolated (Raya and Udupa, IEEE TMI 1990); nothing beyond.

    Args:
        depths_mm: of slices that were drawn, positive inside.
        places: where these lie, ascending.
        wanted: where slices are wanted.
    """
    out = np.zeros((len(wanted), *depths_mm[0].shape), bool)
    for row, place in enumerate(wanted):
        if places[0] <= place <= places[-1]:
            last = int(np.searchsorted(places, place))
            first = max(last - 1, 0)
            share = (place - places[first]) / ((places[last] - places[first]) or 1)
            out[row] = (1 - share) * depths_mm[first] + share * depths_mm[last] > 0
    return out


def smoothed(
    occupancy: Bool[np.ndarray, "x y z"], like: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, "3"]
) -> Bool[np.ndarray, "x y z"]:
    """The mask, smoothed as much as it is rougher than a smooth shape `like` it on the same grid."""
    depth, inner, window = _around(occupancy, spacing_mm)
    excess = _roughness(depth, spacing_mm) - roughness(like, spacing_mm)
    if excess < ROUGH:
        return occupancy
    move = _moves(depth, spacing_mm, SMOOTHNESS * excess)
    most = AT_MOST * float(np.sqrt(np.square(move[_near(depth, spacing_mm)]).mean()))
    out = occupancy.copy()
    out[window] = (depth - np.clip(move, -most, most) > 0)[inner]
    return out


def roughness(occupancy: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, "3"]) -> float:
    """Median distance that smoothing moves a mask's surface, in voxels; 0 of an empty mask."""
    return _roughness(_around(occupancy, spacing_mm)[0], spacing_mm) if occupancy.any() else 0.0


def _roughness(depth: Float[np.ndarray, "i j k"], spacing_mm: Float[np.ndarray, "3"]) -> float:
    moves = _moves(depth, spacing_mm, SCALE)[_near(depth, spacing_mm)]
    return float(np.median(np.abs(moves)) / spacing_mm.mean())


def _around(
    occupancy: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "i j k"], tuple[slice, ...], tuple[slice, ...]]:
    """Depths around an organ, what part of them lies in the volume, and where in it.

    Beyond the volume the organ goes on as it reaches its end.
    """
    margin = np.ceil(FAR * spacing_mm.mean() / spacing_mm).astype(int)
    window = tuple(
        slice(max(where.min() - more, 0), where.max() + more + 1)
        for where, more in zip(np.nonzero(occupancy), margin, strict=True)
    )
    padded = np.pad(occupancy[window], [(more, more) for more in margin], mode="edge")
    return depths(padded, spacing_mm), tuple(slice(more, -more) for more in margin), window


def _moves(
    depth: Float[np.ndarray, "i j k"], spacing_mm: Float[np.ndarray, "3"], voxels: float
) -> Float[np.ndarray, "i j k"]:
    """By how much a Gaussian of so many voxels changes depths, in mm."""
    return depth - gaussian_filter(depth, voxels * spacing_mm.mean() / spacing_mm)


def _near(depth: Float[np.ndarray, "i j k"], spacing_mm: Float[np.ndarray, "3"]) -> Bool[np.ndarray, "i j k"]:
    return np.abs(depth) < spacing_mm.max()
