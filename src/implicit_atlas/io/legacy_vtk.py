"""Legacy VTK polygonal data, versions 1 to 5, text and binary.

Parsed here and not by vtk: its legacy reader ends the whole process on many damaged files.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from implicit_atlas.errors import InputError
from implicit_atlas.io.payload import DAMAGED_REMEDY
from implicit_atlas.io.polygons import triangles_of
from implicit_atlas.io.surface_files import Surface, read_bytes, space_in

_REEXPORT = "Export the surface again as polygonal data (STL, PLY, OBJ, VTP or VTK)."
_TYPES = {
    "char": "i1",
    "unsigned_char": "u1",
    "short": "i2",
    "unsigned_short": "u2",
    "int": "i4",
    "unsigned_int": "u4",
    "long": "i8",
    "unsigned_long": "u8",
    "vtkidtype": "i4",
    "vtktypeint64": "i8",
    "float": "f4",
    "double": "f8",
}
_CELLS = ("vertices", "lines", "polygons", "triangle_strips")


class _Damaged(ValueError):
    """A number or array that is not there; turned into an InputError by `read_legacy_vtk`."""


class _Cursor:
    """A position in the file's body, from which words and arrays are taken."""

    def __init__(self, content: bytes, position: int, is_text: bool) -> None:
        self.content, self.position, self.is_text = content, position, is_text

    def line(self) -> list[str]:
        """Take the next line that is not empty, as words; nothing at the end."""
        while self.position < len(self.content):
            if words := self._take_line().decode("latin-1").split():
                return words
        return []

    def skip_strings(self, count: int) -> None:
        """Go behind the strings of a field array: a line each, or bytes behind their length."""
        for _ in range(count):
            if self.position >= len(self.content):
                raise _Damaged("strings where the file ends")
            if self.is_text:
                self._take_line()
                continue
            # The two highest bits say whether the length takes 8, 4, 2 or 1 bytes, themselves included.
            n_bytes = 8 >> (self.content[self.position] >> 6)
            length = int.from_bytes(self.content[self.position : self.position + n_bytes], "big")
            self.position += n_bytes + (length & ((1 << (8 * n_bytes - 2)) - 1))

    def skip_block(self) -> None:
        """Go behind the next empty line, which ends a METADATA block."""
        match = re.compile(rb"\n[ \t\r]*\n").search(self.content, self.position - 1)
        self.position = len(self.content) if match is None else match.end()

    def array(self, count: int, type_name: str) -> np.ndarray:
        """Take count numbers."""
        if type_name not in _TYPES or count < 0:
            raise _Damaged(f"{count} numbers of type '{type_name}'")
        dtype = np.dtype(">" + _TYPES[type_name])
        if not self.is_text:
            end = self.position + count * dtype.itemsize
            if end > len(self.content):
                raise _Damaged(f"{count} numbers where the file ends")
            values = np.frombuffer(self.content, dtype, count, self.position)
            self.position = end
            with np.errstate(invalid="ignore"):  # signalling NaNs, which later checks refuse
                return values.astype(np.float64 if dtype.kind == "f" else np.int64)
        # Every number takes a digit and a space, so that a lying count is seen before anything is allocated.
        if 2 * count > len(self.content) - self.position + 1:
            raise _Damaged(f"{count} numbers where the file ends")
        return np.array(self._words(count), np.float64 if dtype.kind == "f" else np.int64)

    def _take_line(self) -> bytes:
        """Take what is left of the line."""
        end = self.content.find(b"\n", self.position)
        start, self.position = self.position, len(self.content) if end < 0 else end + 1
        return self.content[start : self.position]

    def _words(self, count: int) -> list[bytes]:
        """Take count words, however they are broken into lines."""
        words: list[bytes] = []
        while len(words) < count:
            if self.position >= len(self.content):
                raise _Damaged(f"{count} numbers where the file ends")
            words += self._take_line().split()
        if len(words) > count:
            raise _Damaged("more numbers on a line than announced")
        return words


def read_legacy_vtk(path: Path) -> Surface:
    """Read the polygons and triangle strips of a legacy .vtk file.

    Raises:
        InputError: no polygonal data, counts that the file cannot hold, indices that do not exist, or text
            that is no number.
    """
    content = read_bytes(path)
    head = content[:4096].split(b"\n", 4)
    if len(head) < 5 or not head[0].startswith(b"# vtk DataFile"):
        raise InputError(path, "is no legacy VTK file", _REEXPORT)
    kind, dataset = head[2].strip().upper(), head[3].upper().split()
    if kind not in (b"ASCII", b"BINARY") or dataset != [b"DATASET", b"POLYDATA"]:
        raise InputError(path, "holds no polygonal data (DATASET POLYDATA)", _REEXPORT)
    cursor = _Cursor(content, sum(len(line) + 1 for line in head[:4]), kind == b"ASCII")
    try:
        vertices, cells = _sections(cursor)
        faces = triangles_of(cells.get("polygons"), cells.get("triangle_strips"), len(vertices))
    except (ValueError, OverflowError) as error:
        raise InputError(path, f"is damaged or truncated ({error})", DAMAGED_REMEDY) from error
    return Surface(vertices, faces, space_in(head[1]))


def _sections(cursor: _Cursor) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return the points, and each kind of cells as offsets and corners; attributes of them are not read."""
    vertices = np.zeros((0, 3))
    cells: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    while words := cursor.line():
        keyword = words[0].lower()
        if keyword in ("point_data", "cell_data"):
            break
        if keyword == "points" and len(words) == 3:
            vertices = cursor.array(3 * int(words[1]), words[2].lower()).astype(np.float64).reshape(-1, 3)
        elif keyword in _CELLS and len(words) == 3:
            cells[keyword] = _cells(cursor, int(words[1]), int(words[2]))
        elif keyword == "metadata":
            cursor.skip_block()
        elif keyword == "field" and len(words) == 3:
            _skip_fields(cursor, int(words[2]))
        else:
            raise _Damaged(f"'{' '.join(words)[:60]}' where a section should start")
    return vertices, cells


def _cells(cursor: _Cursor, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each cell starts and the corners of all, from the old layout or that of version 5.1."""
    start = cursor.position
    words = [word.lower() for word in cursor.line()]
    if words[:1] == ["offsets"] and len(words) == 2:
        offsets = cursor.array(count, words[1])
        words = [word.lower() for word in cursor.line()]
        if words[:1] != ["connectivity"] or len(words) != 2:
            raise _Damaged("cells without connectivity")
        return offsets, cursor.array(size, words[1])
    cursor.position = start
    return _old_layout(cursor.array(size, "int"), count)


def _old_layout(numbers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Split "n a b c n a b c d ..." into offsets and corners."""
    if count * 4 == len(numbers) and (numbers[::4] == 3).all():
        return np.arange(count + 1) * 3, numbers.reshape(-1, 4)[:, 1:].ravel()
    starts, position = [], 0
    while position < len(numbers) and len(starts) < count:
        starts.append(position)
        position += 1 + max(0, int(numbers[position]))
    if position != len(numbers) or len(starts) != count:
        raise _Damaged("cells whose lengths do not add up")
    is_corner = np.ones(len(numbers), bool)
    is_corner[starts] = False
    return np.append(np.array(starts, np.int64) - np.arange(count), is_corner.sum()), numbers[is_corner]


def _skip_fields(cursor: _Cursor, count: int) -> None:
    """Go behind the arrays of a FIELD section."""
    for _ in range(count):
        words = cursor.line()
        if words[:1] == ["METADATA"]:
            cursor.skip_block()
            words = cursor.line()
        if len(words) != 4:
            raise _Damaged("a field array without name, size and type")
        if words[3].lower() == "string":
            cursor.skip_strings(int(words[1]) * int(words[2]))
        else:
            cursor.array(int(words[1]) * int(words[2]), words[3].lower())
