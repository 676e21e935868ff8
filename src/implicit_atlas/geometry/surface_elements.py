"""Area of the marching-cubes surface inside each of the 256 binary 2x2x2 neighbourhoods, case by case.

The areas agree with those of DeepMind's surface-distance, which fixes three choices that marching cubes
leaves open: a neighbourhood and its complement have the same surface; where a face is ambiguous, the fewer
of the two kinds of corners are kept apart; a bent loop is split into the triangles of largest total area on
the unit cube.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float, Int, UInt8

Corner = tuple[int, int, int]
Edge = tuple[Corner, Corner]
Triangle = tuple[int, int, int]

CORNERS: tuple[Corner, ...] = tuple((x, y, z) for x, y, z in product((0, 1), repeat=3))


def neighbourhood_codes(occupancy: np.ndarray) -> UInt8[np.ndarray, "x1 y1 z1"]:
    """Code of the 2x2x2 neighbourhood around every voxel corner.

    Args:
        occupancy: bool (x, y, z); outside of it is empty.

    Returns:
        uint8 (x+1, y+1, z+1): entry (i, j, k) is the corner between voxels i-1 and i (so on along the other
        axes), 0 where all eight voxels are empty and 255 where all are full. Voxel (a, b, c) of the
        neighbourhood has bit 7 - (4a + 2b + c).
    """
    codes = np.pad(np.ascontiguousarray(occupancy, dtype=bool).view(np.uint8), 1)
    codes = (codes[:-1] << 4) | codes[1:]
    codes = (codes[:, :-1] << 2) | codes[:, 1:]
    return (codes[:, :, :-1] << 1) | codes[:, :, 1:]


@lru_cache(maxsize=64)
def surface_areas(spacing_mm: tuple[float, float, float]) -> Float[np.ndarray, "256"]:
    """Surface area in mm^2 inside each 2x2x2 neighbourhood, by code, for voxels of the given spacing."""
    codes, normals = _triangle_normals()
    sx, sy, sz = spacing_mm
    areas = np.linalg.norm(normals * np.array([sy * sz, sx * sz, sx * sy]), axis=1)
    table = np.bincount(codes, weights=areas, minlength=256)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=1)
def _triangle_normals() -> tuple[Int[np.ndarray, " t"], Float[np.ndarray, "t 3"]]:
    """Code and area vector (half the cross product) of every triangle of the 256 cases, at unit spacing."""
    codes, normals = [], []
    for code in range(256):
        for loop in _surface_loops(_minority(code)):
            triangles = _largest_triangulation(loop)
            codes += [code] * len(triangles)
            normals.append(triangles)
    return np.array(codes), np.concatenate(normals)


def _minority(code: int) -> frozenset[Corner]:
    """The full corners of a neighbourhood, or its empty ones where those are fewer."""
    full = frozenset(corner for bit, corner in enumerate(CORNERS) if code >> (7 - bit) & 1)
    return full if len(full) <= 4 else frozenset(CORNERS) - full


def _adjacent(a: Corner, b: Corner) -> bool:
    return sum(abs(i - j) for i, j in zip(a, b, strict=True)) == 1


def _surface_loops(corners: frozenset[Corner]) -> Iterable[Float[np.ndarray, "n 3"]]:
    """The closed loops of edge midpoints, one around each edge-connected group of corners."""
    left = set(corners)
    while left:
        group, frontier = set(), [min(left)]
        while frontier:
            corner = frontier.pop()
            group.add(corner)
            frontier += [other for other in left - group if _adjacent(corner, other)]
        left -= group
        yield _loop_around(group)


def _loop_around(group: set[Corner]) -> Float[np.ndarray, "n 3"]:
    """Midpoints of the cube edges that leave the group, ordered: consecutive edges share a cube face."""
    cut: list[Edge] = [(a, b) for a in sorted(group) for b in CORNERS if b not in group and _adjacent(a, b)]
    loop = [cut.pop(0)]
    while cut:
        following = next(edge for edge in cut if _share_face(loop[-1], edge))
        cut.remove(following)
        loop.append(following)
    return np.array([(np.array(a) + np.array(b)) / 2 for a, b in loop])


def _share_face(first: Edge, second: Edge) -> bool:
    """True if all corners of the two edges have one coordinate in common."""
    return any(len(set(values)) == 1 for values in zip(*first, *second, strict=True))


def _largest_triangulation(loop: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "t 3"]:
    """Area vectors of the triangles of the split of a loop that has the largest total area."""
    a, b, c = np.moveaxis(loop[np.array(_triangulations(0, len(loop) - 1))], 2, 0)
    vectors = np.cross(b - a, c - a) / 2
    return vectors[np.linalg.norm(vectors, axis=2).sum(axis=1).argmax()]


def _triangulations(first: int, last: int) -> list[list[Triangle]]:
    """Every way to split the polygon first, first + 1, ..., last into triangles of vertex indices."""
    if last - first < 2:
        return [[]]
    return [
        [*before, *after, (first, apex, last)]
        for apex in range(first + 1, last)
        for before in _triangulations(first, apex)
        for after in _triangulations(apex, last)
    ]
