"""Checks on a file's voxel-to-world matrix, before a Grid is made of it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float

from implicit_atlas.errors import InputError
from implicit_atlas.io.voxel_grid import Grid

MAX_SHEAR = 1e-3
"""Largest cosine between two axes (0 when they are perpendicular): half a millimetre over half a metre."""

MAX_SIZE_DISAGREEMENT = 0.01
MAX_ANGLE_DISAGREEMENT_DEG = 1.0
_MIN_DETERMINANT = 1e-4


def checked_grid(shape: tuple[int, int, int], affine: Float[np.ndarray, "4 4"], source: Path) -> Grid:
    """Return the grid of a volume.

    Raises:
        InputError: the affine is not finite, is singular, or is sheared beyond `MAX_SHEAR`.
    """
    check_affine(affine, source)
    return Grid(shape, affine)


def check_affine(affine: Float[np.ndarray, "4 4"], source: Path) -> None:
    """Refuse an affine in which lengths or volumes have no meaning, or which has shear.

    Raises:
        InputError: not finite, singular, or sheared.
    """
    if not np.isfinite(affine).all():
        problem = "its affine (voxel-to-world matrix) has NaN or infinite values"
        raise InputError(source, problem, "Export the volume again with its geometry.")
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(spacing_mm).all() and (spacing_mm > 0).all()):
        problem = "its affine (voxel-to-world matrix) has a voxel size of 0"
        raise InputError(source, problem, "Export the volume again with its geometry.")
    directions = affine[:3, :3] / spacing_mm
    if abs(np.linalg.det(directions)) < _MIN_DETERMINANT:
        problem = "its affine (voxel-to-world matrix) is singular"
        raise InputError(source, problem, "Export the volume again with its geometry.")
    shear = np.abs(directions.T @ directions - np.eye(3)).max()
    if shear > MAX_SHEAR:
        problem = f"its affine has shear: two axes differ from a right angle (cosine {shear:.3g})"
        raise InputError(source, problem, "Resample the volume onto a grid with perpendicular axes.")


def check_agreement(
    qform: Float[np.ndarray, "4 4"], sform: Float[np.ndarray, "4 4"], source: Path
) -> tuple[str, ...]:
    """Compare the two matrices of a NIfTI header.

    Returns:
        A note if they place the volume elsewhere but agree in voxel size and orientation.

    Raises:
        InputError: voxel size or orientation differ: one of them would give a wrong volume or side.
    """
    q_axes, s_axes = qform[:3, :3], sform[:3, :3]
    q_size_mm, s_size_mm = np.linalg.norm(q_axes, axis=0), np.linalg.norm(s_axes, axis=0)
    cosines = np.clip(((q_axes / q_size_mm) * (s_axes / s_size_mm)).sum(axis=0), -1, 1)
    size_differs = np.abs(q_size_mm / s_size_mm - 1).max() > MAX_SIZE_DISAGREEMENT
    if size_differs or np.degrees(np.arccos(cosines)).max() > MAX_ANGLE_DISAGREEMENT_DEG:
        problem = f"qform and sform disagree: by the qform {_words(qform)}, by the sform {_words(sform)}"
        remedy = "Find out which is right and write it to both (nibabel: set_qform, set_sform)."
        raise InputError(source, problem, remedy)
    shift_mm = float(np.linalg.norm(qform[:3, 3] - sform[:3, 3]))
    if shift_mm > s_size_mm.max():
        return (f"qform and sform lie {shift_mm:.1f} mm apart; the sform is used",)
    return ()


def _words(affine: np.ndarray) -> str:
    """Describe an affine by the volume and orientation of its voxels."""
    volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    axes = "".join(code or "?" for code in nibabel.aff2axcodes(affine))
    return f"a voxel has {volume_mm3:.4g} mm^3 and axes {axes}"
