"""What poor annotation does to training masks: noisy labels, incomplete borders, thick slices; three strengths each.

The organ is changed on its own grid, in millimetres, always in the same way for the same case, and then prepared in the
frame of the clean organ, so that clean and noisy shapes lie on one lattice. What leaves the clean organ's box is lost.

- label-1, -2, -3: the outline is moved in and out along its normal, by 0.5, 1, 2 mm rms. Half of the variance is a
  Gaussian field that is smooth over 4 mm in all directions, half one that is drawn anew in every slice, as by hand.
- border-1, -2, -3: a cap of 5, 10, 20 % of the organ's volume is cut off, by a plane of random direction.
- slices-1, -2, -3: only slices at least 3, 5, 8 mm apart are kept, and repeated (nearest neighbour). At least three
  of them pass through the organ: where it is thinner, they stand closer.

Slices lie across the grid's coarsest axis; where spacings are equal, across the organ's longest one. The random numbers
of a case are those of its name and of the kind, so that a stronger change is more of the same one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt, gaussian_filter

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.geometry.resample import cubic_axis, resample
from implicit_atlas.shapes.shape import Shape, restore

STRENGTHS: dict[str, tuple[float, ...]] = {
    "label": (0.5, 1.0, 2.0),  # mm rms
    "border": (0.05, 0.1, 0.2),  # of the volume
    "slices": (3.0, 5.0, 8.0),  # mm
}
NOISES = tuple(f"{kind}-{strength}" for kind in STRENGTHS for strength in (1, 2, 3))
SMOOTH_MM = 4.0
CORE = 0.8  # of the largest depth: no noise moves the outline through what lies deeper, so that no organ vanishes
PAD_MM = 12.0
MIN_SLICES = 3
VERSION = 1  # to be raised with every change of what the numbers above mean: results are kept under it

Occupancy = Bool[np.ndarray, "x y z"]


@lru_cache(maxsize=512)
def corrupted(shape: Shape, noise: str) -> Shape:
    """The shape as a poor annotation would give it; the shape itself where `noise` is empty.

    Args:
        shape: a clean shape in the paper's frame.
        noise: one of `NOISES`.

    Returns:
        a shape of the same name and frame, with a content hash of its own.

    Raises:
        InputError: there is no such noise.
    """
    if not noise:
        return shape
    kind, strength = _parsed(noise)
    grid, box = shape.frame.grid.canonical, shape.frame.voxel_window()
    spacing_mm = grid.spacing_mm
    pad = [math.ceil(PAD_MM / size) for size in spacing_mm]
    clean = np.pad(shape.frame.grid.to_canonical(restore(shape))[box], [(n, n) for n in pad])
    poor = corrupt(clean, spacing_mm, noise, shape.name)
    inner = tuple(slice(n, size - n) for n, size in zip(pad, poor.shape, strict=True))
    content: list[Any] = [shape.content_hash, shape.name, kind, strength, VERSION]
    return dataclasses.replace(
        shape,
        packed=np.packbits(in_frame(poor[inner], shape.frame)),
        content_hash=hashlib.sha256(repr(content).encode()).hexdigest(),
        notes=(*shape.notes, f"changed on purpose: {noise}"),
    )


def corrupt(clean: Occupancy, spacing_mm: Float[np.ndarray, "3"], noise: str, name: str) -> Occupancy:
    """A changed copy of an organ.

    Args:
        clean: the organ, with background around it; not changed.
        spacing_mm: of its grid.
        noise: one of `NOISES`.
        name: of the case; decides the random numbers.
    """
    kind, strength = _parsed(noise)
    seed = hashlib.sha256(f"{name} {kind}".encode()).digest()[:8]
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    return {"label": move_outline, "border": cut_cap, "slices": keep_slices}[kind](
        clean, spacing_mm, strength, rng
    )


def move_outline(
    clean: Occupancy, spacing_mm: Float[np.ndarray, "3"], rms_mm: float, rng: np.random.Generator
) -> Occupancy:
    """Move the outline along its normal by a random field; see the top of this file."""
    # Half a voxel, because the outline lies between the voxels that the two transforms measure to.
    half_mm = float(spacing_mm.min()) / 2
    inner = np.asarray(distance_transform_edt(clean, sampling=spacing_mm)) - half_mm
    outer = np.asarray(distance_transform_edt(~clean, sampling=spacing_mm)) - half_mm
    depth_mm = np.where(clean, inner, -outer)
    sigma = SMOOTH_MM / spacing_mm
    within = np.where(np.arange(3) == slice_axis(clean, spacing_mm), 0.0, sigma)
    fields = [gaussian_filter(rng.normal(size=clean.shape), width) for width in (sigma, within)]
    shift_mm = rms_mm * sum(field / field.std() for field in fields) / math.sqrt(2)
    return (depth_mm + shift_mm > 0) | (depth_mm >= CORE * depth_mm.max())


def cut_cap(
    clean: Occupancy, spacing_mm: Float[np.ndarray, "3"], fraction: float, rng: np.random.Generator
) -> Occupancy:
    """Cut off this fraction of the organ's voxels, those farthest in a random direction."""
    direction = rng.normal(size=3)
    voxels = np.argwhere(clean)
    height = (voxels * spacing_mm) @ direction
    removed = voxels[np.argsort(height, kind="stable")[len(voxels) - round(fraction * len(voxels)) :]]
    out = clean.copy()
    out[tuple(removed.T)] = False
    return out


def keep_slices(
    clean: Occupancy, spacing_mm: Float[np.ndarray, "3"], apart_mm: float, rng: np.random.Generator
) -> Occupancy:
    """Keep every k-th slice, from a random one on, and give the others the outline of the nearest one."""
    axis = slice_axis(clean, spacing_mm)
    size, extent = clean.shape[axis], _extent(clean)[axis]
    every = max(1, min(math.ceil(apart_mm / spacing_mm[axis] - 1e-3), int(extent) // MIN_SLICES))
    phase = rng.random()  # a share of k, so that it means the same for all k
    kept = np.arange(int(phase * every), size, every)
    nearest = kept[np.abs(np.arange(size)[:, None] - kept).argmin(1)]
    return np.take(clean, nearest, axis)


def slice_axis(clean: Occupancy, spacing_mm: Float[np.ndarray, "3"]) -> int:
    """The axis that slices lie across: the coarsest, and among equal ones the organ's longest."""
    length_mm = _extent(clean) * spacing_mm
    return max(range(3), key=lambda axis: (round(float(spacing_mm[axis]), 2), length_mm[axis]))


def in_frame(occupancy: Bool[np.ndarray, "a b c"], frame: Frame) -> Bool[np.ndarray, "r r r"]:
    """An organ on the lattice of another's frame, as `prepare` resamples it.

    Args:
        occupancy: voxels of the frame's window, in canonical axis order.
        frame: made of a box, without margin.
    """
    window = frame.voxel_window()
    axes = [
        cubic_axis(size, float(first) - around.start, float(step), frame.resolution)
        for size, first, around, step in zip(occupancy.shape, frame.start, window, frame.step, strict=True)
    ]
    return resample(occupancy, axes, threshold=0.5)


def _extent(occupancy: Occupancy) -> np.ndarray:
    """Slices from the first to the last occupied one, per axis."""
    where = np.argwhere(occupancy)
    return where.max(0) - where.min(0) + 1


def _parsed(noise: str) -> tuple[str, float]:
    """Kind of a noise and its strength in the kind's unit."""
    if noise not in NOISES:
        raise InputError(f"noise {noise!r}", "is not known", f"Choose one of: {', '.join(NOISES)}.")
    kind, strength = noise.split("-")
    return kind, STRENGTHS[kind][int(strength) - 1]
