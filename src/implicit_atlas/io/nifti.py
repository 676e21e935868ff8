"""NIfTI volumes: read behind the header check and to the end of the stream; written by nibabel."""

from __future__ import annotations

import gzip
from io import BufferedIOBase
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Shaped

from implicit_atlas.io.formats import suffix_of
from implicit_atlas.io.headers import NiftiHeader, read_nifti_header
from implicit_atlas.io.labels import whole_labels
from implicit_atlas.io.payload import (
    check_claim,
    file_chunks,
    is_gzip,
    open_input,
    read_exactly,
    stored_bytes,
)
from implicit_atlas.io.types import LabelMap
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.support.files import write_atomic

_NIFTI1_MAX_LENGTH = 32767


def read_nifti_labels(path: Path) -> LabelMap:
    """Read a label map from .nii or .nii.gz; whether it is compressed is seen from its bytes.

    Raises:
        InputError: anything wrong with the file, its header, its stream or its labels.
    """
    with open_input(path) as file:
        header, stream, notes = _open_volume(file, path)
        stream.read(header.offset - header.size)
        payload = read_exactly(file_chunks(stream), header.payload_bytes, path)
    stored = payload.view(header.dtype).reshape(header.grid.shape, order="F")
    values, label_notes = whole_labels(_scaled(stored, header), path)
    return LabelMap(values, header.grid, path, header.dtype, notes + label_notes)


def read_nifti_grid(path: Path) -> tuple[Grid, tuple[str, ...]]:
    """Read a NIfTI file's grid from its header alone, and what had to be repaired.

    Raises:
        InputError: the file or its header cannot be used.
    """
    with open_input(path) as file:
        header, _, notes = _open_volume(file, path)
    return header.grid, notes


def write_nifti(path: Path, values: Shaped[np.ndarray, "x y z"], grid: Grid, dtype: np.dtype) -> None:
    """Write a volume as .nii or .nii.gz, with sform and qform set (codes 1) in mm.

    The same input gives the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    kind = nibabel.Nifti1Image if max(grid.shape) <= _NIFTI1_MAX_LENGTH else nibabel.Nifti2Image
    image = kind(values.astype(dtype), np.array(grid.affine), dtype=dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    content = image.to_bytes()
    write_atomic(path, gzip.compress(content, 6, mtime=0) if suffix_of(path) == ".nii.gz" else content)


def _open_volume(file: BufferedIOBase, path: Path) -> tuple[NiftiHeader, BufferedIOBase, tuple[str, ...]]:
    """Return the checked header, the stream just behind it, and what had to be repaired."""
    stored, compressed = stored_bytes(file), is_gzip(file)
    notes: tuple[str, ...] = ()
    if compressed != (suffix_of(path) == ".nii.gz"):
        notes = (
            ("its content is gzip although its name says .nii",)
            if compressed
            else ("its content is not compressed although its name says .nii.gz",)
        )
    stream = gzip.GzipFile(fileobj=file) if compressed else file
    header = read_nifti_header(stream, path)
    check_claim(path, header.offset + header.payload_bytes, stored, compressed=compressed)
    return header, stream, notes + header.notes


def _scaled(stored: Shaped[np.ndarray, "x y z"], header: NiftiHeader) -> Shaped[np.ndarray, "x y z"]:
    """Return slope * stored + intercept; integers without scaling stay integers."""
    if (header.slope, header.intercept) == (1.0, 0.0):
        return stored
    return stored.astype(np.float64) * header.slope + header.intercept
