"""Polygons and triangle strips, given as offsets and corners, as triangles."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Int64

Cells = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]
"""Where each cell starts in the row of all corners (and where the last ends), and that row."""


def triangles_of(polygons: Cells | None, strips: Cells | None, n_vertices: int) -> Int64[np.ndarray, "f 3"]:
    """Return polygons (split into fans) and strips as triangles.

    Raises:
        ValueError: offsets out of order, or a vertex that does not exist.
    """
    faces = [np.zeros((0, 3), np.int64)]
    if polygons is not None and len(polygons[0]):
        faces.append(_fans(*_checked(polygons, n_vertices)))
    if strips is not None and len(strips[0]):
        faces.append(_strip_triangles(*_checked(strips, n_vertices)))
    return np.concatenate(faces)


def _checked(cells: Cells, n_vertices: int) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]]:
    """Return the cells as 64-bit integers, once offsets and vertices are known to exist."""
    offsets, corners = cells[0].astype(np.int64), cells[1].astype(np.int64)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(corners):
        raise ValueError("faces with corners that do not exist")
    if len(corners) and (corners.min() < 0 or corners.max() >= n_vertices):
        raise ValueError("faces with vertices that do not exist")
    return offsets, corners


def _fans(offsets: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return every polygon (0, 1, ..., n-1) as (0, 1, 2), (0, 2, 3), ..."""
    n_triangles = np.maximum(np.diff(offsets) - 2, 0)
    first = np.repeat(offsets[:-1], n_triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(n_triangles) - n_triangles, n_triangles)
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], axis=1)


def _strip_triangles(offsets: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return every strip (0, 1, 2, 3, ...) as (0, 1, 2), (2, 1, 3), ...: each second one turned."""
    n_triangles = np.maximum(np.diff(offsets) - 2, 0)
    first = np.repeat(offsets[:-1], n_triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(n_triangles) - n_triangles, n_triangles)
    a, b, c = (corners[first + step + corner] for corner in range(3))
    turned = step % 2 == 1
    return np.stack([np.where(turned, b, a), np.where(turned, a, b), c], axis=1)
