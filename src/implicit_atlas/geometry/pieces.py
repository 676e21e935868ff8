"""The pieces of an organ: which are its own, and which are islands or strays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from implicit_atlas.geometry.distance import nearest_empty
from implicit_atlas.io.voxelise import PIECE

SPECK = 8  # nodes of a lattice: what is smaller, inside or outside, is no part of an organ and no hole in it


THICK = 2.0  # times as far apart as voxels within a slice: slices of an organ that runs at an angle may not overlap


def largest_pieces(
    occupancy: Bool[np.ndarray, "x y z"], most: int = 1, spacing_mm: Float[np.ndarray, "3"] | None = None
) -> tuple[Bool[np.ndarray, "x y z"], int]:
    """A mask's largest pieces, and how many they are: at most so many, none below `PIECE` of the largest.

    Voxels that share a corner are connected; where spacings are given and slices are thick, so are places in
    neighbouring slices that lie as near to each other within them as slices are thick. The array is a new one.
    """
    labels, count = ndimage.label(occupancy, structure=np.ones((3, 3, 3)))  # pyright: ignore
    if count > 1 and spacing_mm is not None and np.sort(spacing_mm)[2] > THICK * np.sort(spacing_mm)[1]:
        labels, count = _joined(labels, count, spacing_mm)
    if count <= 1:
        return occupancy.copy(), count
    sizes = np.bincount(labels.ravel())[1:]
    kept = [
        label for label in np.argsort(-sizes, kind="stable")[:most] if sizes[label] >= PIECE * sizes.max()
    ]
    return np.isin(labels, np.array(kept) + 1), len(kept)


def _joined(
    labels: Int[np.ndarray, "x y z"], count: int, spacing_mm: Float[np.ndarray, "3"]
) -> tuple[Int[np.ndarray, "x y z"], int]:
    """Labels of pieces, with those of neighbouring slices made one that lie near to each other."""
    across, thick_mm = int(spacing_mm.argmax()), float(spacing_mm.max())
    planes, within_mm = np.moveaxis(labels, across, 0), np.delete(spacing_mm, across)
    pairs = [np.zeros((0, 2), int)]
    for below, above in pairwise(planes):
        if not (below.any() and above.any()) or np.array_equal(below, above):
            continue
        squares, nearest = nearest_empty(below == 0, within_mm)
        near = (above > 0) & (squares <= thick_mm**2)
        pairs.append(np.unique(np.stack([below.ravel()[nearest][near], above[near]], axis=1), axis=0))
    first, second = np.concatenate(pairs).T - 1
    joins = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    whole, owner = connected_components(joins, directed=False)
    return np.concatenate([[0], owner + 1])[labels], int(whole)


def without_strays(
    values: Float[np.ndarray, "x y z"], seen: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z"]:
    """A field without those of its pieces above 0 that nowhere meet a mask; as it is where none does.

    A field that is read through a deformation may hold a fold's copy of a part, beside it.
    """
    labels: np.ndarray = np.asarray(ndimage.label(values > 0, structure=np.ones((3, 3, 3)))[0])  # pyright: ignore
    met = np.zeros(labels.max() + 1, dtype=bool)
    met[labels[seen]] = True
    met[0] = False
    if not met.any() or met[1:].all():
        return values
    return np.where((labels > 0) & ~met[labels], -values, values)


def without_specks(values: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """A field whose sign is turned in specks: pieces above 0 of fewer than `SPECK` nodes, and pockets as small.

    Nodes that share a face are connected, as surfaces between nodes connect them. The largest piece stays.
    """
    for sign in (-1, 1):  # pockets first
        labels: np.ndarray = np.asarray(ndimage.label(sign * values > 0)[0])  # pyright: ignore
        sizes = np.bincount(labels.ravel())
        if len(sizes) <= 2:
            continue
        small = sizes < SPECK
        small[[0, 1 + int(sizes[1:].argmax())]] = False
        if small.any():
            values = np.where(small[labels], -values, values)
    return values
