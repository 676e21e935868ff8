"""Bounded reading of voxel payloads: what a header claims is held against the file before memory is spent."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from implicit_atlas.errors import InputError

MAX_PAYLOAD_BYTES = 4 * 2**30
"""Largest volume that is read: 1600^3 voxels of one byte."""

# Deflate cannot shrink data by more than a factor of 1032 (RFC 1951: 258 bytes from 2 bits, plus its tables).
MAX_DEFLATE_RATIO = 1032
_DEFLATE_SLACK_BYTES = 2**16
_CHUNK_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"

DAMAGED_REMEDY = "Copy or export the file again."
_HEADER_REMEDY = "The header does not belong to this file; export the volume again."


@contextmanager
def open_input(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file for reading.

    Raises:
        InputError: the file is missing, is a folder, or cannot be read, also later while it is read.
    """
    try:
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError as error:
        raise InputError(path, "does not exist", "Check the path.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(path, f"its compressed stream is damaged ({error})", DAMAGED_REMEDY) from error
    except EOFError as error:
        raise InputError(path, "is truncated: its compressed stream ends early", DAMAGED_REMEDY) from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise InputError(path, problem, "Check the file and its permissions.") from error
    except ValueError as error:
        if "null byte" not in str(error):
            raise
        raise InputError(path, "is no valid file name", "Check the path.") from error


def stored_bytes(stream: BufferedIOBase) -> int:
    """Return the size of an open file, leaving its position as it was."""
    position = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(position)
    return size


def is_gzip(stream: BufferedIOBase) -> bool:
    """Whether an open file starts as gzip does, whatever its name says."""
    start = stream.read(2)
    stream.seek(0)
    return start == _GZIP_MAGIC


def check_claim(source: Path, claimed: int, stored: int, *, compressed: bool) -> None:
    """Refuse a header whose volume cannot come out of the file's bytes, before any of it is read.

    Args:
        source: the file.
        claimed: bytes that the header announces.
        stored: bytes that the file holds for them.
        compressed: whether the stored bytes are deflated.

    Raises:
        InputError: the claim exceeds what is read at all or what the file can hold, or is not its size.
    """
    if compressed:
        possible = stored * MAX_DEFLATE_RATIO + _DEFLATE_SLACK_BYTES
        if claimed > possible:
            problem = f"header claims {claimed} bytes, which {stored} compressed bytes cannot hold"
            raise InputError(source, problem, _HEADER_REMEDY)
    elif claimed > stored:
        problem = f"is truncated: header claims {claimed} bytes and the file has {stored}"
        raise InputError(source, problem, DAMAGED_REMEDY)
    elif claimed < stored:
        problem = f"header claims {claimed} bytes but the file has {stored}"
        raise InputError(source, problem, _HEADER_REMEDY)
    if claimed > MAX_PAYLOAD_BYTES:
        problem = (
            f"claims {claimed / 2**30:.1f} GiB of voxels; at most {MAX_PAYLOAD_BYTES / 2**30:g} are read"
        )
        raise InputError(source, problem, "Crop the volume to the organ first.")


def file_chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    """Yield what is left of a stream, 1 MiB at a time."""
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def zlib_chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    """Yield the inflated bytes of one zlib or gzip stream, 1 MiB at a time, and check its end.

    Raises:
        EOFError: the stream ends early.
        zlib.error: it is damaged, or bytes follow its end.
    """
    inflater = zlib.decompressobj(wbits=47)
    while not inflater.eof:
        data = inflater.unconsumed_tail or stream.read(_CHUNK_BYTES)
        if not data:
            raise EOFError
        yield inflater.decompress(data, _CHUNK_BYTES)
    if inflater.unused_data or stream.read(1):
        raise zlib.error("bytes follow its end")


def read_exactly(chunks: Iterable[bytes], n_bytes: int, source: Path) -> UInt8[np.ndarray, " n"]:
    """Return a payload of exactly n_bytes, having read the stream to its end.

    Chunks of zeros are not written: the untouched pages of the result then take no memory, so that 1 MB of
    gzip that unfolds to 1 GiB of background costs time only.

    Raises:
        InputError: the stream is shorter or longer.
    """
    payload = np.zeros(n_bytes, np.uint8)
    position = 0
    for chunk in chunks:
        end = position + len(chunk)
        if end > n_bytes:
            problem = f"holds more than the {n_bytes} bytes of voxels that its header claims"
            raise InputError(source, problem, _HEADER_REMEDY)
        if chunk.count(0) != len(chunk):
            payload[position:end] = np.frombuffer(chunk, np.uint8)
        position = end
    if position < n_bytes:
        problem = f"is truncated: {position} of {n_bytes} bytes of voxels are there"
        raise InputError(source, problem, DAMAGED_REMEDY)
    return payload
