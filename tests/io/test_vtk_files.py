"""VTP and legacy VTK: what vtk writes is read, and lies and damage are refused without ending the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from io_samples import refused, sphere, written
from vtkmodules.vtkCommonCore import vtkStringArray
from vtkmodules.vtkFiltersCore import vtkStripper
from vtkmodules.vtkFiltersSources import vtkCylinderSource
from vtkmodules.vtkIOLegacy import vtkPolyDataWriter

from implicit_atlas.io import Mesh, read_mesh, write_mesh

LEGACY = (
    b"# vtk DataFile Version 3.0\ntitle\nASCII\nDATASET POLYDATA\nPOINTS 4 float\n0 0 0 1 0 0 0 1 0 0 0 1\n"
    b"POLYGONS 4 16\n3 0 2 1\n3 0 1 3\n3 1 2 3\n3 0 3 2\n"
)


def test_vtp_field_data_as_slicer_writes_it(tmp_path: Path) -> None:
    points = b" ".join(b"%g" % value for value in np.eye(4, 3, -1).ravel())
    vtp = (
        b'<VTKFile type="PolyData" version="0.1" byte_order="LittleEndian"><PolyData>\n'
        b'<FieldData><Array type="String" Name="SPACE" NumberOfTuples="1" format="ascii">82 65 83 0</Array>'
        b'</FieldData>\n<Piece NumberOfPoints="4" NumberOfPolys="4">\n<Points><DataArray type="Float32" '
        b'NumberOfComponents="3" format="ascii">' + points + b"</DataArray></Points>\n<Polys>"
        b'<DataArray type="Int32" Name="connectivity" format="ascii">0 2 1 0 1 3 1 2 3 0 3 2</DataArray>'
        b'<DataArray type="Int32" Name="offsets" format="ascii">3 6 9 12</DataArray></Polys>\n'
        b"</Piece></PolyData></VTKFile>\n"
    )
    mesh = read_mesh(written(tmp_path, vtp, "a.vtp"))
    assert mesh.vertices.min() == 0 and mesh.volume_mm3 == pytest.approx(1 / 6)
    mesh = read_mesh(written(tmp_path, vtp.replace(b"82 65 83 0", b"76 80 83 0"), "b.vtp"))
    assert mesh.vertices.min() == -1
    refused(read_mesh, written(tmp_path, vtp.replace(b"0 3 2<", b"0 3 9<"), "c.vtp"), "do not exist")
    refused(
        read_mesh,
        written(tmp_path, vtp.replace(b'Points="4"', b'Points="2000000000"'), "d.vtp"),
        "cannot hold",
    )
    refused(read_mesh, written(tmp_path, vtp[:-300], "e.vtp"), "damaged or truncated")
    refused(
        read_mesh,
        written(tmp_path, vtp.replace(b"<PolyData>", b"<!ENTITY x><PolyData>"), "f.vtp"),
        "no VTP file",
    )


def test_legacy_vtk(tmp_path: Path) -> None:
    mesh = read_mesh(written(tmp_path, LEGACY, "a.vtk"))
    assert mesh.volume_mm3 == pytest.approx(1 / 6) and mesh.vertices.min() == -1
    assert read_mesh(written(tmp_path, LEGACY.replace(b"title", b"SPACE=RAS"), "b.vtk")).vertices.min() == 0
    modern = LEGACY.replace(b"3.0", b"5.1").partition(b"POLYGONS")[0] + (
        b"POLYGONS 5 12\nOFFSETS vtktypeint64\n0 3 6 9 12\n"
        b"CONNECTIVITY vtktypeint64\n0 2 1 0 1 3 1 2 3 0 3 2\n"
    )
    np.testing.assert_array_equal(read_mesh(written(tmp_path, modern, "c.vtk")).faces, mesh.faces)
    refused(read_mesh, written(tmp_path, modern.replace(b"9 12\n", b"9 1200\n"), "d.vtk"), "do not exist")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"3 0 3 2", b"3 0 3 99", "do not exist"),
        (b"3 0 3 2", b"3 0 3 -1", "do not exist"),
        (b"POINTS 4", b"POINTS 2000000000", "6000000000 numbers where the file ends"),
        (b"POLYGONS 4 16", b"POLYGONS 2000000000 8000000000", "where the file ends"),
        (b"POLYGONS 4 16", b"POLYGONS 5 16", "do not add up"),
        (b"POLYGONS 4 16", b"POLYGONS 4 -1", "-1 numbers"),
        (b"POINTS 4 float", b"POINTS 4 string", "of type 'string'"),
        (b"POLYGONS", b"POLYGNOS", "where a section should start"),
        (b"3 0 1 3", b"3 0 x 3", "damaged or truncated"),
        (b"3 0 3 2\n", b"", "damaged or truncated"),
        (b"POLYDATA", b"UNSTRUCTURED_GRID", "no polygonal data"),
        (b"# vtk", b"# vkt", "no legacy VTK"),
        (b"0 0 0 1 0 0", b"nan 0 0 1 0 0", "NaN|damaged"),
    ],
)
def test_broken_legacy_vtk(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    assert old in LEGACY
    refused(read_mesh, written(tmp_path, LEGACY.replace(old, new), "a.vtk"), words)


@pytest.mark.parametrize("version", [42, 51])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("merged", [False, True])
def test_legacy_vtk_as_vtk_writes_it(tmp_path: Path, version: int, binary: bool, merged: bool) -> None:
    cylinder = vtkCylinderSource()
    cylinder.SetResolution(9)
    cylinder.SetHeight(5)
    strips = vtkStripper()
    strips.SetInputConnection(cylinder.GetOutputPort())
    (strips if merged else cylinder).Update()
    poly_data = (strips if merged else cylinder).GetOutput()
    field = vtkStringArray()
    field.SetName("note")
    for text in ("short", "long " * 20, ""):
        field.InsertNextValue(text)
    poly_data.GetFieldData().AddArray(field)
    writer = vtkPolyDataWriter()
    writer.SetFileName(str(tmp_path / "a.vtk"))
    writer.SetHeader("3D Slicer output. SPACE=RAS")
    writer.SetFileVersion(version)
    writer.SetFileType(2 if binary else 1)
    writer.SetInputData(poly_data)
    assert writer.Write()
    mesh = read_mesh(tmp_path / "a.vtk")
    assert mesh.notes == () and len(mesh.faces) == 2 * 9 + 2 * 7
    area = 9 / 2 * 0.25 * np.sin(2 * np.pi / 9)
    assert mesh.volume_mm3 == pytest.approx(5 * area, rel=1e-5)
    np.testing.assert_allclose(mesh.vertices[:, 1].max(), 2.5)


def test_legacy_polygons_and_strips(tmp_path: Path) -> None:
    box = b"".join(b"%d %d %d\n" % (x, y, z) for x in (0, 2) for y in (0, 2) for z in (0, 2))
    head = LEGACY.partition(b"POINTS")[0] + b"POINTS 8 float\n" + box
    quads = b"POLYGONS 6 30\n4 0 1 3 2\n4 4 6 7 5\n4 0 4 5 1\n4 2 3 7 6\n4 0 2 6 4\n4 1 5 7 3\n"
    assert read_mesh(written(tmp_path, head + quads, "a.vtk")).volume_mm3 == pytest.approx(8)
    strips = b"POLYGONS 2 10\n4 0 2 6 4\n4 1 5 7 3\nTRIANGLE_STRIPS 1 11\n10 0 1 2 3 6 7 4 5 0 1\n"
    mesh = read_mesh(written(tmp_path, head + strips, "b.vtk"))
    assert len(mesh.faces) == 12 and mesh.volume_mm3 == pytest.approx(8)


def test_points_without_faces(tmp_path: Path) -> None:
    refused(read_mesh, written(tmp_path, LEGACY.partition(b"POLYGONS")[0], "a.vtk"), "no triangles")


def test_a_name_that_is_not_unicode_is_named(tmp_path: Path) -> None:
    ball = sphere()
    write_mesh(tmp_path / "a.vtp", Mesh(np.asarray(ball.vertices), np.asarray(ball.faces)))
    path = (tmp_path / "a.vtp").rename(tmp_path / "a\udcff.vtp")
    refused(read_mesh, path, "not valid Unicode")
    assert len(read_mesh(written(tmp_path, LEGACY, "a\udcff.vtk")).faces) == 4
