"""The text headers of NRRD and MetaImage files, read to know how many bytes of voxels must follow.

SimpleITK reads truncated files of both formats without a word, so the payload is measured before it is used.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from implicit_atlas.errors import InputError
from implicit_atlas.io.payload import (
    DAMAGED_REMEDY,
    check_claim,
    check_length,
    file_chunks,
    open_input,
    stored_bytes,
    zlib_chunks,
)

MAX_HEADER_BYTES = 2**20

_REEXPORT = "Export the volume again, for example with 3D Slicer, as .nrrd, .mha or .nii.gz."
_LABEL_REMEDY = "Save the segmentation as one integer label map."
_NRRD_BYTES = {
    1: "signed char|int8|int8_t|uchar|unsigned char|uint8|uint8_t",
    2: "short|short int|signed short|signed short int|int16|int16_t|ushort|unsigned short|unsigned short int"
    "|uint16|uint16_t",
    4: "int|signed int|int32|int32_t|uint|unsigned int|uint32|uint32_t|float",
    8: "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t|ulonglong"
    "|unsigned long long|unsigned long long int|uint64|uint64_t|double",
}
_NRRD_ITEM_BYTES = {name: size for size, names in _NRRD_BYTES.items() for name in names.split("|")}
_META_ITEM_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8}
_META_ITEM_BYTES |= {f"U{name}": size for name, size in _META_ITEM_BYTES.items()} | {"FLOAT": 4, "DOUBLE": 8}
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
    """Where a text header says that its voxels are, and how many bytes they take.

    Args:
        source: the file with the header.
        path: the file with the voxels: the same, or the one that the header names.
        offset: first byte of the voxels in it.
        compression: how they are stored there.
        n_bytes: bytes of voxels, decompressed.
        notes: doubts about the header.
    """

    source: Path
    path: Path
    offset: int
    compression: Compression
    n_bytes: int
    notes: tuple[str, ...] = ()

    def verify(self) -> None:
        """Hold the claim against the stored bytes, reading a compressed stream to its end.

        Raises:
            InputError: too few or too many bytes, or a damaged stream.
        """
        with open_input(self.path) as stream:
            stored = stored_bytes(stream) - self.offset
            check_claim(self.source, self.n_bytes, stored, compressed=self.compression != "none")
            stream.seek(self.offset)
            if self.compression != "none":
                check_length(self._inflated(stream), self.n_bytes, self.source)

    def _inflated(self, stream: BinaryIO) -> Iterator[bytes]:
        if self.compression == "gzip":
            return file_chunks(cast(BinaryIO, gzip.GzipFile(fileobj=stream)))
        return zlib_chunks(stream)


def nrrd_claim(path: Path) -> PayloadClaim:
    """Read the header of a .nrrd, .seg.nrrd or .nhdr file.

    Raises:
        InputError: not a NRRD header, or a volume that is not read (not 3-D, text or bzip2 encoding, blocks).
    """
    fields, offset = _nrrd_header(path)
    if "block size" in fields or fields.get("type", "").lower() not in _NRRD_ITEM_BYTES:
        raise InputError(path, f"has voxels of type '{fields.get('type', '')}'", _LABEL_REMEDY)
    sizes = _lengths(fields.get("sizes", ""), fields.get("dimension", ""), path)
    n_bytes = math.prod(sizes) * _NRRD_ITEM_BYTES[fields["type"].lower()]
    encodings: dict[str, Compression] = {"raw": "none", "gzip": "gzip", "gz": "gzip"}
    encoding = fields.get("encoding", "").lower()
    if encoding not in encodings:
        raise InputError(path, f"has the encoding '{encoding}'", "Save it with the encoding raw or gzip.")
    if any(fields.get(skip, "0") != "0" for skip in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise InputError(path, "skips bytes before its voxels", _REEXPORT)
    data_file = fields.get("data file", fields.get("datafile"))
    payload = path if data_file is None else _beside(path, data_file)
    start = offset if data_file is None else 0
    return PayloadClaim(path, payload, start, encodings[encoding], n_bytes, _nrrd_space_notes(fields, path))


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
    kind = fields.get("elementtype", "").upper().removeprefix("MET_")
    if kind not in _META_ITEM_BYTES or fields.get("elementnumberofchannels", "1") != "1":
        raise InputError(path, f"has voxels of type '{fields.get('elementtype', '')}'", _LABEL_REMEDY)
    n_bytes = (
        math.prod(_lengths(fields.get("dimsize", ""), fields.get("ndims", ""), path)) * _META_ITEM_BYTES[kind]
    )
    if fields.get("binarydata", "true").lower() != "true" or fields.get("headersize", "0") != "0":
        raise InputError(path, "stores its voxels as text or behind a header of their own", _REEXPORT)
    data_file = fields["elementdatafile"]
    payload = path if data_file.upper() == "LOCAL" else _beside(path, data_file)
    compressed = fields.get("compresseddata", "false").lower() == "true"
    return PayloadClaim(
        path, payload, offset if payload == path else 0, "zlib" if compressed else "none", n_bytes
    )


def _nrrd_header(path: Path) -> tuple[dict[str, str], int]:
    """Return a NRRD header's fields and key/value pairs, and where its voxels start."""
    with open_input(path) as stream:
        lines, offset = _nrrd_lines(stream, path)
    pairs = [_split_line(line, ":=" if ":=" in line else ":") for line in lines if line[0] != "#"]
    return dict(pairs), offset


def _nrrd_lines(stream: BinaryIO, path: Path) -> tuple[list[str], int]:
    """Return the header's lines and the position behind the empty line that ends it."""
    if not stream.readline(16).startswith(b"NRRD000"):
        raise InputError(path, "is no NRRD file", _REEXPORT)
    lines: list[str] = []
    while stream.tell() < MAX_HEADER_BYTES:
        line = stream.readline(MAX_HEADER_BYTES)
        text = line.decode("latin-1").strip()
        if not text:
            return lines, stream.tell()
        lines.append(text)
    raise InputError(path, "has a header without end", _REEXPORT)


def _metaimage_lines(stream: BinaryIO, path: Path) -> tuple[list[str], int]:
    """Return the header's lines and the position behind ElementDataFile, which ends it."""
    lines: list[str] = []
    while stream.tell() < MAX_HEADER_BYTES:
        line = stream.readline(MAX_HEADER_BYTES)
        text = line.decode("latin-1").strip()
        if "=" not in text:
            break
        lines.append(text)
        if text.lower().startswith("elementdatafile"):
            return lines, stream.tell()
    raise InputError(path, "is no MetaImage file, or its header is truncated", DAMAGED_REMEDY)


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
        return ()
    if space:
        raise InputError(path, f"has the space '{space}'", "Save it in left-posterior-superior space.")
    return ("it names no space: left-posterior-superior is taken",)
