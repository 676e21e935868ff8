"""The text headers of NRRD and MetaImage files, and the voxels behind them.

SimpleITK reads truncated files of both formats without a word, so the payload is measured and decoded here;
what is left to SimpleITK is the geometry.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from implicit_atlas.errors import InputError
from implicit_atlas.io.payload import (
    DAMAGED_REMEDY,
    check_claim,
    file_chunks,
    open_input,
    read_exactly,
    stored_bytes,
    zlib_chunks,
)

MAX_HEADER_BYTES = 2**20

_REEXPORT = "Export the volume again, for example with 3D Slicer, as .nrrd, .mha or .nii.gz."
_LABEL_REMEDY = "Save the segmentation as one integer label map."
_NRRD_NAMES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
_NRRD_TYPES = {name: kind for kind, names in _NRRD_NAMES.items() for name in names.split("|")}
_META_TYPES = {"CHAR": "i1", "SHORT": "i2", "INT": "i4", "LONG": "i4", "LONG_LONG": "i8"}
_META_TYPES |= {f"U{name}": f"u{kind[1]}" for name, kind in _META_TYPES.items()} | {
    "FLOAT": "f4",
    "DOUBLE": "f8",
}
_QUOTED = re.compile(r'"([^"]*)"')
_NRRD_ORDERS = {"little": "<", "big": ">"}
_META_ORDERS = {"false": "<", "true": ">"}
_NRRD_SPACES = (
    "left-posterior-superior",
    "right-anterior-superior",
    "left-anterior-superior",
    "lps",
    "ras",
    "las",
)

Compression = Literal["none", "gzip", "zlib"]


@dataclass(frozen=True)
class PayloadClaim:
    """Where a text header says that its voxels are, and what they are.

    Args:
        source: the file with the header.
        path: the file with the voxels: the same, or the one that the header names.
        offset: first byte of the voxels in it.
        compression: how they are stored there.
        shape: voxels along each axis, the fastest first.
        dtype: their type, with its byte order.
        notes: doubts about the header.
    """

    source: Path
    path: Path
    offset: int
    compression: Compression
    shape: tuple[int, int, int]
    dtype: np.dtype
    notes: tuple[str, ...] = ()

    def read(self) -> Shaped[np.ndarray, "x y z"]:
        """Return the voxels, having held the claim against the stored bytes and read the stream to its end.

        Raises:
            InputError: too few or too many bytes, or a damaged stream.
        """
        n_bytes = math.prod(self.shape) * self.dtype.itemsize
        with open_input(self.path) as stream:
            stored = stored_bytes(stream) - self.offset
            check_claim(self.source, n_bytes, stored, compressed=self.compression != "none")
            stream.seek(self.offset)
            payload = read_exactly(self._chunks(stream), n_bytes, self.source)
        return payload.view(self.dtype).reshape(self.shape, order="F")

    def _chunks(self, stream: BufferedIOBase) -> Iterator[bytes]:
        if self.compression == "zlib":
            return zlib_chunks(stream)
        if self.compression == "gzip":
            return file_chunks(gzip.GzipFile(fileobj=stream))
        return file_chunks(stream)


def nrrd_claim(path: Path) -> PayloadClaim:
    """Read the header of a .nrrd, .seg.nrrd or .nhdr file.

    Raises:
        InputError: not a NRRD header, or a volume that is not read (not 3-D, text or bzip2 encoding, blocks).
    """
    fields, offset = _nrrd_header(path)
    kind = _NRRD_TYPES.get(fields.get("type", "").lower())
    dtype = _dtype(kind, fields.get("type", ""), fields.get("endian", ""), _NRRD_ORDERS, path)
    shape = _lengths(fields.get("sizes", ""), fields.get("dimension", ""), path)
    encodings: dict[str, Compression] = {"raw": "none", "gzip": "gzip", "gz": "gzip"}
    encoding = fields.get("encoding", "").lower()
    if encoding not in encodings:
        raise InputError(path, f"has the encoding '{encoding}'", "Save it with the encoding raw or gzip.")
    if any(fields.get(skip, "0") != "0" for skip in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise InputError(path, "skips bytes before its voxels", _REEXPORT)
    data_file = fields.get("data file", fields.get("datafile"))
    payload, start = (path, offset) if data_file is None else (_beside(path, data_file), 0)
    notes = _nrrd_space_notes(fields, path)
    return PayloadClaim(path, payload, start, encodings[encoding], shape, dtype, notes)


def nrrd_fields(path: Path) -> dict[str, str]:
    """Return a NRRD header's fields and key/value pairs, keys in lower case.

    Raises:
        InputError: not a NRRD header.
    """
    return _nrrd_header(path)[0]


def metaimage_claim(path: Path) -> PayloadClaim:
    """Read the header of a .mha or .mhd file.

    Raises:
        InputError: not a MetaImage header, or a volume that is not read (not 3-D, text, several channels).
    """
    with open_input(path) as stream:
        lines, offset = _metaimage_lines(stream, path)
    fields = dict(_split_line(line, "=") for line in lines)
    name = fields.get("elementtype", "")
    channels = fields.get("elementnumberofchannels", "1")
    kind = _META_TYPES.get(name.upper().removeprefix("MET_")) if channels == "1" else None
    order = fields.get("elementbyteordermsb", fields.get("binarydatabyteordermsb", "false"))
    dtype = _dtype(kind, name, order, _META_ORDERS, path)
    shape = _lengths(fields.get("dimsize", ""), fields.get("ndims", ""), path)
    if fields.get("binarydata", "true").lower() != "true" or fields.get("headersize", "0") != "0":
        raise InputError(path, "stores its voxels as text or behind a header of their own", _REEXPORT)
    data_file = fields["elementdatafile"]
    is_local = data_file.upper() == "LOCAL"
    payload, start = (path, offset) if is_local else (_beside(path, data_file), 0)
    compressed = fields.get("compresseddata", "false").lower() == "true"
    return PayloadClaim(path, payload, start, "zlib" if compressed else "none", shape, dtype)


def _dtype(kind: str | None, name: str, order: str, orders: dict[str, str], path: Path) -> np.dtype:
    """Return a voxel type with its byte order."""
    if kind is None:
        raise InputError(path, f"has voxels of type '{name}'", _LABEL_REMEDY)
    if kind in ("i1", "u1"):
        return np.dtype(kind)
    if order.lower() not in orders:
        raise InputError(path, f"has the byte order '{order}'", _REEXPORT)
    return np.dtype(orders[order.lower()] + kind)


def _nrrd_header(path: Path) -> tuple[dict[str, str], int]:
    """Return a NRRD header's fields and key/value pairs, and where its voxels start."""
    with open_input(path) as stream:
        lines, offset = _nrrd_lines(stream, path)
    pairs = [_split_line(line, ":=" if ":=" in line else ":") for line in lines if line[0] != "#"]
    return dict(pairs), offset


def _nrrd_lines(stream: BufferedIOBase, path: Path) -> tuple[list[str], int]:
    """Return the header's lines and the position behind the empty line that ends it."""
    if not stream.readline(16).startswith(b"NRRD000"):
        raise InputError(path, "is no NRRD file", _REEXPORT)
    lines: list[str] = []
    while stream.tell() < MAX_HEADER_BYTES:
        text = _text(stream.readline(MAX_HEADER_BYTES))
        if not text:
            return lines, stream.tell()
        lines.append(text)
    raise InputError(path, "has a header without end", _REEXPORT)


def _metaimage_lines(stream: BufferedIOBase, path: Path) -> tuple[list[str], int]:
    """Return the header's lines and the position behind ElementDataFile, which ends it."""
    lines: list[str] = []
    while stream.tell() < MAX_HEADER_BYTES:
        text = _text(stream.readline(MAX_HEADER_BYTES))
        if "=" not in text:
            break
        lines.append(text)
        if _split_line(text, "=")[0] == "elementdatafile":
            return lines, stream.tell()
    raise InputError(path, "is no MetaImage file, or its header is truncated", DAMAGED_REMEDY)


def _text(line: bytes) -> str:
    """UTF-8, as 3D Slicer writes names, or what older programs wrote."""
    try:
        return line.decode().strip()
    except UnicodeDecodeError:
        return line.decode("latin-1").strip()


def _split_line(line: str, separator: str) -> tuple[str, str]:
    key, _, value = line.partition(separator)
    return key.strip().lower(), value.strip()


def _lengths(sizes: str, dimension: str, path: Path) -> tuple[int, int, int]:
    """Return the three lengths of the volume."""
    try:
        lengths = [int(word) for word in sizes.split()]
    except ValueError as error:
        raise InputError(path, f"has sizes that are no numbers: '{sizes}'", _REEXPORT) from error
    if dimension != str(len(lengths)) or not lengths or min(lengths) < 1:
        problem = f"says {dimension or 'no'} dimensions and the sizes '{sizes}'"
        raise InputError(path, problem, _REEXPORT)
    if len(lengths) != 3:
        problem = f"has {dimension} dimensions ({sizes}), not 3"
        remedy = "Save a single volume; export overlapping segments as one label map."
        raise InputError(path, problem, remedy)
    return lengths[0], lengths[1], lengths[2]


def _beside(path: Path, data_file: str) -> Path:
    """Return the voxel file that a header names; it must be a plain name in the header's own folder."""
    payload = path.parent / data_file
    if payload.parent != path.parent or payload.name.startswith("LIST") or "%" in data_file or not data_file:
        problem = f"keeps its voxels in '{data_file}', which is no file beside it"
        raise InputError(path, problem, "Save the volume as a single .nrrd or .mha file.")
    return payload


def _nrrd_space_notes(fields: dict[str, str], path: Path) -> tuple[str, ...]:
    """Check that the space is one that can be turned to RAS; no space at all is a doubt."""
    space = fields.get("space", "").lower()
    if space in _NRRD_SPACES:
        if "none" in fields.get("space directions", "none").lower():
            raise InputError(path, "has no space directions", _REEXPORT)
        units = set(_QUOTED.findall(fields.get("space units", ""))) - {"mm", "", "millimeter", "???"}
        if units:
            problem = f"is in the unit '{units.pop()[:20]}'"
            raise InputError(path, problem, "Save it in millimetres.")
        return ()
    if space:
        raise InputError(path, f"has the space '{space}'", "Save it in left-posterior-superior space.")
    return ("it names no space: left-posterior-superior is taken",)
