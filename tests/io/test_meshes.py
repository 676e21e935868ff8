"""Surfaces: what is written is read, lies and damage are refused, and repairs are noted."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import trimesh
from io_samples import as_obj, refused, sphere, written

from implicit_atlas.errors import InputError
from implicit_atlas.io import Mesh, read_mesh, write_mesh
from implicit_atlas.io.vtk_files import write_vtp

WRITTEN = [".stl", ".ply", ".obj", ".vtp"]
BALL = sphere()
MESH = Mesh(np.asarray(BALL.vertices), np.asarray(BALL.faces))

NO_SPACE = "it names no space: left-posterior-superior is taken"


def ball_as(suffix: str, folder: Path) -> bytes:
    """The bytes of a sphere as this package writes it."""
    write_mesh(folder / f"source{suffix}", MESH)
    return (folder / f"source{suffix}").read_bytes()


def in_ras(vertices: np.ndarray) -> np.ndarray:
    return vertices * (-1, -1, 1)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    vertices, faces = MESH.vertices.copy(), MESH.faces.copy()
    write_mesh(tmp_path / f"a{suffix}", MESH)
    mesh = read_mesh(tmp_path / f"a{suffix}")
    assert mesh.notes == ()
    np.testing.assert_allclose(
        mesh.vertices[mesh.faces], MESH.vertices[MESH.faces], atol=0 if suffix in (".obj", ".vtp") else 1e-5
    )
    assert mesh.volume_mm3 == pytest.approx(BALL.volume, rel=1e-5)
    np.testing.assert_array_equal(MESH.vertices, vertices)
    np.testing.assert_array_equal(MESH.faces, faces)


def test_glb_is_in_metres_and_points_left_up_and_to_the_front(tmp_path: Path) -> None:
    moved = Mesh(MESH.vertices * (1, 2, 3) + (10.0, 20.0, 30.0), MESH.faces)
    write_mesh(tmp_path / "a.glb", moved)
    shown = trimesh.load(tmp_path / "a.glb", force="mesh")
    right, anterior, superior = moved.vertices.T / 1000
    np.testing.assert_allclose(shown.vertices, np.stack([-right, superior, anterior], axis=-1), atol=1e-7)
    assert shown.volume == pytest.approx(moved.volume_mm3 * 1e-9, rel=1e-5)  # not mirrored


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".vtp"])
def test_the_order_of_vertices_survives(tmp_path: Path, suffix: str) -> None:
    write_mesh(tmp_path / f"a{suffix}", MESH)
    mesh = read_mesh(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(mesh.vertices, MESH.vertices, atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, MESH.faces)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_files_hold_lps_and_say_so_and_the_tag_is_believed(tmp_path: Path, suffix: str) -> None:
    content = ball_as(suffix, tmp_path)
    if suffix != ".vtp":
        assert b"SPACE=LPS" in content[:300]
        stored = np.asarray(trimesh.load(tmp_path / f"source{suffix}", force="mesh").vertices)
        np.testing.assert_allclose(stored.mean(axis=0), in_ras(MESH.vertices.mean(axis=0)), atol=0.01)
        content = content.replace(b"SPACE=LPS", b"SPACE=RAS")
        mesh = read_mesh(written(tmp_path, content, f"ras{suffix}"))
        np.testing.assert_allclose(mesh.vertices.mean(axis=0), in_ras(MESH.vertices).mean(axis=0), atol=0.01)
        content = content.replace(b"SPACE=RAS", b"no space.")
        untagged = read_mesh(written(tmp_path, content, f"plain{suffix}"))
        np.testing.assert_allclose(untagged.vertices.mean(axis=0), MESH.vertices.mean(axis=0), atol=0.01)
    assert read_mesh(tmp_path / f"source{suffix}").volume_mm3 > 0


def test_binary_stl_that_lies_about_its_length(tmp_path: Path) -> None:
    content = ball_as(".stl", tmp_path)
    count = len(MESH.faces)
    for claimed in (0, count + 1, 2_000_000_000):
        lying = content[:80] + claimed.to_bytes(4, "little") + content[84:]
        refused(read_mesh, written(tmp_path, lying, "a.stl"), f"claims {claimed} triangles")
    refused(read_mesh, written(tmp_path, content[:-20], "a.stl"), "claims")
    refused(read_mesh, written(tmp_path, content[:50], "a.stl"), "truncated")


def test_a_binary_stl_may_start_like_a_text_stl(tmp_path: Path) -> None:
    content = ball_as(".stl", tmp_path)
    mesh = read_mesh(written(tmp_path, b"solid " + content[6:], "a.stl"))
    assert len(mesh.faces) == len(MESH.faces)


def test_text_stl(tmp_path: Path) -> None:
    text = BALL.export(file_type="stl_ascii")
    path = written(tmp_path, re.sub(r"^solid.*", "solid a SPACE=RAS", text, count=1).encode(), "a.stl")
    mesh = read_mesh(path)
    assert len(mesh.faces) == len(MESH.faces)
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), MESH.vertices.mean(axis=0), atol=1e-3)
    refused(read_mesh, written(tmp_path, text[: len(text) // 2].encode(), "b.stl"), "truncated")
    refused(read_mesh, written(tmp_path, text[:-20].encode(), "c.stl"), "truncated")
    refused(
        read_mesh, written(tmp_path, text.replace("vertex ", "vertex x", 1).encode(), "d.stl"), "no number"
    )
    refused(read_mesh, written(tmp_path, b"solid nothing\nendsolid nothing\n", "e.stl"), "no triangles")


@pytest.mark.parametrize("suffix", [*WRITTEN, ".vtk"])
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    refused(read_mesh, written(tmp_path, b"", f"a{suffix}"), "empty")


@pytest.mark.parametrize("encoding", ["binary", "ascii"])
@pytest.mark.parametrize("element", ["vertex", "face"])
def test_ply_that_claims_too_much(tmp_path: Path, encoding: str, element: str) -> None:
    content = BALL.export(file_type="ply", encoding=encoding)
    content = content if isinstance(content, bytes) else content.encode()
    lying = re.sub(
        rb"element %s \d+" % element.encode(), b"element %s 2000000000" % element.encode(), content
    )
    tracemalloc.start()
    refused(read_mesh, written(tmp_path, lying, "a.ply"), "header claims at least")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2e7


@pytest.mark.parametrize("encoding", ["binary", "ascii"])
def test_ply_of_trimesh_and_truncated(tmp_path: Path, encoding: str) -> None:
    content = BALL.export(file_type="ply", encoding=encoding)
    content = content if isinstance(content, bytes) else content.encode()
    mesh = read_mesh(written(tmp_path, content, "a.ply"))
    np.testing.assert_allclose(mesh.vertices, in_ras(MESH.vertices), atol=1e-4)
    for kept in (0.2, 0.6, 0.95):
        refused(
            read_mesh, written(tmp_path, content[: int(kept * len(content))], "b.ply"), "claims|parsed|closed"
        )


@pytest.mark.parametrize(
    "header",
    [
        b"ply\nformat ascii 1.0\nelement vertex x\nend_header\n",
        b"ply\nformat ascii 1.0\nelement vertex -5\nend_header\n",
        b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty quad x\nend_header\n",
        b"ply\nformat binary_little_endian 1.0\nelement vertex\nend_header\n",
        b"plyxx",
        b"not a mesh at all",
    ],
)
def test_broken_ply_header(tmp_path: Path, header: bytes) -> None:
    refused(read_mesh, written(tmp_path, header + b"\0" * 100, "a.ply"), "PLY header")


def test_points_without_faces(tmp_path: Path) -> None:
    header = (
        b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    )
    refused(read_mesh, written(tmp_path, header + b"end_header\n0 0 0\n1 1 1\n", "a.ply"), "no triangles")
    refused(read_mesh, written(tmp_path, b"v 0 0 0\nv 1 1 1\n", "a.obj"), "no triangles")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"f 1 2 9999", "has a face with vertex 9998"),
        (b"f 0 1 2", "start at 1"),
        (b"f -1 -2 -9999", "does not exist"),
        (b"f a b c", "not OBJ"),
        (b"v 1 2", "not OBJ"),
        (b"v 1 2 x", "not OBJ"),
    ],
)
def test_broken_obj(tmp_path: Path, line: bytes, words: str) -> None:
    refused(
        read_mesh, written(tmp_path, as_obj(MESH.vertices, MESH.faces) + b"\n" + line + b"\n", "a.obj"), words
    )


def test_obj_polygons_negative_indices_and_groups(tmp_path: Path) -> None:
    corners = b"".join(b"v %d %d %d\n" % (x, y, z) for x in (0, 2) for y in (0, 2) for z in (0, 2))
    quads = b"f 1/1/1 2 4 3\no second\nusemtl none\nf 5 7 8 6\nf -8 -4 -3 -7\n"
    quads += b"f 3 4 8 \\\n7\nf 1 3 7 5\nf 2 6 8 4\n"
    mesh = read_mesh(written(tmp_path, b"mtllib none.mtl\n" + corners + quads, "a.obj"))
    assert len(mesh.faces) == 12 and mesh.volume_mm3 == pytest.approx(8)


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vertices_that_are_no_numbers(tmp_path: Path, suffix: str, bad: float) -> None:
    vertices = MESH.vertices.copy()
    vertices[5, 1] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        write_mesh(tmp_path / f"a{suffix}", Mesh(vertices, MESH.faces))
    if suffix == ".vtp":
        write_vtp(tmp_path / "a.vtp", vertices, MESH.faces, "LPS")
    elif suffix == ".obj":
        written(tmp_path, as_obj(vertices, MESH.faces), "a.obj")
    else:
        content = bytearray(ball_as(suffix, tmp_path))
        place = len(content) - 38 if suffix == ".stl" else content.index(b"end_header") + 11 + 4 * 16
        content[place : place + 4] = np.float32(bad).tobytes()
        written(tmp_path, bytes(content), f"a{suffix}")
    refused(read_mesh, tmp_path / f"a{suffix}", "NaN or infinite")


def test_absurd_coordinates(tmp_path: Path) -> None:
    refused(
        read_mesh, written(tmp_path, as_obj(MESH.vertices * 1e6, MESH.faces), "a.obj"), "coordinates up to"
    )


def test_inside_out_is_turned_and_noted(tmp_path: Path) -> None:
    mesh = read_mesh(written(tmp_path, as_obj(MESH.vertices, MESH.faces[:, ::-1]), "a.obj"))
    assert mesh.volume_mm3 == pytest.approx(BALL.volume)
    assert mesh.notes == ("the surface was inside-out and was turned", NO_SPACE)


def test_triangles_that_do_not_agree_are_turned_and_noted(tmp_path: Path) -> None:
    faces = MESH.faces.copy()
    faces[::3] = faces[::3, ::-1]
    mesh = read_mesh(written(tmp_path, as_obj(MESH.vertices, faces), "a.obj"))
    assert mesh.volume_mm3 == pytest.approx(BALL.volume)
    assert mesh.notes[0] == "triangles were turned to agree"


def test_a_hole_is_filled_and_noted(tmp_path: Path) -> None:
    cut = MESH.faces[BALL.triangles_center[:, 2] < 61]
    mesh = read_mesh(written(tmp_path, as_obj(MESH.vertices, cut), "a.obj"))
    assert re.fullmatch(r"holes with \d+ open edges were filled", mesh.notes[0])
    cap = 4**2 * np.pi * (30 - 4) / 3
    assert mesh.volume_mm3 == pytest.approx(BALL.volume - cap, rel=0.02)


def test_a_sheet_encloses_nothing(tmp_path: Path) -> None:
    sheet = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    refused(
        read_mesh,
        written(tmp_path, as_obj(sheet, np.array([[0, 1, 2], [0, 2, 3]])), "a.obj"),
        "no volume|not a closed",
    )


def test_a_fin_that_cannot_be_closed(tmp_path: Path) -> None:
    fin = np.vstack([MESH.faces, [[*MESH.faces[0, :2], len(MESH.vertices)]]])
    vertices = np.vstack([MESH.vertices, [[0.0, 0, 0]]])
    refused(read_mesh, written(tmp_path, as_obj(vertices, fin), "a.obj"), "not a closed surface")


def test_collapsed_triangles_are_dropped_and_noted(tmp_path: Path) -> None:
    faces = np.vstack([MESH.faces, [[3, 3, 4]]])
    mesh = read_mesh(written(tmp_path, as_obj(MESH.vertices, faces), "a.obj"))
    assert len(mesh.faces) == len(MESH.faces)
    assert mesh.notes == ("1 collapsed triangles were dropped", NO_SPACE)


def test_two_pieces_stay_two(tmp_path: Path) -> None:
    vertices = np.vstack([MESH.vertices, MESH.vertices + 7.0])
    faces = np.vstack([MESH.faces, MESH.faces + len(MESH.vertices)])
    mesh = read_mesh(written(tmp_path, as_obj(vertices, faces), "a.obj"))
    assert mesh.notes == (NO_SPACE,) and mesh.volume_mm3 == pytest.approx(2 * BALL.volume)


def test_unknown_formats(tmp_path: Path) -> None:
    refused(read_mesh, written(tmp_path, b"x", "a.fbx"), "not a known format")
    with pytest.raises(InputError, match="no format that surfaces are written in"):
        write_mesh(tmp_path / "a.vtk", MESH)
    with pytest.raises(InputError, match="no triangles"):
        write_mesh(tmp_path / "a.stl", Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64)))


@pytest.mark.parametrize("suffix", WRITTEN)
def test_any_file_name(tmp_path: Path, suffix: str) -> None:
    for name in ("a b", "Größe 肝", "line\nbreak"):
        write_mesh(tmp_path / "new" / f"{name}{suffix}", MESH)
        assert len(read_mesh(tmp_path / "new" / f"{name}{suffix}").faces) == len(MESH.faces)
    assert len(list((tmp_path / "new").iterdir())) == 3
