"""The verbs on volumes: read labels, one organ's mask or a grid from any format, and write a mask."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import (
    ITK_SUFFIXES,
    MESH_SUFFIXES,
    NIFTI_SUFFIXES,
    printable,
    suffix_of,
    unknown_format,
)
from implicit_atlas.io.itk import read_itk_grid, read_itk_labels, write_itk
from implicit_atlas.io.labels import as_label_ids, check_label_ids, select_mask
from implicit_atlas.io.meshes import read_mesh
from implicit_atlas.io.nifti import read_nifti_grid, read_nifti_labels, write_nifti
from implicit_atlas.io.output import make_folder
from implicit_atlas.io.types import LabelMap, Mask
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.io.voxelise import grid_around, voxelise

_log = logging.getLogger(__name__)

_WRITTEN_ITK = (".nrrd", ".mha")


def read_labels(path: str | Path) -> LabelMap:
    """Read a volume of labels; a surface is voxelised to labels 0 and 1.

    Raises:
        InputError: anything that makes the file unusable.
    """
    path = Path(path)
    suffix = suffix_of(path)
    try:
        if suffix in NIFTI_SUFFIXES:
            return read_nifti_labels(path)
        if suffix in ITK_SUFFIXES:
            return read_itk_labels(path)
        if suffix in MESH_SUFFIXES:
            return _voxelised(path)
    except MemoryError as error:
        raise InputError(path, "does not fit into memory", "Crop the volume to the organ first.") from error
    raise _refusal(path)


def read_mask(path: str | Path, labels: int | Sequence[int] = ()) -> Mask:
    """Read one organ's mask, and log what had to be repaired.

    Args:
        path: NIfTI, NRRD, MetaImage, or a closed surface.
        labels: the ids that make up the organ together; everything above 0 if none is given.

    Raises:
        InputError: anything that makes the file unusable, an empty mask, or labels that do not occur.
    """
    ids = as_label_ids(labels)
    check_label_ids(ids)
    mask = select_mask(read_labels(path), ids)
    say_notes(path, mask.notes)
    return mask


def say_notes(path: str | Path, notes: Sequence[str]) -> None:
    """Log what had to be repaired of a file."""
    for note in notes:
        _log.warning("%s: %s", printable(str(path)), note)


def read_grid(path: str | Path) -> Grid:
    """Read a volume's grid without its voxels, and log what had to be repaired; of a surface, one to voxelise it on.

    Raises:
        InputError: the file or its header cannot be used.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix in (*NIFTI_SUFFIXES, *ITK_SUFFIXES):
        grid, notes = read_nifti_grid(path) if suffix in NIFTI_SUFFIXES else read_itk_grid(path)
        say_notes(path, notes)
        return grid
    if suffix in MESH_SUFFIXES:
        return grid_around(read_mesh(path))
    raise _refusal(path)


def check_same_grid(mask: Mask, image_path: str | Path, tolerance_mm: float = 0.1) -> None:
    """Refuse an image that does not lie on its mask's grid.

    Raises:
        InputError: the shapes differ, or a voxel centre lies further apart than the tolerance.
    """
    grid = read_grid(image_path)
    if not mask.grid.same_as(grid, tolerance_mm):
        problem = (
            f"its grid differs from that of the mask {mask.path}: {_words(grid)} against {_words(mask.grid)}"
        )
        raise InputError(image_path, problem, "Resample one onto the other's grid.")


def write_mask(
    path: str | Path, occupancy: Bool[np.ndarray, "x y z"], grid: Grid, dtype: np.dtype | type = np.uint8
) -> None:
    """Write a mask as .nii, .nii.gz, .nrrd or .mha (0 and 1), whole or not at all.

    Args:
        path: the file; its folder is made if it is missing.
        occupancy: occupied voxels, in the grid's axis order.
        grid: where they lie.
        dtype: the voxels' type in the file.

    Raises:
        InputError: another suffix, a shape that differs from the grid's, or a file that cannot be written.
    """
    _write(Path(path), occupancy, grid, np.dtype(dtype))


def write_volume(path: str | Path, values: Float[np.ndarray, "x y z"], grid: Grid) -> None:
    """Write a volume of numbers, such as probabilities, as float32; formats and errors are those of `write_mask`."""
    _write(Path(path), values, grid, np.dtype(np.float32))


def write_label_map(path: str | Path, values: Integer[np.ndarray, "x y z"], grid: Grid) -> None:
    """Write labels, in the smallest unsigned type that holds them; formats and errors are those of `write_mask`.

    Raises:
        InputError: as `write_mask`; or a negative label.
    """
    if values.size and values.min() < 0:
        raise InputError(path, "would hold a negative label", "Give labels from 0 on.")
    _write(Path(path), values, grid, np.min_scalar_type(int(values.max(initial=0))))


def _write(path: Path, values: Shaped[np.ndarray, "x y z"], grid: Grid, dtype: np.dtype) -> None:
    if values.shape != grid.shape:
        problem = f"the volume's shape {values.shape} differs from its grid's {grid.shape}"
        raise InputError(path, problem, "Give the volume together with its own grid.")
    suffix = suffix_of(path)
    if suffix not in NIFTI_SUFFIXES + _WRITTEN_ITK:
        problem = f"'{suffix}' is no format that volumes are written in"
        raise InputError(path, problem, "Use .nii.gz, .nii, .nrrd or .mha.")
    make_folder(path.parent)
    write = write_nifti if suffix in NIFTI_SUFFIXES else write_itk
    write(path, values, grid, dtype.newbyteorder("="))


def _voxelised(path: Path) -> LabelMap:
    mesh = read_mesh(path)
    occupancy, grid = voxelise(mesh)
    return LabelMap(occupancy.view(np.uint8), grid, path, np.dtype(np.uint8), mesh.notes)


def _refusal(path: Path) -> InputError:
    if suffix_of(path) in (".hdr", ".img"):
        remedy = "Convert it to a single .nii.gz: Analyze does not say which side is left."
        return InputError(path, "is an Analyze 7.5 file or one half of a NIfTI pair", remedy)
    return unknown_format(path)


def _words(grid: Grid) -> str:
    shape = " x ".join(str(n) for n in grid.shape)
    spacing = " x ".join(f"{size:.3g}" for size in grid.spacing_mm)
    return f"{shape} voxels of {spacing} mm, {grid.orientation}"
