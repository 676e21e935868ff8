"""A volume's voxel grid: its shape, its place in the world, and its axes in canonical order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Shaped

from implicit_atlas.errors import InputError

GRID_REMEDY = "Save the volume again with a valid voxel-to-world matrix."
_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "I": "S", "S": "I", "?": "?"}


@dataclass(frozen=True, eq=False)
class Grid:
    """A volume's voxel grid: its shape and where its voxels lie in the scanner.

    Args:
        shape: voxels along each array axis.
        affine: voxel index (voxel centre) to RAS millimetres.

    Raises:
        InputError: a shape that is not positive, or an affine that is not finite or cannot be inverted.
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", frozen(self.affine))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError("grid", f"shape {self.shape} is not three positive numbers", GRID_REMEDY)
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise InputError("grid", "affine is not a finite 4 x 4 matrix", GRID_REMEDY)
        if not np.array_equal(self.affine[3], (0, 0, 0, 1)):
            raise InputError("grid", "affine's last row is not 0 0 0 1", GRID_REMEDY)
        # The columns are scaled to length 1 first: a spacing of 0.01 mm makes no matrix singular.
        if (
            not (self.spacing_mm > 0).all()
            or abs(np.linalg.det(self.affine[:3, :3] / self.spacing_mm)) < 1e-6
        ):
            raise InputError("grid", "affine is singular", GRID_REMEDY)

    @cached_property
    def spacing_mm(self) -> Float[np.ndarray, "3"]:
        """Voxel size in mm along each array axis."""
        return frozen(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Where each array axis points, e.g. "RAS" or "LPS" (nibabel's axis codes)."""
        return "".join(code or "?" for code in nibabel.aff2axcodes(self.affine))

    def side(self, axis: int, last: bool) -> str:
        """The side of the body on which the first or last slice across an axis lies, one of "LRPAIS"."""
        toward = self.orientation[axis]
        return toward if last else _OPPOSITE[toward]

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm^3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @cached_property
    def _orientation(self) -> np.ndarray:
        """Which canonical axis each array axis is, and its direction (nibabel's orientation array)."""
        return nibabel.io_orientation(self.affine)

    @cached_property
    def canonical_to_file(self) -> Float[np.ndarray, "4 4"]:
        """The 4 x 4 signed permutation from canonical voxel indices to the file's."""
        return frozen(nibabel.orientations.inv_ornt_aff(self._orientation, self.shape))

    @cached_property
    def canonical(self) -> Grid:
        """The same voxels with the axes nearest to right, anterior and superior, in this order."""
        turn = self.canonical_to_file
        extent = np.abs(turn[:3, :3]).T @ np.array(self.shape)
        x, y, z = (round(size) for size in extent)
        return Grid((x, y, z), self.affine @ turn)

    def to_canonical(self, volume: Shaped[np.ndarray, "x y z"]) -> Shaped[np.ndarray, "a b c"]:
        """A view of a volume of this grid with its axes in canonical order."""
        return nibabel.apply_orientation(volume, self._orientation)

    def from_canonical(self, volume: Shaped[np.ndarray, "a b c"]) -> Shaped[np.ndarray, "x y z"]:
        """A volume in canonical axis order, back in the file's."""
        back = nibabel.orientations.ornt_transform(nibabel.io_orientation(np.eye(4)), self._orientation)
        return np.ascontiguousarray(nibabel.apply_orientation(volume, back))

    def same_as(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether two grids have one shape and no voxel centre lies further apart than the tolerance."""
        if self.shape != other.shape:
            return False
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape], [1], indexing="ij"), -1).reshape(
            -1, 4
        )
        distance_mm = np.linalg.norm(corners @ (self.affine - other.affine).T, axis=1)
        return bool(distance_mm.max() <= tolerance_mm)


class TurnedGrid(Grid):
    """A grid whose own axes count as canonical ones, however far they are turned: the lattice of a turned cube."""

    @cached_property
    def _orientation(self) -> np.ndarray:
        return np.array([(axis, 1) for axis in range(3)], dtype=float)

    @cached_property
    def canonical(self) -> Grid:
        """The grid itself."""
        return self


def frozen(values: Any) -> np.ndarray:
    """Return a read-only float64 copy, so that no caller can move a frame that others share."""
    copy = np.array(values, dtype=np.float64)
    copy.setflags(write=False)
    return copy
