"""Small files for the tests of implicit_atlas.io: NIfTI bytes with any header field, and simple surfaces."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import trimesh

from implicit_atlas.errors import InputError
from implicit_atlas.io.voxel_grid import Grid

OBLIQUE = np.array(
    [[0.8, -0.3, 0.0, 5.0], [0.3, 0.8, 0.0, -7.0], [0.0, 0.0, 2.5, 11.0], [0.0, 0.0, 0.0, 1.0]]
)
AXIS_ORDERS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def ordered_affine(order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """An affine whose array axis a runs along world axis order[a], with three different spacings."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * (np.array(signs) * (0.75, 1.25, 4.0))
    affine[:3, 3] = (-31.5, 17.25, 90.0)
    return affine


def block(shape: tuple[int, int, int] = (7, 6, 5)) -> np.ndarray:
    """A mask that no flip or permutation of axes maps onto itself."""
    occupancy = np.zeros(shape, bool)
    occupancy[1:4, 1:3, 1:3] = True
    occupancy[4, 1, 1] = True
    occupancy[1, 3, 1] = True
    return occupancy


def grid_of(shape: tuple[int, int, int], affine: np.ndarray | None = None) -> Grid:
    return Grid(shape, np.eye(4) if affine is None else affine)


def nifti_header(array: np.ndarray, affine: np.ndarray | None = None, version: int = 1) -> Any:
    """A valid NIfTI header for an array, sform and qform set."""
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    header = image.header
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = 352 if version == 1 else 544
    return header


def nifti_bytes(
    array: np.ndarray, affine: np.ndarray | None = None, version: int = 1, **fields: Any
) -> bytes:
    """The bytes of a .nii file, with any header fields overwritten after the fact."""
    header = nifti_header(array, affine, version)
    for name, value in fields.items():
        header[name] = value
    start = 352 if version == 1 else 544
    return header.binaryblock.ljust(start, b"\0") + array.tobytes(order="F")


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def sphere(
    radius_mm: float = 10.0, centre: tuple[float, float, float] = (12.0, -30.0, 55.0)
) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius_mm)
    mesh.apply_translation(centre)
    return mesh


def written(folder: Path, content: bytes, name: str = "case.nii") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(read: Callable[[Path], object], path: Path, words: str) -> InputError:
    """Read a file that must be refused by an error with its name, what is wrong, and a remedy."""
    with pytest.raises(InputError, match=words) as caught:
        read(path)
    assert Path(caught.value.source).parent == path.parent
    assert caught.value.remedy.endswith(".") and not caught.value.problem.endswith(".")
    return caught.value


def as_obj(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in vertices.tolist()]
    return "\n".join([*lines, *(f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist())]).encode()
