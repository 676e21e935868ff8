"""A shape as an atlas sees it, and the ways back to masks and meshes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import CodeFit
from implicit_atlas.geometry.flat_ends import faces_cut_at
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.geometry.pieces import without_specks, without_strays
from implicit_atlas.geometry.surface import CubeMesh, ValuesAt, field_mesh, sparse_volume, to_world
from implicit_atlas.io import Mask
from implicit_atlas.io.meshes import Mesh
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.shape import Shape, restore_lattice, restore_on

WRONG_ORGAN = (
    "Check that it shows the atlas's organ, its side (left or right) and space (LPS or RAS), and its --label."
)
TRUSTED_DSC = 0.8  # between mask and shape: below it the mask may be of another organ


def unlike_mask(likeness: float) -> str | None:
    """Why a shape is not to be trusted that agrees so far with its mask (DSC, 0 to 1), or None."""
    if likeness >= TRUSTED_DSC:
        return None
    return f"mask and shape agree by {100 * likeness:.0f} % DSC only: another organ, or much is wrong with it"


def cut_mask(mask: Mask) -> str | None:
    """Why a mask may not be a whole organ, or None."""
    faces = faces_cut_at(mask.occupancy, mask.grid.spacing_mm)
    if not faces:
        return None
    sides = ", ".join(mask.grid.side(axis, last) for axis, last in faces)
    return (
        f"it ends flat at its volume's border ({sides}), as if cut off there: complete it with --seen volume"
    )


def all_doubts(*doubts: str | None) -> str | None:
    """Doubts that there are, in one; None where there are none."""
    return "; ".join(doubt for doubt in doubts if doubt) or None


@dataclass(frozen=True, eq=False)
class Fit:
    """One shape that was fitted or completed.

    Args:
        name: of the case.
        found: its code and what the fit says of itself.
        frame: where the cube lies in a scan; None where that is not known.
        resolution: lattice of the atlas.
        field: makes the shape's field, to be asked for logits at cube points.
        unlike: what speaks against its size, or None.
        owner: `TrainedAtlas.identity` of the atlas whose code it has; empty where that is not known.
        rivals: of a completion: where its other searches ended, the most probable one first.
    """

    name: str
    found: CodeFit
    frame: Frame | None = dataclasses.field(repr=False)
    resolution: int
    field: Callable[[], ValuesAt] = dataclasses.field(repr=False)
    unlike: str | None = dataclasses.field(default=None, repr=False)
    owner: str = dataclasses.field(default="", repr=False)
    rivals: tuple[Fit, ...] = dataclasses.field(default=(), repr=False)

    @property
    def doubt(self) -> str | None:
        """Why not to trust it, or None; what its mask says of it, and its side, `tasks.reconstruct` tells, too."""
        return all_doubts(self.found.doubt, self.unlike)

    @property
    def failure(self) -> str | None:
        """Why the fit is not valid, or None."""
        return self.found.failure

    def logits_at(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Occupancy logits at cube points, positive inside.

        Raises:
            InputError: points that are not (n, 3).
        """
        points = np.asarray(points)
        if points.ndim != 2 or points.shape[1] != 3:
            raise InputError(
                self.name, f"was asked at points of shape {points.shape}", "Give (n, 3) cube points."
            )
        return self.field()(points)

    def logits(self, resolution: int | None = None) -> Float[np.ndarray, "r r r"]:
        """Logits on a lattice of the cube, exact near the surface and right in sign elsewhere."""
        return sparse_volume(self.field(), resolution or self.resolution).values

    def own_logits(self, seen: Shape) -> Float[np.ndarray, "r r r"]:
        """The same on the lattice of the shape that was fitted, without specks and pieces that nowhere meet it."""
        return without_strays(without_specks(self.logits(seen.frame.resolution)), seen.occupancy)

    def occupancy(self, resolution: int | None = None) -> Bool[np.ndarray, "r r r"]:
        """Occupied voxels of the cube's lattice."""
        return self.logits(resolution) > 0

    def mask(self) -> Bool[np.ndarray, "x y z"]:
        """The shape on the grid of the file that it was fitted to."""
        frame = self.placed()
        return restore_lattice(self.logits(frame.resolution), frame, 0.0)

    def mask_on(self, grid: Grid) -> Bool[np.ndarray, "x y z"]:
        """The shape on any voxel grid, by trilinear interpolation of its logits; empty where it lies outside."""
        frame = self.placed()
        return restore_on(self.logits(frame.resolution), frame, grid, 0.0)

    def mesh(self, resolution: int | None = None) -> Mesh:
        """Closed surface in world millimetres (RAS)."""
        return to_world(self.cube_mesh(resolution), self.placed())

    def cube_mesh(self, resolution: int | None = None) -> CubeMesh:
        """Closed surface in cube coordinates."""
        return field_mesh(self.field(), resolution or self.resolution)

    def placed(self) -> Frame:
        """Where the cube lies in a scan.

        Raises:
            FitError: the fit failed.
            InputError: that is not known.
        """
        self.found.checked(self.name)
        if self.frame is None:
            raise InputError(
                self.name,
                "has no place in a scan",
                "Ask for `occupancy` or `cube_mesh`, or give known() a frame.",
            )
        return self.frame
