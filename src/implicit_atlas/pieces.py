"""The pieces of an organ: which are its own, and which are islands or strays."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from implicit_atlas.io.voxelise import PIECE


def largest_pieces(
    occupancy: Bool[np.ndarray, "x y z"], most: int = 1
) -> tuple[Bool[np.ndarray, "x y z"], int]:
    """A mask's largest pieces, and how many they are: at most so many, none below `PIECE` of the largest.

    Voxels that share a corner are connected. The array is a new one.
    """
    labels, count = ndimage.label(occupancy, structure=np.ones((3, 3, 3)))  # pyright: ignore
    if count <= 1:
        return occupancy.copy(), count
    sizes = np.bincount(labels.ravel())[1:]
    kept = [
        label for label in np.argsort(-sizes, kind="stable")[:most] if sizes[label] >= PIECE * sizes.max()
    ]
    return np.isin(labels, np.array(kept) + 1), len(kept)


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
