"""STL, PLY and OBJ surfaces as stored: counts are held against the bytes, nothing is repaired.

STL and OBJ are parsed here, because trimesh reads a lying STL as an empty scene and an OBJ face index of 0 as
the last vertex; PLY is parsed by trimesh behind a check of its header.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from implicit_atlas.errors import InputError
from implicit_atlas.io.payload import DAMAGED_REMEDY, open_input

Space = Literal["RAS", "LPS"]

_REEXPORT = "Export the surface again as STL, PLY, OBJ, VTP or VTK."
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_STL_HEADER_BYTES = 84
_SPACE_TAG = re.compile(rb"SPACE\s*=\s*(RAS|LPS)", re.IGNORECASE)
_PLY_BYTES = {"char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "float": 4, "double": 8}
_PLY_BYTES |= {
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "float64": 8,
}
_HEAD_BYTES = 4096


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles as a file stores them, not yet checked for sense.

    Args:
        vertices: points in the file's own space, mm.
        faces: vertex indices of each triangle.
        space: what the file says its space is; None if it does not say.
    """

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    space: Space | None


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        InputError: the file cannot be read, or is empty.
    """
    with open_input(path) as stream:
        content = stream.read()
    if not content:
        raise InputError(path, "is empty (0 bytes)", DAMAGED_REMEDY)
    return content


def space_in(text: bytes) -> Space | None:
    """Return the space that a header or comment names in 3D Slicer's way: "SPACE=RAS" or "SPACE=LPS"."""
    match = _SPACE_TAG.search(text)
    if match is None:
        return None
    return "RAS" if match[1].upper() == b"RAS" else "LPS"


def read_stl(path: Path) -> Surface:
    """Read a binary or text STL.

    Raises:
        InputError: the number of triangles does not fit the file's size, or the text is broken.
    """
    content = read_bytes(path)
    count = int.from_bytes(content[80:84], "little")
    if len(content) == _STL_HEADER_BYTES + count * _STL_TRIANGLE.itemsize:
        triangles = np.frombuffer(content, _STL_TRIANGLE, offset=_STL_HEADER_BYTES)
        with np.errstate(invalid="ignore"):  # signalling NaNs, which the checks that follow refuse
            corners = triangles["corners"].astype(np.float64)
        return _soup(corners, space_in(content[:80]))
    if content.lstrip()[:5].lower() == b"solid":
        return _text_stl(content, path)
    if len(content) < _STL_HEADER_BYTES:
        raise InputError(path, f"is truncated: {len(content)} bytes are no STL", DAMAGED_REMEDY)
    problem = f"claims {count} triangles but has {len(content)} bytes"
    raise InputError(path, problem, DAMAGED_REMEDY)


def read_obj(path: Path) -> Surface:
    """Read the vertices and polygons of a Wavefront OBJ; polygons are split into fans.

    Raises:
        InputError: a number that is none, or a vertex index that does not exist.
    """
    content = read_bytes(path)
    vertices: list[list[str]] = []
    faces: list[tuple[int, int, int]] = []
    try:
        for line in content.decode("latin-1").replace("\\\n", " ").splitlines():
            words = line.split()
            if words[:1] == ["v"]:
                vertices.append(words[1:4])
            elif words[:1] == ["f"]:
                corners = [_obj_index(word, len(vertices)) for word in words[1:]]
                faces.extend((corners[0], *pair) for pair in pairwise(corners[1:]))
        points = np.array(vertices, np.float64).reshape(-1, 3)
    except ValueError as error:
        raise InputError(path, f"has a line that is not OBJ ({error})", _REEXPORT) from error
    head = b"\n".join(line for line in content[:_HEAD_BYTES].splitlines() if line.startswith(b"#"))
    return Surface(points, np.array(faces, np.int64).reshape(-1, 3), space_in(head))


def read_ply(path: Path) -> Surface:
    """Read a text or binary PLY.

    Raises:
        InputError: the header claims more than the file holds, or the body cannot be parsed.
    """
    content = read_bytes(path)
    header = _ply_header(content, path)
    import trimesh  # takes more than a second, which only PLY files need

    try:
        loaded = trimesh.load(io.BytesIO(content), file_type="ply", process=False)
    except Exception as error:  # trimesh raises whatever its parsing happened to run into
        raise InputError(path, f"cannot be parsed as PLY ({error})", _REEXPORT) from error
    vertices, faces = getattr(loaded, "vertices", ()), getattr(loaded, "faces", ())
    points = np.array(vertices, np.float64).reshape(-1, 3)
    comments = b"\n".join(line for line in header if line.startswith((b"comment", b"obj_info")))
    return Surface(points, np.array(faces, np.int64).reshape(-1, 3), space_in(comments))


def _soup(corners: Float64[np.ndarray, "f 3 3"], space: Space | None) -> Surface:
    """Return separate triangles as a surface with three vertices each."""
    return Surface(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), space)


def _text_stl(content: bytes, path: Path) -> Surface:
    corners = re.findall(rb"\bvertex\s+(\S+)\s+(\S+)\s+(\S+)", content)
    if len(corners) != 3 * content.count(b"endfacet") or b"endsolid" not in content:
        raise InputError(path, "is truncated: its last facet or 'endsolid' is missing", DAMAGED_REMEDY)
    try:
        points = np.array(corners, dtype=bytes).astype(np.float64).reshape(-1, 3, 3)
    except ValueError as error:
        raise InputError(path, f"has a vertex that is no number ({error})", _REEXPORT) from error
    return _soup(points, space_in(content[:_HEAD_BYTES].splitlines()[0]))


def _obj_index(word: str, n_vertices: int) -> int:
    """Return the vertex of "7", "7/1/2" or "-1" (the last one so far), counted from 0."""
    index = int(word.split("/", 1)[0])
    if index == 0:
        raise ValueError("vertex indices start at 1, found 0")
    if index < 0 and -index > n_vertices:
        raise ValueError(f"vertex {index} does not exist")
    return index - 1 if index > 0 else n_vertices + index


def _ply_header(content: bytes, path: Path) -> list[bytes]:
    """Return a PLY's header lines, having held its element counts against the bytes that follow."""
    end = content.find(b"end_header")
    if not content.startswith(b"ply") or end < 0:
        raise InputError(path, "has no PLY header", _REEXPORT)
    lines = [line.strip() for line in content[:end].splitlines()]
    body = content[end:].partition(b"\n")[2]
    is_text = any(line.startswith(b"format ascii") for line in lines)
    try:
        claimed = _ply_claim(lines, is_text)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(path, f"has a PLY header that cannot be read ({error})", _REEXPORT) from error
    held = sum(1 for line in body.splitlines() if line.strip()) if is_text else len(body)
    if claimed > held:
        unit = "lines" if is_text else "bytes"
        problem = f"header claims at least {claimed} {unit} of vertices and faces, the file has {held}"
        raise InputError(path, problem, DAMAGED_REMEDY)
    return lines


def _ply_claim(lines: list[bytes], is_text: bool) -> int:
    """Return the least number of lines (text) or bytes (binary) that the elements of a PLY header take."""
    claimed, count = 0, 0
    for words in (line.decode("latin-1").split() for line in lines):
        if words[:1] == ["element"]:
            count = int(words[2])
            if count < 0:
                raise ValueError(f"element count {count}")
            claimed += count if is_text else 0
        elif words[:1] == ["property"] and not is_text:
            # A list takes at least its own length field.
            claimed += count * _PLY_BYTES[words[2] if words[1] == "list" else words[1]]
    return claimed
