"""Surfaces in RAS millimetres: the Mesh type, read from and written to surface files.

Files are written with LPS coordinates and say so ("SPACE=LPS" in the STL header, a PLY or OBJ comment, the
VTP field data), as 3D Slicer does. A file that names its space is believed; one that does not is taken for
LPS, Slicer's default. GLB, for viewers and slides, is written only: metres, y upwards (superior), as glTF 2.0 has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import suffix_of, unknown_format
from implicit_atlas.io.legacy_vtk import read_legacy_vtk
from implicit_atlas.io.mesh_repair import check_surface, closed_surface, enclosed_volume
from implicit_atlas.io.output import make_folder
from implicit_atlas.io.surface_files import Surface, read_obj, read_ply, read_stl
from implicit_atlas.io.vtk_files import read_vtp, write_vtp
from implicit_atlas.support.files import write_atomic

_FLIP_XY = np.array([-1.0, -1.0, 1.0])
_COMMENT = "ImplicitAtlas surface in mm. SPACE=LPS"
_READERS: dict[str, Callable[[Path], Surface]] = {
    ".stl": read_stl,
    ".ply": read_ply,
    ".obj": read_obj,
    ".vtp": read_vtp,
    ".vtk": read_legacy_vtk,
}


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle surface.

    Args:
        vertices: points in RAS mm.
        faces: vertex indices of each triangle, counter-clockwise seen from outside.
        notes: repairs made while reading, each a sentence without its full stop.
    """

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    notes: tuple[str, ...] = ()

    @property
    def volume_mm3(self) -> float:
        """Volume inside the surface in mm^3 (it must be closed)."""
        return enclosed_volume(self.vertices, self.faces) if len(self.faces) else 0.0


def read_mesh(path: str | Path) -> Mesh:
    """Read a closed surface, repaired where that is possible; `Mesh.notes` says how.

    Raises:
        InputError: an unknown format, a file that lies or is cut off, or a surface that encloses nothing.
    """
    path = Path(path)
    if suffix_of(path) not in _READERS:
        raise unknown_format(path)
    surface = _READERS[suffix_of(path)](path)
    closed = closed_surface(surface, path)
    vertices = closed.vertices if surface.space == "RAS" else closed.vertices * _FLIP_XY
    unnamed = () if surface.space else ("it names no space: left-posterior-superior is taken",)
    return Mesh(vertices, closed.faces, (*closed.notes, *unnamed))


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write a surface by its suffix: binary STL or PLY (single precision), OBJ or VTP (double), in LPS mm, or GLB.

    Raises:
        InputError: no triangles, vertices that are no numbers, another suffix, or the file cannot be written.
    """
    path = Path(path)
    writers: dict[str, Callable[[Mesh], bytes]] = {
        ".stl": _stl_bytes,
        ".ply": _ply_bytes,
        ".obj": _obj_bytes,
        ".glb": _glb_bytes,
    }
    suffix = suffix_of(path)
    if suffix not in (*writers, ".vtp"):
        problem = f"'{suffix}' is no format that surfaces are written in"
        raise InputError(path, problem, "Use .stl, .ply, .obj, .vtp or .glb.")
    if len(mesh.faces) == 0:
        raise InputError(path, "is not written: the surface has no triangles", "Check the mask or field.")
    if not np.isfinite(mesh.vertices).all():
        problem = "is not written: the surface has vertices that are NaN or infinite"
        raise InputError(path, problem, "Check the mask or field.")
    stored = Mesh(mesh.vertices * _FLIP_XY, mesh.faces)
    make_folder(path.parent)
    if suffix == ".vtp":
        write_atomic(path, lambda partial: write_vtp(partial, stored.vertices, stored.faces, "LPS"))
    else:
        write_atomic(path, writers[suffix](stored))


def write_values(path: Path, mesh: Mesh, values: Mapping[str, Float64[np.ndarray, " v"]]) -> None:
    """Write a surface with numbers of each vertex, by name, as VTP (ParaView, 3D Slicer), in LPS mm.

    Raises:
        InputError: another suffix.
    """
    if suffix_of(path) != ".vtp":
        raise InputError(path, "cannot hold numbers of vertices", "Use .vtp.")
    make_folder(path.parent)
    write_atomic(
        path, lambda partial: write_vtp(partial, mesh.vertices * _FLIP_XY, mesh.faces, "LPS", values)
    )


def read_stored(path: Path) -> Mesh:
    """Read a PLY as it is, for meshes whose vertices correspond: nothing is merged, dropped or filled.

    Raises:
        InputError: it cannot be parsed, has no triangles, or what no surface has.
    """
    stored = read_ply(path)
    check_surface(stored, path)
    return Mesh(stored.vertices * (1 if stored.space == "RAS" else _FLIP_XY), stored.faces)


def _stl_bytes(mesh: Mesh) -> bytes:
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles = np.zeros(
        len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    )
    triangles["normal"] = normals / np.where(length > 0, length, 1)
    triangles["corners"] = corners
    return _COMMENT.encode().ljust(80) + len(corners).to_bytes(4, "little") + triangles.tobytes()


def _ply_bytes(mesh: Mesh) -> bytes:
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment {_COMMENT}\n"
        f"element vertex {len(mesh.vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(mesh.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.zeros(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    return header.encode() + mesh.vertices.astype("<f4").tobytes() + faces.tobytes()


def _obj_bytes(mesh: Mesh) -> bytes:
    lines = [f"# {_COMMENT}"]
    lines += [f"v {x!r} {y!r} {z!r}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _glb_bytes(mesh: Mesh) -> bytes:
    import trimesh  # takes more than a second, which few want to wait for

    # glTF's axes point left, up and to the front.
    x, y, z = mesh.vertices.T / 1000
    return trimesh.Trimesh(np.stack([x, z, -y], axis=-1), mesh.faces, process=False).export(file_type="glb")  # pyright: ignore
