"""What the readers return: label maps and masks with their grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer

from implicit_atlas.io.voxel_grid import Grid


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A volume of whole-number labels.

    Args:
        values: label of every voxel, in the file's own axis order.
        grid: the volume's voxel grid (RAS mm).
        path: the file that was read.
        dtype: the voxels' type in the file.
        notes: repairs made and doubts found while reading, each a sentence without its full stop.
    """

    values: Integer[np.ndarray, "x y z"]
    grid: Grid
    path: Path
    dtype: np.dtype
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Mask:
    """An organ as occupied voxels.

    Args:
        occupancy: whether each voxel belongs to the organ, in the file's own axis order; never empty.
        grid: the volume's voxel grid (RAS mm).
        path: the file that was read.
        labels: the label ids that were asked for; empty for everything above 0.
        dtype: the voxels' type in the file.
        notes: repairs made and doubts found while reading, each a sentence without its full stop.
    """

    occupancy: Bool[np.ndarray, "x y z"]
    grid: Grid
    path: Path
    labels: tuple[int, ...]
    dtype: np.dtype
    notes: tuple[str, ...] = ()
