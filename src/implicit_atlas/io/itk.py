"""NRRD and MetaImage volumes: geometry and writing by SimpleITK, with LPS turned to RAS."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float, Shaped

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import name_for_library, suffix_of
from implicit_atlas.io.geometry import checked_grid
from implicit_atlas.io.labels import whole_labels
from implicit_atlas.io.text_headers import PayloadClaim, metaimage_claim, nrrd_claim
from implicit_atlas.io.types import LabelMap
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.support.files import write_atomic

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk_labels(path: Path) -> LabelMap:
    """Read a label map from .nrrd, .seg.nrrd, .nhdr, .mha or .mhd.

    Raises:
        InputError: anything wrong with the file, its header, its payload or its labels.
    """
    claim = _claim(path)
    values, notes = whole_labels(claim.read(), path)
    grid = _grid(_opened(path), claim)
    return LabelMap(values, grid, path, claim.dtype, claim.notes + notes)


def read_itk_grid(path: Path) -> tuple[Grid, tuple[str, ...]]:
    """Read a NRRD or MetaImage file's grid from its header alone, and what had to be repaired.

    Raises:
        InputError: the file or its header cannot be used.
    """
    claim = _claim(path)
    return _grid(_opened(path), claim), claim.notes


def write_itk(path: Path, values: Shaped[np.ndarray, "x y z"], grid: Grid, dtype: np.dtype) -> None:
    """Write a volume as .nrrd or .mha, compressed, in LPS as these formats have it.

    Raises:
        InputError: the file cannot be written.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T).astype(dtype))
    affine = _LPS_TO_RAS @ grid.affine
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetDirection((affine[:3, :3] / grid.spacing_mm).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())

    def write(partial: Path) -> None:
        try:
            sitk.WriteImage(image, name_for_library(partial), useCompression=True)
        except RuntimeError as error:
            raise OSError(errno.EIO, _last_line(error)) from error

    write_atomic(path, write)


def _claim(path: Path) -> PayloadClaim:
    return nrrd_claim(path) if suffix_of(path) in (".nrrd", ".nhdr") else metaimage_claim(path)


def _opened(path: Path) -> sitk.ImageFileReader:
    """Return a reader that has read the header."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if suffix_of(path) in (".nrrd", ".nhdr") else "MetaImageIO")
    reader.SetFileName(name_for_library(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        remedy = "Export the volume again with its geometry."
        raise InputError(path, f"has a header that cannot be used ({_last_line(error)})", remedy) from error
    return reader


def _grid(reader: sitk.ImageFileReader, claim: PayloadClaim) -> Grid:
    """Return the grid that a header describes, in RAS."""
    if reader.GetSize() != claim.shape:
        problem = f"has a header that can be read as {claim.shape} or as {reader.GetSize()} voxels"
        raise InputError(claim.source, problem, "Export the volume again with its geometry.")
    return checked_grid(claim.shape, _ras_affine(reader), claim.source)


def _ras_affine(reader: sitk.ImageFileReader) -> Float[np.ndarray, "4 4"]:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * np.array(reader.GetSpacing())
    affine[:3, 3] = reader.GetOrigin()
    return _LPS_TO_RAS @ affine


def _last_line(error: RuntimeError) -> str:
    """Return the part of ITK's message that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"
