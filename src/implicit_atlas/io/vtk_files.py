"""VTP and legacy VTK surfaces by vtk, with counts checked before and indices after it reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkCommand, vtkObject, vtkPoints, vtkStringArray
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
from vtkmodules.vtkFiltersCore import vtkTriangleFilter
from vtkmodules.vtkIOLegacy import vtkPolyDataReader
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLPolyDataWriter

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import name_for_library
from implicit_atlas.io.payload import DAMAGED_REMEDY, MAX_DEFLATE_RATIO
from implicit_atlas.io.surface_files import Space, Surface, read_bytes, space_in

_REEXPORT = "Export the surface again as polygonal data (STL, PLY, OBJ, VTP or VTK)."
_LEGACY_COUNTS = re.compile(
    rb"^(?:POINTS|POLYGONS|TRIANGLE_STRIPS|VERTICES|LINES)\s+(\d+)(?:\s+(\d+))?", re.MULTILINE
)
_XML_COUNTS = re.compile(rb"\bNumberOf[A-Z]\w*\s*=\s*[\"'](\d+)")
_SPACE_FIELD = "SPACE"


def read_legacy_vtk(path: Path) -> Surface:
    """Read the polygons of a legacy .vtk file.

    Raises:
        InputError: no polygonal data, counts that the file cannot hold, or a file that vtk cannot read.
    """
    content = read_bytes(path)
    if not content.startswith(b"# vtk DataFile"):
        raise InputError(path, "is no legacy VTK file", _REEXPORT)
    if not re.search(rb"^DATASET\s+POLYDATA", content[:4096], re.MULTILINE):
        raise InputError(path, "holds no polygonal data (DATASET POLYDATA)", _REEXPORT)
    counts = [int(count) for match in _LEGACY_COUNTS.finditer(content) for count in match.groups() if count]
    _check_counts(counts, len(content), path)
    reader = vtkPolyDataReader()
    poly_data = _read(reader, path)
    return _surface(poly_data, space_in((reader.GetHeader() or "").encode("utf-8", "replace")), path)


def read_vtp(path: Path) -> Surface:
    """Read the polygons of a .vtp file.

    Raises:
        InputError: counts that the file cannot hold, or a file that vtk cannot read.
    """
    content = read_bytes(path)
    if b"PolyData" not in content[:4096] or b"<!" in content[:4096].replace(b"<!--", b""):
        raise InputError(path, "is no VTP file (XML polygonal data)", _REEXPORT)
    ratio = MAX_DEFLATE_RATIO if b"compressor" in content[:4096] else 1
    counts = [int(match[1]) for match in _XML_COUNTS.finditer(content)]
    _check_counts(counts, len(content) * ratio, path)
    poly_data = _read(vtkXMLPolyDataReader(), path)
    field = poly_data.GetFieldData().GetAbstractArray(_SPACE_FIELD)
    named = f"SPACE={field.GetVariantValue(0).ToString()}" if field and field.GetNumberOfValues() else ""
    return _surface(poly_data, space_in(named.encode()), path)


def write_vtp(
    path: Path, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], space: Space
) -> None:
    """Write triangles as VTP; the space goes into the field data, where 3D Slicer looks for it.

    Raises:
        OSError: vtk could not write the file.
    """
    poly_data = to_poly_data(vertices, faces)
    field = vtkStringArray()
    field.SetName(_SPACE_FIELD)
    field.InsertNextValue(space)
    poly_data.GetFieldData().AddArray(field)
    writer = vtkXMLPolyDataWriter()
    writer.SetFileName(name_for_library(path))
    writer.SetInputData(poly_data)
    with quiet_vtk():
        if not writer.Write():
            raise OSError("vtk could not write the surface")


def to_poly_data(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> vtkPolyData:
    """Return triangles as vtk's type, in double precision."""
    points, cells, poly_data = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices, np.float64), deep=True))
    cells.SetData(3, numpy_to_vtkIdTypeArray(np.ascontiguousarray(faces, np.int64).ravel(), deep=True))
    poly_data.SetPoints(points)
    poly_data.SetPolys(cells)
    return poly_data


def from_poly_data(poly_data: vtkPolyData) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Return the points of vtk data with valid indices, and its polygons and strips as triangles."""
    offsets, corners = _cells(poly_data.GetPolys())
    if poly_data.GetNumberOfStrips() or (np.diff(offsets) != 3).any():
        triangles = vtkTriangleFilter()
        triangles.PassLinesOff()
        triangles.PassVertsOff()
        triangles.SetInputData(poly_data)
        triangles.Update()
        poly_data = triangles.GetOutput()
        offsets, corners = _cells(poly_data.GetPolys())
    points = poly_data.GetPoints()
    vertices = vtk_to_numpy(points.GetData()) if points is not None else np.zeros((0, 3))
    return vertices.astype(np.float64), corners.astype(np.int64).reshape(-1, 3)


@contextmanager
def quiet_vtk() -> Iterator[None]:
    """Keep vtk from printing on the standard error; its failures are raised instead."""
    shown = vtkObject.GetGlobalWarningDisplay()
    vtkObject.SetGlobalWarningDisplay(0)
    try:
        yield
    finally:
        vtkObject.SetGlobalWarningDisplay(shown)


def _check_counts(counts: list[int], possible: int, path: Path) -> None:
    """Refuse counts of points or cells of which the file could not hold one byte each."""
    if counts and max(counts) > possible:
        problem = f"claims {max(counts)} points or cells, which its bytes cannot hold"
        raise InputError(path, problem, DAMAGED_REMEDY)


def _read(reader: vtkPolyDataReader | vtkXMLPolyDataReader, path: Path) -> vtkPolyData:
    failures: list[str] = []
    reader.AddObserver(vtkCommand.ErrorEvent, lambda _, event: failures.append(event))
    reader.SetFileName(name_for_library(path))
    with quiet_vtk():
        reader.Update()
    if failures or reader.GetErrorCode():
        raise InputError(path, "cannot be read by vtk: it is damaged or truncated", DAMAGED_REMEDY)
    return reader.GetOutput()


def _surface(poly_data: vtkPolyData, space: Space | None, path: Path) -> Surface:
    """Return the triangles of what was read, once every index is known to be in range."""
    for cells in (poly_data.GetPolys(), poly_data.GetStrips()):
        offsets, corners = _cells(cells)
        in_order = offsets[0] == 0 and (np.diff(offsets) >= 0).all() and offsets[-1] == len(corners)
        in_range = len(corners) == 0 or (corners.min() >= 0 and corners.max() < poly_data.GetNumberOfPoints())
        if not (in_order and in_range):
            raise InputError(path, "has faces with vertices that do not exist", _REEXPORT)
    vertices, faces = from_poly_data(poly_data)
    return Surface(vertices, faces, space)


def _cells(cells: vtkCellArray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each cell starts (one more number than cells) and the vertices of all cells in a row."""
    return vtk_to_numpy(cells.GetOffsetsArray()), vtk_to_numpy(cells.GetConnectivityArray())
