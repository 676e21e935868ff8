"""Landmarks and labels carried between files of cases, through the template that all deform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from implicit_atlas.atlas import TrainedAtlas
from implicit_atlas.correspondence import Labelled, template_map, transfer_labels, transfer_points
from implicit_atlas.errors import AtlasError, InputError
from implicit_atlas.io import (
    Landmarks,
    Problem,
    read_labels,
    read_landmarks,
    write_label_map,
    write_landmarks,
)
from implicit_atlas.tasks import Reconstruction
from implicit_atlas.tasks_files import fit_alike

OFF_SURFACE = 0.1  # of the organ's mean size: landmarks farther from the surface are named
LEFT_MM = 0.5  # landmarks whose place was found less exactly are named


def carry_landmarks(  # noqa: PLR0913 (what the command gives)
    atlas: TrainedAtlas,
    source: Path,
    points: Path,
    targets: Sequence[Path],
    folder: Path,
    labels: Sequence[int],
    local: bool,
    problems: list[Problem],
) -> list[dict[str, Any]]:
    """Write the landmarks of a case as they lie in each target; a row for each, with what is doubtful about it.

    Raises:
        InputError: the source or its landmarks cannot be used.
    """
    marks = read_landmarks(points)
    bad: list[Problem] = []
    first = next(fit_alike(atlas, [source], labels, local, bad), None)
    if first is None:
        raise AtlasError(f"the mask of the landmarks: {bad[0].message}")
    off_mm = KDTree(first.fit.mesh().vertices).query(marks.points_mm)[0]
    far = off_mm > OFF_SURFACE * float(np.mean(atlas.config.size_mm))
    if far.all():
        problem = f"its landmarks lie {off_mm.min():.0f} mm and more from the organ's surface"
        raise InputError(
            points, problem, "Check that they are of this case, and in the right space (LPS or RAS)."
        )
    rows = []
    for found in fit_alike(atlas, targets, labels, local, problems):
        places_mm, left_mm = transfer_points(atlas, first.fit, found.fit, marks.points_mm)
        doubts = [_doubt(*one) for one in zip(left_mm.tolist(), off_mm.tolist(), far.tolist(), strict=True)]
        # Who opens the file should see it there, too.
        names = tuple(
            f"{name} (doubtful)" if doubt else name for name, doubt in zip(marks.labels, doubts, strict=True)
        )
        carried = Landmarks(places_mm, names, marks.occupancy, folder / f"{found.fit.name}.mrk.json")
        write_landmarks(carried.path, carried)
        for name, place, left, off, doubt in zip(
            marks.labels, places_mm, left_mm, off_mm, doubts, strict=True
        ):
            x, y, z = (round(float(value), 3) for value in place)
            rows.append(
                {
                    "case": found.fit.name,
                    "landmark": name,
                    "x": x,
                    "y": y,
                    "z": z,
                    "left_mm": round(float(left), 3),
                    "off_surface_mm": round(float(off), 3),
                    "doubt": doubt,
                }
            )
    return rows


def _doubt(left_mm: float, off_mm: float, is_far: bool) -> str:
    """Why a landmark that was carried is not to be trusted."""
    if left_mm > LEFT_MM:
        return f"its place was found to {left_mm:.1f} mm only"
    return f"it lies {off_mm:.1f} mm from the surface of its own case" if is_far else ""


def carry_labels(  # noqa: PLR0913 (what the command gives)
    atlas: TrainedAtlas,
    sources: Sequence[Path],
    targets: Sequence[Path],
    folder: Path,
    labels: Sequence[int],
    local: bool,
    problems: list[Problem],
) -> list[dict[str, Any]]:
    """Write a label map of each target's parts, by the vote of the labelled cases.

    Raises:
        InputError: no labelled case can be used.
    """
    known = [_parts_of(atlas, found) for found in fit_alike(atlas, sources, labels, local, problems)]
    if not known:
        raise InputError(
            "labelled cases", "cannot be used", "Give at least one label map with the organ's parts."
        )
    rows = []
    for found in fit_alike(atlas, targets, labels, local, problems):
        mask = found.case.mask
        voxels = np.argwhere(mask.occupancy)
        parts = transfer_labels(known, in_template(atlas, found, voxels))
        values = np.zeros(mask.grid.shape, parts.dtype)
        values[tuple(voxels.T)] = parts
        write_label_map(folder / f"{found.fit.name}.nii.gz", values, mask.grid)
        row: dict[str, Any] = {"case": found.fit.name}
        for part in np.unique(np.concatenate([own.labels for own in known])):
            row[f"voxels_{part}"] = int((parts == part).sum())
        rows.append(row)
    return rows


def in_template(atlas: TrainedAtlas, found: Reconstruction, voxels: np.ndarray) -> np.ndarray:
    """Where voxels of a case lie in the template."""
    frame = found.fit.placed()
    return template_map(atlas, found.fit.found)(frame.voxel_to_cube(voxels.astype(np.float64)))


def _parts_of(atlas: TrainedAtlas, found: Reconstruction) -> Labelled:
    """Places in the template of the voxels of a labelled case, and their labels."""
    mask = found.case.mask
    voxels = np.argwhere(mask.occupancy)
    values = read_labels(mask.path).values
    return Labelled(in_template(atlas, found, voxels), values[tuple(voxels.T)])
