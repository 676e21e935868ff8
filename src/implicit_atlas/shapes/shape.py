"""Shapes: an organ's occupancy on the lattice of its cube, prepared from a mask and restored to its grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from scipy.ndimage import map_coordinates

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Box, Frame, FrameKind, bounding_box, frame_of_box
from implicit_atlas.geometry.resample import AxisMap, cubic_axis, linear_axis, resample
from implicit_atlas.io.formats import case_name, suffix_of
from implicit_atlas.io.text_headers import metaimage_claim, nrrd_claim
from implicit_atlas.io.types import Mask
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.support.files import sha256_file


@dataclass(frozen=True, eq=False)
class Shape:
    """An organ in its cube: bit-packed occupancy, and the frame that leads back to its scan.

    Args:
        name: the case's name.
        packed: `numpy.packbits` of the C-ordered boolean cube.
        frame: where the cube lies.
        source: the file it came from.
        content_hash: sha256 of that file's bytes, in hexadecimal; see `hash_source`.
        dtype: name of the voxel type in that file, e.g. "uint8".
        notes: repairs made and doubts found while the file was read.
        labels: label ids that make the organ; empty for everything above 0.

    Raises:
        InputError: as many bytes as the frame's resolution needs are not there.
    """

    name: str
    packed: UInt8[np.ndarray, " bytes"]
    frame: Frame
    source: str
    content_hash: str
    dtype: str = "uint8"
    notes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expected = packed_size(self.frame.resolution)
        if self.packed.dtype != np.uint8 or self.packed.shape != (expected,):
            problem = f"holds {self.packed.size} {self.packed.dtype} values, not {expected} bytes"
            raise InputError(self.name, problem, "Prepare the shape again.")

    @property
    def occupancy(self) -> Bool[np.ndarray, "r r r"]:
        """The unpacked cube; a new array on every call."""
        return unpack(self.packed, self.frame.resolution)

    def mirrored(self) -> Shape:
        """The same organ at the same place in a cube whose first axis is turned round: a left one as if it were right.

        For atlases of the other side; what is made of it lies where the organ itself is.
        """
        turned = replace(self.frame, mirrored=not self.frame.mirrored)
        return replace(self, packed=np.packbits(self.occupancy[::-1]), frame=turned)


def unpack(packed: UInt8[np.ndarray, " bytes"], resolution: int) -> Bool[np.ndarray, "r r r"]:
    """Boolean cube of packed bits; a new array."""
    bits = np.unpackbits(packed, count=resolution**3)
    return bits.view(np.bool_).reshape(resolution, resolution, resolution)


def packed_size(resolution: int) -> int:
    """Bytes that resolution^3 bits take."""
    return (resolution**3 + 7) // 8


def prepare(
    mask: Mask,
    resolution: int = 128,
    margin: float = 0.0,
    kind: FrameKind = "box",
    name: str | None = None,
    content_hash: str | None = None,
) -> Shape:
    """Crop a mask to its organ's box and resample it to the cube: cubic splines, threshold 1/2 (paper §4.1).

    With the default frame the cube equals `scipy.ndimage.zoom(box, R / n, order=3) > 0.5`. Nodes that a
    margin or the isotropic frame puts outside the box see an organ surrounded by background without end.

    Args:
        mask: the organ on its original grid; not changed.
        resolution: nodes along each axis of the cube.
        margin: empty border, as a fraction of the organ's box, added on each side.
        kind: "box" (each axis stretched to the cube) or "isotropic" (proportions kept).
        name: the case's name; the file's by default.
        content_hash: sha256 of the file, where the caller has it; computed by default.

    Raises:
        InputError: an empty mask, an option out of range, or an organ too thin to survive at this resolution.
    """
    box = _box_of(mask)
    frame = frame_of_box(box, mask.grid, resolution, margin, kind)
    axes = [_cubic_axis_of(frame, box, axis) for axis in range(3)]
    occupancy = resample(mask.grid.to_canonical(mask.occupancy)[box], axes, threshold=0.5)
    if not occupancy.any():
        raise InputError(mask.path, f"vanishes at resolution {resolution}", "Use a higher resolution.")
    return Shape(
        name=case_name(mask.path) if name is None else name,
        packed=np.packbits(occupancy),
        frame=frame,
        source=str(mask.path),
        content_hash=_content_hash(mask) if content_hash is None else content_hash,
        dtype=mask.dtype.name,
        notes=mask.notes,
    )


def restore(shape: Shape) -> Bool[np.ndarray, "x y z"]:
    """Return a shape as a mask on its original grid; see `restore_lattice`."""
    return restore_lattice(shape.occupancy, shape.frame, 0.5)


def restore_lattice(
    values: Shaped[np.ndarray, "a b c"], frame: Frame, threshold: float = 0.5
) -> Bool[np.ndarray, "x y z"]:
    """Return values on a cube's lattice as a mask on the original grid, by trilinear interpolation.

    Args:
        values: occupancy, probabilities (threshold 0.5) or logits (threshold 0) on the frame's lattice.
        frame: the cube's frame.
        threshold: a voxel is occupied where the value at its centre lies above it.

    Returns:
        occupancy of shape `frame.grid.shape`; False outside the lattice.
    """
    if values.shape != (frame.resolution,) * 3:
        problem = f"have shape {values.shape}, not {(frame.resolution,) * 3}"
        raise InputError("values", problem, "Give values on the frame's own lattice.")
    values = values[::-1] if frame.mirrored else values
    window = frame.voxel_window()
    axes = [
        linear_axis(
            frame.resolution,
            float((window[axis].start - frame.start[axis]) / frame.step[axis]),
            float(1 / frame.step[axis]),
            window[axis].stop - window[axis].start,
        )
        for axis in range(3)
    ]
    return _in_grid(resample(values, axes, threshold), window, frame.grid)


def restore_on(
    values: Shaped[np.ndarray, "a b c"], frame: Frame, grid: Grid, threshold: float = 0.5
) -> Bool[np.ndarray, "x y z"]:
    """Return values on a cube's lattice as a mask on any grid of the same scan, by trilinear interpolation.

    Args:
        values: as for `restore_lattice`.
        frame: the cube's frame.
        grid: where the mask is wanted, of any orientation and spacing.
        threshold: a voxel is occupied where the value at its centre lies above it.

    Returns:
        occupancy of shape `grid.shape`; False outside the cube.

    Raises:
        InputError: what was given is no grid.
    """
    if not hasattr(grid, "affine"):
        raise InputError(str(grid), "is no grid", "Give read_grid(path), or a mask's `grid`.")
    occupancy = np.zeros(grid.shape, np.bool_)
    to_cube = frame.affine_world_to_cube @ grid.affine
    signs = np.stack(np.meshgrid(*[(-1, 1)] * 3, [1], indexing="ij"), -1).reshape(-1, 4)
    corners = (signs @ np.linalg.inv(to_cube).T)[:, :3]
    low = np.clip(np.ceil(corners.min(0)), 0, grid.shape).astype(int)
    high = np.clip(np.floor(corners.max(0)) + 1, low, grid.shape).astype(int)
    side = values.shape[0]
    values = values.astype(np.float32, copy=False)  # of bits, nothing would be interpolated
    for x in range(low[0], high[0]):  # plane by plane: a large scan needs no more memory than its mask
        y, z = np.meshgrid(np.arange(low[1], high[1]), np.arange(low[2], high[2]), indexing="ij")
        cube = np.stack([np.full_like(y, x), y, z], -1) @ to_cube[:3, :3].T + to_cube[:3, 3]
        inside = (np.abs(cube) <= 1).all(-1)
        where = (cube[inside] + 1) * (side / 2) - 0.5
        plane = occupancy[x, low[1] : high[1], low[2] : high[2]]
        plane[inside] = map_coordinates(values, where.T, order=1, mode="nearest") > threshold
    return occupancy


def hash_source(path: Path) -> str:
    """Return the sha256 of a mask file's bytes; of a header with its voxels in a second file, of both.

    Raises:
        InputError: a file cannot be read.
    """
    claims = {".nhdr": nrrd_claim, ".nrrd": nrrd_claim, ".mhd": metaimage_claim, ".mha": metaimage_claim}
    claim = claims.get(suffix_of(path))  # each of them may name a second file
    payload = path if claim is None else claim(path).path
    if payload == path:
        return sha256_file(path)
    return hashlib.sha256(f"{sha256_file(path)} {sha256_file(payload)}".encode()).hexdigest()


def _box_of(mask: Mask) -> Box:
    """Return a mask's bounding box; an error names the mask's file."""
    try:
        return bounding_box(mask.occupancy, mask.grid)
    except InputError as error:
        raise InputError(mask.path, error.problem, error.remedy) from error


def _cubic_axis_of(frame: Frame, box: Box, axis: int) -> AxisMap:
    """Return the map from a box's samples to a frame's nodes along one axis."""
    size = box[axis].stop - box[axis].start
    start, step = float(frame.start[axis]) - box[axis].start, float(frame.step[axis])
    last = start + step * (frame.resolution - 1)
    reach = 0.5 if size == 1 else 1e-6
    inside = start >= -reach and last <= size - 1 + reach
    return cubic_axis(size, start, step, frame.resolution, "mirror" if inside else "zero")


def _in_grid(window_occupancy: np.ndarray, window: Box, grid: Grid) -> np.ndarray:
    """Return a canonical window's occupancy in an otherwise empty volume of the file's axis order."""
    occupancy = np.zeros(grid.canonical.shape, np.bool_)
    occupancy[window] = window_occupancy
    return grid.from_canonical(occupancy)


def _content_hash(mask: Mask) -> str:
    """Hash the mask's file, or the mask itself when it came from no file."""
    if mask.path.is_file():
        return hash_source(mask.path)
    digest = hashlib.sha256(np.packbits(mask.occupancy).tobytes())
    digest.update(repr((mask.grid.shape, mask.grid.affine.tolist())).encode())
    return digest.hexdigest()
