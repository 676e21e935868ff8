"""VTP surfaces by vtk, with counts checked before and indices after it reads; its own types to and from arrays."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int, Int64
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import (
    vtkLogger,
    vtkOutputWindow,
    vtkPoints,
    vtkStringArray,
    vtkStringOutputWindow,
)
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLPolyDataWriter

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import name_for_library
from implicit_atlas.io.payload import DAMAGED_REMEDY, MAX_DEFLATE_RATIO
from implicit_atlas.io.polygons import triangles_of
from implicit_atlas.io.surface_files import Space, Surface, read_bytes, space_in

_REEXPORT = "Export the surface again as polygonal data (STL, PLY, OBJ, VTP or VTK)."
_XML_COUNTS = re.compile(rb"\bNumberOf[A-Z]\w*\s*=\s*[\"'](\d+)")
_SPACE_FIELD = "SPACE"
_VTK_LOCK = threading.RLock()


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
    poly_data = _read(path)
    field = poly_data.GetFieldData().GetAbstractArray(_SPACE_FIELD)
    named = f"SPACE={field.GetVariantValue(0).ToString()}" if field and field.GetNumberOfValues() else ""
    try:
        vertices, faces = from_poly_data(poly_data)
    except ValueError as error:
        raise InputError(path, f"has {error}", _REEXPORT) from error
    return Surface(vertices, faces, space_in(named.encode()))


def write_vtp(
    path: Path,
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    space: Space,
    values: Mapping[str, Float[np.ndarray, " v"]] | None = None,
) -> None:
    """Write triangles as VTP; the space goes into the field data, where 3D Slicer looks for it.

    Args:
        path: of the file.
        vertices: points in that space, mm.
        faces: vertex indices of each triangle.
        space: of the points.
        values: numbers of each vertex, by name.

    Raises:
        OSError: vtk could not write the file.
    """
    poly_data = to_poly_data(vertices, faces)
    field = vtkStringArray()
    field.SetName(_SPACE_FIELD)
    field.InsertNextValue(space)
    poly_data.GetFieldData().AddArray(field)
    for name, numbers in (values or {}).items():
        array = numpy_to_vtk(np.ascontiguousarray(numbers, np.float64), deep=True)
        array.SetName(name)
        poly_data.GetPointData().AddArray(array)
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


def from_poly_data(poly_data: vtkPolyData) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
    """Return the points of vtk data, and its polygons and strips as triangles.

    Raises:
        ValueError: a vertex that does not exist.
    """
    points = poly_data.GetPoints()
    vertices = vtk_to_numpy(points.GetData()) if points is not None else np.zeros((0, 3))
    faces = triangles_of(_cells(poly_data.GetPolys()), _cells(poly_data.GetStrips()), len(vertices))
    return vertices.astype(np.float64), faces


@contextmanager
def quiet_vtk() -> Iterator[vtkStringOutputWindow]:
    """Catch what vtk would print on the standard error, and yield the window that holds it.

    Helper objects deep inside a reader report their failures only there. The window is the whole process's,
    so one thread at a time may use it.
    """
    with _VTK_LOCK:
        shown_in, verbosity = vtkOutputWindow.GetInstance(), vtkLogger.GetCurrentVerbosityCutoff()
        window = vtkStringOutputWindow()
        vtkOutputWindow.SetInstance(window)
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
        try:
            yield window
        finally:
            vtkOutputWindow.SetInstance(shown_in)
            vtkLogger.SetStderrVerbosity(vtkLogger.ConvertToVerbosity(verbosity))


def _check_counts(counts: list[int], possible: int, path: Path) -> None:
    """Refuse counts of points or cells of which the file could not hold one byte each."""
    if counts and max(counts) > possible:
        problem = f"claims {max(counts)} points or cells, which its bytes cannot hold"
        raise InputError(path, problem, DAMAGED_REMEDY)


def _read(path: Path) -> vtkPolyData:
    reader = vtkXMLPolyDataReader()
    reader.SetFileName(name_for_library(path))
    with quiet_vtk() as window:
        reader.Update()
    if "ERROR" in window.GetOutput() or reader.GetErrorCode():
        raise InputError(path, "cannot be read by vtk: it is damaged or truncated", DAMAGED_REMEDY)
    return reader.GetOutput()


def _cells(cells: vtkCellArray) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]]:
    """Return where each cell starts (one more number than cells) and the vertices of all cells in a row."""
    offsets, corners = vtk_to_numpy(cells.GetOffsetsArray()), vtk_to_numpy(cells.GetConnectivityArray())
    return offsets.astype(np.int64), corners.astype(np.int64)
