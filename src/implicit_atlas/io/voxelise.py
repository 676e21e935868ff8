"""A closed surface as an occupied volume."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

from implicit_atlas.errors import InputError
from implicit_atlas.io.mesh_repair import enclosed_volume
from implicit_atlas.io.meshes import Mesh
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.io.vtk_files import to_poly_data

LONGEST_SIDE_VOXELS = 160
BORDER_VOXELS = 2
PIECE = 0.1  # of the largest piece of an organ: what is smaller is an island, no piece of its own
MAX_VOXELS = 2**29


def voxelise(
    mesh: Mesh, spacing_mm: float | None = None, grid: Grid | None = None
) -> tuple[Bool[np.ndarray, "x y z"], Grid]:
    """Return the voxels whose centres lie inside a closed surface, and their grid.

    Separate pieces are united where they overlap; a piece that is turned inwards and lies in another is a
    cavity and is cut out.

    Args:
        mesh: closed surface in RAS mm.
        spacing_mm: voxel size of a new grid along R, A and S; the longest side gets 160 voxels by default.
        grid: an existing grid to fill instead.

    Raises:
        InputError: a voxel size that is not positive or gives too many voxels, or no voxel inside.
    """
    grid = grid or grid_around(mesh, spacing_mm)
    world_to_voxel = np.linalg.inv(grid.affine)
    vertices = mesh.vertices @ world_to_voxel[:3, :3].T + world_to_voxel[:3, 3]
    # A grid with a left-handed affine mirrors the surface, and with it the sign of volumes.
    faces = mesh.faces if np.linalg.det(world_to_voxel[:3, :3]) > 0 else mesh.faces[:, ::-1]
    occupancy = np.zeros(grid.shape, bool)
    pieces = [(enclosed_volume(vertices, piece), piece) for piece in _pieces(faces, len(vertices))]
    # From the largest on: an island in a hollow of an organ comes after it.
    for volume, piece in sorted(pieces, key=lambda one: -abs(one[0])):
        if volume >= 0:
            _paint(occupancy, vertices, piece, value=True)
            continue
        inside = np.zeros(grid.shape, bool)
        _paint(inside, vertices, piece, value=True)
        is_cavity = occupancy[inside].mean() > 0.5 if inside.any() else False
        occupancy[inside] = not is_cavity
    if not occupancy.any():
        raise InputError("surface", "has no voxel centre inside", "Use a finer voxel size.")
    return occupancy, grid


def grid_around(mesh: Mesh, spacing_mm: float | None = None) -> Grid:
    """Return an isotropic RAS grid around a surface, with a border of two voxels.

    Raises:
        InputError: a voxel size that is not positive or gives too many voxels.
    """
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    size_mm = float((high - low).max()) / LONGEST_SIDE_VOXELS if spacing_mm is None else spacing_mm
    if not (np.isfinite(size_mm) and size_mm > 0):
        raise InputError("spacing", f"{size_mm} mm is no voxel size", "Use a positive number of mm.")
    lengths = np.ceil((high - low) / size_mm) + 2 * BORDER_VOXELS
    if np.prod(lengths) > MAX_VOXELS:
        problem = f"{size_mm:g} mm gives {np.prod(lengths):.3g} voxels, more than {MAX_VOXELS}"
        raise InputError("spacing", problem, "Use a coarser voxel size.")
    affine = np.diag([size_mm, size_mm, size_mm, 1.0])
    affine[:3, 3] = (low + high) / 2 - size_mm * (lengths - 1) / 2
    return Grid((int(lengths[0]), int(lengths[1]), int(lengths[2])), affine)


def enclosing_pieces(mesh: Mesh, most: int = 1) -> tuple[Mesh, int]:
    """Return the connected pieces of a surface that enclose most, at most so many, and how many there were.

    What encloses less than a tenth of the first is left out; walls of hollows enclose less than nothing.
    """
    pieces = _pieces(mesh.faces, len(mesh.vertices))
    volumes = np.array([enclosed_volume(mesh.vertices, faces) for faces in pieces])
    volumes *= np.sign(volumes[np.abs(volumes).argmax()])  # of a surface that faces inwards, too
    order = np.argsort(-volumes, kind="stable")[:most]
    kept = np.concatenate([pieces[index] for index in order if volumes[index] >= PIECE * volumes.max()])
    used, faces = np.unique(kept, return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3)), len(pieces)


def _pieces(faces: Int64[np.ndarray, "f 3"], n_vertices: int) -> list[Int64[np.ndarray, "_ 3"]]:
    """Return the faces of each connected piece."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(n_vertices, n_vertices))
    n_pieces, piece_of_vertex = connected_components(graph, directed=False)
    piece_of_face = piece_of_vertex[faces[:, 0]]
    order = np.argsort(piece_of_face, kind="stable")
    ends = np.cumsum(np.bincount(piece_of_face, minlength=n_pieces))
    return [faces[part] for part in np.split(order, ends[:-1]) if len(part)]


def _paint(
    occupancy: Bool[np.ndarray, "x y z"],
    vertices: Float64[np.ndarray, "v 3"],
    faces: Int64[np.ndarray, "f 3"],
    *,
    value: bool,
) -> None:
    """Set the voxels inside one piece, given in voxel coordinates; only the piece's own box is visited."""
    corners = vertices[faces.ravel()]
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int), np.array(occupancy.shape) - 1)
    if (low > high).any():
        return
    used, renumbered = np.unique(faces, return_inverse=True)
    stencil = vtkPolyDataToImageStencil()
    stencil.SetInputData(to_poly_data(vertices[used], renumbered.reshape(-1, 3)))
    stencil.SetOutputSpacing(1, 1, 1)
    stencil.SetOutputOrigin(0, 0, 0)
    stencil.SetOutputWholeExtent(*(int(end) for pair in zip(low, high, strict=True) for end in pair))
    image = vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    voxels = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).astype(bool)
    box = tuple(slice(int(first), int(last) + 1) for first, last in zip(low, high, strict=True))
    inside = voxels.reshape((high - low + 1)[::-1]).T
    occupancy[box][inside] = value
