"""What annotation does to organs (Figure 2 of the paper): noisy borders, thick slices, cropped ends."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt, gaussian_filter

NOISE_WIDTH_VOXELS = 1.2


def add_label_noise(
    occupancy: Bool[np.ndarray, "x y z"], strength_voxels: float, rng: np.random.Generator
) -> Bool[np.ndarray, "x y z"]:
    """Move the border in and out at random.

    Args:
        occupancy: the clean organ.
        strength_voxels: standard deviation of the border's shift; 0 changes nothing.
        rng: where the noise comes from.
    """
    # Half a voxel, because the border lies between the voxels that the two transforms measure to.
    inner = np.asarray(distance_transform_edt(occupancy)) - 0.5
    outer = np.asarray(distance_transform_edt(~occupancy)) - 0.5
    depth = np.where(occupancy, inner, -outer)
    noise = gaussian_filter(rng.normal(size=occupancy.shape), NOISE_WIDTH_VOXELS)
    return depth + strength_voxels * noise / noise.std() > 0


def merge_slices(occupancy: Bool[np.ndarray, "x y z"], thickness: int) -> Bool[np.ndarray, "x y z"]:
    """Give every `thickness` neighbouring slices along the last axis the outline of their middle one."""
    slices = np.arange(occupancy.shape[2])
    middle = slices - slices % thickness + thickness // 2
    return occupancy[..., np.minimum(middle, len(slices) - 1)]


def crop_border(
    occupancy: Bool[np.ndarray, "x y z"], fraction: float, rng: np.random.Generator
) -> Bool[np.ndarray, "x y z"]:
    """Empty a fraction of the organ's extent on a random side, as where a scan ends."""
    axis, from_start = int(rng.integers(3)), bool(rng.integers(2))
    along = np.moveaxis(occupancy, axis, 0)
    occupied = np.flatnonzero(along.any(axis=(1, 2)))
    removed = round(fraction * len(occupied))
    cropped = along.copy()
    if removed:
        cropped[occupied[:removed] if from_start else occupied[-removed:]] = False
    return np.moveaxis(cropped, 0, axis)
