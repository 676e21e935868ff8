"""Frames: the exact affine maps between an organ's cube [-1, 1]^3, its voxels and world millimetres (RAS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from implicit_atlas.errors import InputError
from implicit_atlas.io.voxel_grid import Grid, frozen
from implicit_atlas.support import records

FrameKind = Literal["box", "isotropic"]
Box = tuple[slice, slice, slice]
_Row = tuple[float, float, float, float]
_Point = tuple[float, float, float]
MAX_RESOLUTION = 1024
MAX_MARGIN = 4.0

FRAME_REMEDY = "Prepare the shape again."


@dataclass(frozen=True, eq=False)
class Frame:
    """Where an organ's cube lies on its grid.

    The cube's axes are the array axes put in canonical order, the nearest to right, anterior and superior, so
    that files stored in different axis orders give the same cube (nibabel calls this "closest canonical").
    The cube's lattice is cell-centred: node i of an axis sits at u = -1 + (2 i + 1) / resolution, which is
    canonical voxel index start + step * i.

    Args:
        grid: the original volume's grid, in the file's own axis order.
        start: canonical voxel index of node 0, per axis.
        step: voxels from one node to the next, per axis.
        resolution: nodes per axis.
        kind: "box" (each axis stretched to the cube) or "isotropic" (one scale in mm for all axes).
        margin: empty border, as a fraction of the organ's box, added on each side.
        mirrored: the cube's first axis runs to the left, so that a left organ looks like a right one.
    """

    grid: Grid
    start: Float[np.ndarray, "3"]
    step: Float[np.ndarray, "3"]
    resolution: int
    kind: FrameKind
    margin: float
    mirrored: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", frozen(self.start))
        object.__setattr__(self, "step", frozen(self.step))
        check_frame_options(self.resolution, self.margin, self.kind)
        if self.start.shape != (3,) or not np.isfinite(self.start).all():
            raise InputError("frame", "start is not three finite numbers", FRAME_REMEDY)
        if self.step.shape != (3,) or not (np.isfinite(self.step) & (self.step > 0)).all():
            raise InputError("frame", "step is not three positive numbers", FRAME_REMEDY)

    @cached_property
    def _scale(self) -> Float[np.ndarray, "3"]:
        """Voxels per cube unit; negative along an axis that is turned round."""
        return self.step * (self.resolution / 2) * ((-1, 1, 1) if self.mirrored else (1, 1, 1))

    @cached_property
    def _centre(self) -> Float[np.ndarray, "3"]:
        """Voxel index of the cube's centre."""
        return self.start + self.step * ((self.resolution - 1) / 2)

    @cached_property
    def affine_cube_to_world(self) -> Float[np.ndarray, "4 4"]:
        """The 4 x 4 matrix from cube coordinates to RAS millimetres."""
        cube_to_voxel = np.diag([*self._scale, 1.0])
        cube_to_voxel[:3, 3] = self._centre
        return frozen(self.grid.canonical.affine @ cube_to_voxel)

    @cached_property
    def affine_world_to_cube(self) -> Float[np.ndarray, "4 4"]:
        """The 4 x 4 matrix from RAS millimetres to cube coordinates."""
        return frozen(np.linalg.inv(self.affine_cube_to_world))

    @property
    def lattice_spacing_mm(self) -> Float[np.ndarray, "3"]:
        """Distance in mm between neighbouring nodes, per axis."""
        return self.step * self.grid.canonical.spacing_mm

    def cube_to_voxel(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map cube coordinates (..., 3) to voxel indices of the original grid, in the file's axis order."""
        return _apply(self.grid.canonical_to_file, points * self._scale + self._centre)

    def voxel_to_cube(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map voxel indices (..., 3) of the original grid, in the file's axis order, to cube coordinates."""
        return self.canonical_to_cube(_to_canonical(self.grid, points))

    def canonical_to_cube(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map canonical voxel indices (..., 3) to cube coordinates."""
        return (points - self._centre) / self._scale

    def cube_to_world(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map cube coordinates (..., 3) to RAS millimetres."""
        return _apply(self.affine_cube_to_world, points)

    def world_to_cube(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map RAS millimetres (..., 3) to cube coordinates."""
        return _apply(self.affine_world_to_cube, points)

    def voxel_window(self) -> Box:
        """Return the voxels whose centres lie between the first and last node of every axis, canonical.

        With a "box" frame at margin 0 this is exactly the organ's bounding box.
        """
        tolerance_voxels = 1e-6
        last = self.start + self.step * (self.resolution - 1)
        lower = np.maximum(np.ceil(self.start - tolerance_voxels), 0).astype(int)
        upper = np.minimum(np.floor(last + tolerance_voxels), np.array(self.grid.canonical.shape) - 1).astype(
            int
        )
        i, j, k = (
            slice(int(low), max(int(low), int(high) + 1)) for low, high in zip(lower, upper, strict=True)
        )
        return i, j, k

    def to_json(self) -> dict[str, Any]:
        """Return the frame as JSON values; `from_json` gives back the same numbers, bit for bit."""
        values = {
            "shape": list(self.grid.shape),
            "affine": self.grid.affine.tolist(),
            "start": self.start.tolist(),
            "step": self.step.tolist(),
            "resolution": self.resolution,
            "kind": self.kind,
            "margin": self.margin,
        }
        return {**values, "mirrored": True} if self.mirrored else values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str | Path = "frame") -> Frame:
        """Build a frame from what `to_json` returned; `source` is named in errors.

        Raises:
            InputError: a key is missing or unknown, or a value cannot be.
        """
        if isinstance(values, Mapping):  # frames of one side do not say so
            values = {"mirrored": False, **values}
        record = records.from_json(_FrameRecord, values, source, FRAME_REMEDY)
        try:
            grid = Grid(record.shape, np.array(record.affine))
            start, step = np.array(record.start), np.array(record.step)
            return cls(grid, start, step, record.resolution, record.kind, record.margin, record.mirrored)
        except InputError as error:
            raise InputError(source, f"{error.source} {error.problem}", FRAME_REMEDY) from error


@dataclass(frozen=True)
class _FrameRecord:
    """A frame as JSON values."""

    shape: tuple[int, int, int]
    affine: tuple[_Row, _Row, _Row, _Row]
    start: _Point
    step: _Point
    resolution: int
    kind: FrameKind
    margin: float
    mirrored: bool


def bounding_box(occupancy: Bool[np.ndarray, "x y z"], grid: Grid) -> Box:
    """Return the smallest box of voxels that holds the organ, in canonical axis order.

    Raises:
        InputError: an empty mask, or a shape that differs from the grid's.
    """
    if occupancy.shape != grid.shape:
        problem = f"shape {occupancy.shape} differs from its grid's {grid.shape}"
        raise InputError("mask", problem, "Give the mask together with its own grid.")
    box = occupied_box(occupancy)
    if box[0].stop == 0:
        raise InputError("mask", "is empty", "Choose a label that occurs, or leave the case out.")
    corners = np.array([[axis.start, axis.stop - 1] for axis in box], np.float64).T
    first, last = np.sort(_to_canonical(grid, corners), axis=0).round().astype(int)
    i, j, k = (slice(int(low), int(high) + 1) for low, high in zip(first, last, strict=True))
    return i, j, k


def occupied_box(occupancy: Bool[np.ndarray, "x y z"]) -> Box:
    """The smallest box that holds every occupied voxel, in the array's own order; of no voxel where it is empty."""
    box = [slice(None)] * 3
    # The axis that lies together in memory goes first: the other two then look at a plane and at a crop.
    for axis in np.argsort(np.abs(occupancy.strides)):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(occupancy[tuple(box)].any(axis=others))
        if occupied.size == 0:
            return slice(0, 0), slice(0, 0), slice(0, 0)
        box[axis] = slice(int(occupied[0]), int(occupied[-1]) + 1)
    return box[0], box[1], box[2]


def frame_of_box(
    box: Box, grid: Grid, resolution: int = 128, margin: float = 0.0, kind: FrameKind = "box"
) -> Frame:
    """Return the frame of a box of voxels, given in canonical axis order.

    Kind "box" at margin 0 is the paper's: node 0 is the centre of the box's first voxel and node R - 1 that
    of its last, as in `scipy.ndimage.zoom`; an axis one voxel thick gives that voxel the whole cube. Kind
    "isotropic" takes the coarsest of these steps, in mm, for all axes, about the box's centre.

    Raises:
        InputError: an option out of range.
    """
    check_frame_options(resolution, margin, kind)
    first = np.array([axis.start for axis in box], np.float64)
    last = np.array([axis.stop - 1 for axis in box], np.float64)
    width = last - first + 1
    border = margin * width
    step = np.where(width > 1, (width - 1 + 2 * border) / (resolution - 1), (1 + 2 * border) / resolution)
    centred_start = (first + last - step * (resolution - 1)) / 2
    start = np.where(width > 1, first - border, centred_start)
    if kind == "isotropic":
        spacing_mm = grid.canonical.spacing_mm
        step = (step * spacing_mm).max() / spacing_mm
        start = (first + last - step * (resolution - 1)) / 2
    return Frame(grid, start, step, resolution, kind, float(margin))


def centred_frame(
    size_mm: Float[np.ndarray, "3"], resolution: int, kind: FrameKind = "box", margin: float = 0.0
) -> Frame:
    """Return the frame of a cube of this size about the origin, along the axes of the world: for shapes without a scan.

    Its grid is the cube's lattice.
    """
    step_mm = np.asarray(size_mm, np.float64) / resolution
    affine = np.diag([*step_mm, 1.0])
    affine[:3, 3] = -step_mm * (resolution - 1) / 2
    grid = Grid((resolution, resolution, resolution), affine)
    return Frame(grid, np.zeros(3), np.ones(3), resolution, kind, margin)


def check_frame_options(resolution: int, margin: float, kind: str) -> None:
    """Refuse a resolution, margin or kind that no frame can have.

    Raises:
        InputError: naming the option.
    """
    if not 2 <= resolution <= MAX_RESOLUTION:
        raise InputError(
            "resolution", f"{resolution} is out of range", f"Use 2 to {MAX_RESOLUTION}; 128 is usual."
        )
    if not 0 <= margin <= MAX_MARGIN:
        raise InputError(
            "margin", f"{margin} is out of range", f"Use 0 to {MAX_MARGIN}, a fraction of the box."
        )
    if kind not in get_args(FrameKind):
        raise InputError("kind", f"'{kind}' is unknown", f"Use one of {', '.join(get_args(FrameKind))}.")


def _to_canonical(grid: Grid, points: np.ndarray) -> np.ndarray:
    """Map voxel indices (..., 3) from the file's axis order to the canonical one."""
    turn = grid.canonical_to_file  # a signed permutation: its transpose is its inverse
    return (points - turn[:3, 3]) @ turn[:3, :3]


def _apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 4 x 4 affine to points (..., 3)."""
    return points @ affine[:3, :3].T + affine[:3, 3]
