"""From a stored surface to one that encloses a volume: checks, closing of holes, outward orientation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from vtkmodules.vtkFiltersCore import vtkPolyDataNormals
from vtkmodules.vtkFiltersModeling import vtkFillHolesFilter

from implicit_atlas.errors import InputError
from implicit_atlas.io.surface_files import Surface
from implicit_atlas.io.vtk_files import from_poly_data, quiet_vtk, to_poly_data

MAX_COORDINATE_MM = 1e6

_CLOSE_REMEDY = "Close the surface (3D Slicer: Surface Toolbox, Fill holes), or export it again."
_MIN_RELATIVE_VOLUME = 1e-9


@dataclass(frozen=True, eq=False)
class ClosedSurface:
    """Triangles without a border, normals outward; notes say what had to be repaired."""

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    notes: tuple[str, ...]


def closed_surface(surface: Surface, source: Path) -> ClosedSurface:
    """Check a surface and repair what can be repaired.

    Equal vertices are merged, unused vertices and collapsed triangles dropped, holes filled, triangles turned
    so that neighbours agree and the whole is not inside-out. Each but the merging is noted.

    Raises:
        InputError: no triangles, NaN or absurd coordinates, vertices that do not exist, holes that cannot be
            filled, no enclosed volume.
    """
    check_surface(surface, source)
    vertices, faces = _compact(surface.vertices, surface.faces)
    notes: list[str] = []
    collapsed = len(surface.faces) - len(faces)
    if collapsed:
        notes.append(f"{collapsed} collapsed triangles were dropped")
    if not _is_balanced(faces, len(vertices)):
        vertices, faces = _closed(vertices, faces, source, notes)
    volume_mm3 = enclosed_volume(vertices, faces)
    extent_mm = float(np.ptp(vertices, axis=0).max())
    if abs(volume_mm3) < _MIN_RELATIVE_VOLUME * extent_mm**3:
        raise InputError(source, "encloses no volume", _CLOSE_REMEDY)
    if volume_mm3 < 0:
        faces = faces[:, ::-1].copy()
        notes.append("the surface was inside-out and was turned")
    return ClosedSurface(vertices, faces, tuple(notes))


def enclosed_volume(vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]) -> float:
    """Return the signed volume inside a closed surface in mm^3, negative if it is inside-out."""
    a, b, c = (vertices[faces[:, corner]] - vertices[0] for corner in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def check_surface(surface: Surface, source: Path) -> None:
    """Refuse what no repair can help.

    Raises:
        InputError: no triangles, NaN or absurd coordinates, or vertices that do not exist.
    """
    vertices, faces = surface.vertices, surface.faces
    if len(faces) == 0:
        raise InputError(
            source, f"has no triangles ({len(vertices)} points)", "Export the surface with its faces."
        )
    if not np.isfinite(vertices).all():
        count = int((~np.isfinite(vertices).all(axis=1)).sum())
        raise InputError(
            source, f"has {count} vertices that are NaN or infinite", "Export the surface again."
        )
    if faces.min() < 0 or faces.max() >= len(vertices):
        worst = int(faces.max()) if faces.max() >= len(vertices) else int(faces.min())
        problem = f"has a face with vertex {worst}, and {len(vertices)} vertices"
        raise InputError(source, problem, "Export the surface again.")
    if np.abs(vertices).max() > MAX_COORDINATE_MM:
        problem = f"has coordinates up to {np.abs(vertices).max():.3g} mm"
        raise InputError(source, problem, "Export it in millimetres of the scanner.")


def _compact(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]
) -> tuple[Float64[np.ndarray, "kept_v 3"], Int64[np.ndarray, "kept_f 3"]]:
    """Merge equal vertices, drop collapsed triangles and unused vertices; the order stays."""
    order = np.lexsort(vertices.T)
    starts_group = np.ones(len(vertices), bool)
    starts_group[1:] = (vertices[order[1:]] != vertices[order[:-1]]).any(axis=1)
    group = np.empty(len(vertices), np.int64)
    group[order] = np.cumsum(starts_group) - 1
    first_of_group = np.full(group.max() + 1, len(vertices))
    np.minimum.at(first_of_group, group, np.arange(len(vertices)))
    merged = first_of_group[group][faces]
    a, b, c = merged.T
    merged = merged[(a != b) & (b != c) & (c != a)]
    kept, renumbered = np.unique(merged, return_inverse=True)
    return vertices[kept], renumbered.reshape(-1, 3).astype(np.int64)


def _edges(faces: Int64[np.ndarray, "f 3"], n_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every directed edge of the triangles as one number, and the same edges the other way round."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    return start * n_vertices + end, end * n_vertices + start


def _is_balanced(faces: Int64[np.ndarray, "f 3"], n_vertices: int) -> bool:
    """Whether every edge is passed as often one way as the other: closed, and neighbours agree."""
    there, back = _edges(faces, n_vertices)
    return bool(np.array_equal(np.sort(there), np.sort(back)))


def _open_edges(faces: Int64[np.ndarray, "f 3"], n_vertices: int) -> int:
    """Return the number of edges that an odd number of triangles share."""
    counts = np.unique(np.minimum(*_edges(faces, n_vertices)), return_counts=True)[1]
    return int((counts % 2).sum())


def _closed(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], source: Path, notes: list[str]
) -> tuple[Float64[np.ndarray, "kept_v 3"], Int64[np.ndarray, "kept_f 3"]]:
    """Fill holes and turn triangles until the surface is closed and consistent, and note it."""
    if len(faces) == 0:
        raise InputError(source, "has no triangle with three different vertices", "Export the surface again.")
    n_open = _open_edges(faces, len(vertices))
    poly_data = to_poly_data(vertices, faces)
    with quiet_vtk():
        if n_open:
            fill = vtkFillHolesFilter()
            fill.SetHoleSize(2 * float(np.linalg.norm(np.ptp(vertices, axis=0))))
            fill.SetInputData(poly_data)
            fill.Update()
            poly_data = fill.GetOutput()
        orient = vtkPolyDataNormals()
        orient.ConsistencyOn()
        orient.SplittingOff()
        orient.NonManifoldTraversalOff()
        orient.SetInputData(poly_data)
        orient.Update()
        closed_vertices, closed_faces = _compact(*from_poly_data(orient.GetOutput()))
    if not len(closed_faces) or not _is_balanced(closed_faces, len(closed_vertices)):
        problem = f"is not a closed surface: {n_open} open edges, which could not be filled"
        if n_open == 0:
            problem = "is not a closed surface: more than two triangles meet in an edge and do not agree"
        raise InputError(source, problem, _CLOSE_REMEDY)
    notes.append(
        f"holes with {n_open} open edges were filled" if n_open else "triangles were turned to agree"
    )
    return closed_vertices, closed_faces
