"""Implicit field to volume or closed mesh, evaluated from coarse to fine near the surface only.

The field is first asked on a coarse subset of the lattice. Cells that the surface crosses, or could be
hiding in, are halved until they are lattice cells; at each level the surface is followed from cell to cell,
so that a piece of it that was met once is complete. The result is that of dense evaluation, except for small
separate pieces that no coarse cell shows (see `sparse_volume`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from vtkmodules.util.numpy_support import numpy_to_vtk
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Frame, occupied_box
from implicit_atlas.io.meshes import Mesh
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.io.vtk_files import from_poly_data

POINTS_PER_CALL = 2**18
LEAST = np.float32(2e-4)  # of an edge of the lattice: no vertex of a surface is nearer to its end

ValuesAt = Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, " n"]]
"""Values of a field, above the level inside, at cube points (float32); expensive to call."""


@dataclass(frozen=True, eq=False)
class FieldVolume:
    """A field on the cube's cell-centred lattice.

    Args:
        values: (R, R, R) float32. Where the field was not asked, a value on the right side of the level.
        evaluated: number of points at which the field was asked.
    """

    values: Float[np.ndarray, "r r r"]
    evaluated: int


@dataclass(frozen=True, eq=False)
class CubeMesh:
    """A closed surface in cube coordinates; `to_world` takes it to millimetres.

    Args:
        vertices: (v, 3) float64 in cube coordinates.
        faces: (f, 3) int64, counter-clockwise seen from outside.
        evaluated: number of points at which the field was asked.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    evaluated: int = 0


def dense_volume(values_at: ValuesAt, resolution: int = 128) -> FieldVolume:
    """Ask the field at every node of the lattice.

    Raises:
        InputError: the field gives NaN or infinity.
    """
    return sparse_volume(values_at, resolution, coarse=resolution)


def sparse_volume(
    values_at: ValuesAt, resolution: int = 128, level: float = 0.0, coarse: int = 32, margin: float = 0.5
) -> FieldVolume:
    """Ask the field near its surface only.

    Every piece of the surface that passes between two neighbouring coarse nodes is complete, thin parts
    included, with exactly the values of dense evaluation at all corners of the cells that it crosses. Smaller
    separate pieces are found where a corner of their coarse cell is closer to the level than `margin` times
    the field's largest change across a coarse cell nearby. For a signed distance and margin 0.5 these are all
    pieces that hold a ball of radius 1.8 lattice nodes.

    Args:
        values_at: cube points (n, 3) float32 to values (n,), above the level inside.
        resolution: nodes of the lattice along each axis.
        level: value at the surface.
        coarse: coarse nodes along each axis, about; taken so that the pitch is a power of two lattice nodes.
        margin: 0 follows only what the coarse nodes separate; more finds smaller pieces and asks more points.

    Raises:
        InputError: a resolution or coarse resolution below 1, or the field gives NaN or infinity.
    """
    if resolution < 1 or coarse < 1:
        raise InputError("resolution", f"{resolution} (coarse {coarse}) is no lattice", "Use 1 or more.")
    stride = 1
    while resolution // (2 * stride) >= coarse:
        stride *= 2
    search = _Refinement(values_at, resolution, np.float32(level), stride)
    search.evaluate(np.ones_like(search.known))
    active = search.crossed() | (search.near(margin) if stride > 1 else False)
    while search.stride > 1:
        search.halve()
        search.evaluate(_corners(_doubled(active)))
        active = search.crossed()
        while search.evaluate(_corners(active)):
            active = search.crossed()
    return FieldVolume(search.interior(search.values).copy(), search.evaluated)


def field_mesh(
    values_at: ValuesAt, resolution: int = 128, level: float = 0.0, coarse: int = 32, margin: float = 0.5
) -> CubeMesh:
    """Closed surface of a field, by coarse-to-fine evaluation (see `sparse_volume`) and marching cubes.

    Returns:
        The same mesh as from dense evaluation; what touches the cube's faces is closed there.

    Raises:
        InputError: as `sparse_volume`.
    """
    volume = sparse_volume(values_at, resolution, level, coarse, margin)
    mesh = volume_mesh(volume.values, level)
    return CubeMesh(mesh.vertices, mesh.faces, volume.evaluated)


def volume_mesh(values: Float[np.ndarray, "x y z"], level: float = 0.0) -> CubeMesh:
    """Closed surface of a volume on the cube's cell-centred lattice, outward, without faces if there is none.

    The volume's border lies half a node beyond its outer nodes, at the cube's faces.
    """
    vertices, faces = _lattice_surface(values, level)
    return CubeMesh((2 * vertices + 1) / values.shape - 1, faces)


def to_world(mesh: CubeMesh, frame: Frame) -> Mesh:
    """Take a surface from a frame's cube to RAS mm, still outward."""
    return _mapped(mesh.vertices, mesh.faces, frame.affine_cube_to_world)


def occupancy_mesh(occupancy: Bool[np.ndarray, "x y z"], place: Frame | Grid) -> Mesh:
    """Closed surface of a mask in RAS mm: of a cube's lattice (a Frame) or of a volume's own grid (a Grid).

    Raises:
        InputError: a mask whose shape differs from the grid's or from the frame's lattice.
    """
    expected = (place.resolution,) * 3 if isinstance(place, Frame) else place.shape
    if occupancy.shape != expected:
        problem = f"shape {occupancy.shape} differs from its grid's {expected}"
        raise InputError("mask", problem, "Give the mask together with its own grid.")
    if isinstance(place, Frame):
        return to_world(volume_mesh(occupancy.astype(np.float32), 0.5), place)
    box = occupied_box(occupancy)  # an organ is a small part of a scan
    if not box[0].stop:
        box = (slice(0, 1),) * 3
    vertices, faces = _lattice_surface(occupancy[box].astype(np.float32), 0.5)
    return _mapped(vertices + [axis.start for axis in box], faces, place.affine)


class _Refinement:
    """The lattice with a border of outside nodes, known in part, at a stride that is halved step by step.

    Node k of an axis is lattice node stride * k - 1; node 0 and what lies beyond the lattice is the border.
    """

    def __init__(self, values_at: ValuesAt, resolution: int, level: np.float32, stride: int) -> None:
        self.values_at, self.resolution, self.level, self.stride = values_at, resolution, level, stride
        nodes = -(-(resolution + 1) // stride) + 1
        self.values = np.zeros((nodes,) * 3, dtype=np.float32)
        self.known = np.zeros((nodes,) * 3, dtype=bool)
        self.evaluated = 0

    def interior(self, nodes: np.ndarray) -> np.ndarray:
        """Return a view without the border."""
        inner = slice(1, self.resolution // self.stride + 1)
        return nodes[inner, inner, inner]

    def evaluate(self, wanted: Bool[np.ndarray, "n n n"]) -> bool:
        """Ask the field at those wanted nodes that are not known; False if there are none."""
        index = np.argwhere(self.interior(wanted & ~self.known))
        axis = (np.arange(self.resolution, dtype=np.float32) * 2 + 1) / np.float32(self.resolution) - 1
        positions = axis[self.stride - 1 :: self.stride]
        for first in range(0, len(index), POINTS_PER_CALL):
            part = index[first : first + POINTS_PER_CALL]
            answer = np.asarray(self.values_at(positions[part]), dtype=np.float32)
            if not np.isfinite(answer).all():
                raise InputError("field", "gives values that are not finite", "Train or fit the model again.")
            self.interior(self.values)[tuple(part.T)] = answer
            self.interior(self.known)[tuple(part.T)] = True
        self.evaluated += len(index)
        return len(index) > 0

    def halve(self) -> None:
        """Go to half the stride; new nodes get the mean of their neighbours, which keeps their side."""
        self._fill_border()
        for axis in range(3):
            self.values = _between(self.values, axis)
        known = np.zeros(self.values.shape, dtype=bool)
        known[::2, ::2, ::2] = self.known
        self.known = known
        self.stride //= 2

    def crossed(self) -> Bool[np.ndarray, "m m m"]:
        """Cells with corners on both sides of the level; the border is outside."""
        inside = np.zeros(self.values.shape, dtype=bool)
        self.interior(inside)[...] = self.interior(self.values) >= self.level
        return _over_corners(inside, np.logical_or) & ~_over_corners(inside, np.logical_and)

    def near(self, margin: float) -> Bool[np.ndarray, "m m m"]:
        """Cells with a corner nearer to the level than `margin` times the change across a cell nearby."""
        self._fill_border()
        change = _over_corners(self.values, np.maximum) - _over_corners(self.values, np.minimum)
        distance = _over_corners(np.abs(self.values - self.level), np.minimum)
        return distance < margin * ndimage.maximum_filter(change, size=3)

    def _fill_border(self) -> None:
        last = self.resolution // self.stride
        for axis in range(3):
            along = np.moveaxis(self.values, axis, 0)
            along[0] = along[1]
            along[last + 1 :] = along[last]


def _over_corners(nodes: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """Combine the eight corners of every cell: (n, n, n) nodes to (n-1, n-1, n-1) cells."""
    cells = combine(nodes[:-1], nodes[1:])
    cells = combine(cells[:, :-1], cells[:, 1:])
    return combine(cells[:, :, :-1], cells[:, :, 1:])


def _corners(cells: Bool[np.ndarray, "m m m"]) -> Bool[np.ndarray, "n n n"]:
    """Nodes that are a corner of one of the cells."""
    return _over_corners(np.pad(cells, 1), np.logical_or)


def _doubled(cells: Bool[np.ndarray, "m m m"]) -> Bool[np.ndarray, "k k k"]:
    """Each cell as the 2 x 2 x 2 cells that it is halved into."""
    return cells.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)


def _between(values: np.ndarray, axis: int) -> np.ndarray:
    """Insert the mean of every two neighbours along an axis: n to 2n - 1."""
    along = np.moveaxis(values, axis, 0)
    shape = list(values.shape)
    shape[axis] = 2 * shape[axis] - 1
    doubled = np.empty(shape, dtype=values.dtype)
    view = np.moveaxis(doubled, axis, 0)
    view[::2] = along
    view[1::2] = (along[1:] + along[:-1]) / 2
    return doubled


def _lattice_surface(
    values: Float[np.ndarray, "x y z"], level: float
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Closed, outward surface of a volume in voxel indices."""
    at = np.float32(level)
    values = _off_the_level(values.astype(np.float32, copy=False), at)
    padded = np.pad(values, 1, mode="edge")
    # The border mirrors its neighbours at the level, so that the surface ends half a node beyond them.
    mirrored = np.minimum(at - np.abs(padded - at), np.nextafter(at, np.float32(-np.inf)))
    mirrored[1:-1, 1:-1, 1:-1] = values
    image = vtkImageData()
    # The array's last axis is vtk's first: the surface comes out with its axes reversed, and so inside-out.
    image.SetDimensions(*mirrored.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(mirrored.ravel()))
    contour = vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, level)
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    contour.ComputeScalarsOff()
    contour.Update()
    vertices, faces = from_poly_data(contour.GetOutput())
    return vertices[:, ::-1] - 1, faces[:, ::-1].copy()


def _off_the_level(values: Float[np.ndarray, "x y z"], level: np.float32) -> Float[np.ndarray, "x y z"]:
    """Values with those that all but equal the level pushed to their side of it, by `LEAST` of their neighbours'.

    Else the vertices of several edges fall together at a node, and a program that merges such opens the surface.
    """
    offset = values - level
    inside, size = offset >= 0, np.abs(offset)
    across = np.zeros_like(size)  # the largest on the other side of an edge that the surface crosses
    for axis in range(3):
        sides, sizes, most = (np.moveaxis(of, axis, 0) for of in (inside, size, across))
        crossed = sides[1:] != sides[:-1]
        np.maximum(most[1:], sizes[:-1], out=most[1:], where=crossed)
        np.maximum(most[:-1], sizes[1:], out=most[:-1], where=crossed)
    near = size < LEAST * across
    offset[near] = np.where(inside[near], LEAST, -LEAST) * across[near]
    return offset + level


def _mapped(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], affine: Float[np.ndarray, "4 4"]
) -> Mesh:
    """Apply an affine; a mirroring one turns the faces round."""
    if np.linalg.det(affine[:3, :3]) < 0:
        faces = faces[:, ::-1].copy()
    return Mesh(vertices @ affine[:3, :3].T + affine[:3, 3], faces)
