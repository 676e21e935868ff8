"""The fingerprint of a set of masks: sizes, spacing, orientation, pieces, holes, border contact, outliers.

It is what `check` prints before anything is trained on the data. A case that cannot be read is listed with
the reason, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import occupied_box
from implicit_atlas.io import (
    CaseFile,
    LabelMap,
    Mask,
    MaskSource,
    Problem,
    case_name,
    find_cases,
    label_ids,
    read_labels,
    select_mask,
)
from implicit_atlas.io.labels import check_label_ids
from implicit_atlas.io.voxel_grid import Grid

OUTLIER_Z = 3.5
"""Robust z-score (Iglewicz and Hoaglin, 1993) beyond which a case is an outlier."""

MIN_CASES_FOR_OUTLIERS = 5

# A spread of 5 % at least: in a set of near-equal organs a difference of a few per cent is no outlier.
_MIN_LOG_SPREAD = 0.05
_MAD_TO_SIGMA = 1.4826
_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)
_WORLD_AXES = ("LR", "PA", "IS")


@dataclass(frozen=True)
class CaseFingerprint:
    """What one mask is like.

    Args:
        name: the case's name.
        path: its file.
        shape: voxels of the volume along each array axis.
        spacing_mm: voxel size along each array axis.
        orientation: where the array axes point, e.g. "LPS".
        dtype: the voxels' type in the file.
        label_ids: labels that occur in the file, whichever of them make up the organ.
        volume_ml: volume of the organ.
        extent_mm: size of the organ's box from left to right, back to front and foot to head.
        components: connected pieces (26 neighbours).
        largest_component: share of the organ's voxels in the largest piece.
        holes: enclosed cavities (background with 6 neighbours).
        border_contact: sides of the volume that the organ touches, e.g. ("S",): it may be cut off there.
        notes: repairs made and doubts found while reading.
    """

    name: str
    path: Path
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    dtype: str
    label_ids: tuple[int, ...]
    volume_ml: float
    extent_mm: tuple[float, float, float]
    components: int
    largest_component: float
    holes: int
    border_contact: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Outlier:
    """A case whose size stands apart: `z` is its robust z-score in the logarithm of the measure."""

    name: str
    measure: str
    value: float
    z: float


@dataclass(frozen=True)
class Fingerprint:
    """What a set of masks is like.

    Args:
        labels: the label ids that make up the organ; empty for everything above 0.
        cases: the masks that can be used, by name.
        outliers: sizes that stand apart.
        problems: the cases that cannot be used, with the reason.
    """

    labels: tuple[int, ...]
    cases: tuple[CaseFingerprint, ...]
    outliers: tuple[Outlier, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fingerprint as JSON values."""
        return {
            "labels": list(self.labels),
            "cases": [_json(case) for case in self.cases],
            "outliers": [_json(outlier) for outlier in self.outliers],
            "problems": [_json(problem) for problem in self.problems],
        }


def fingerprint(
    source: MaskSource,
    labels: tuple[int, ...] = (),
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Look at every mask of a folder, or of a list of files.

    Args:
        source: what `find_cases` takes.
        labels: the ids that make up the organ together; everything above 0 if none is given.
        workers: threads.
        progress: called with the number of cases done and of all cases.

    Raises:
        InputError: no masks at all, or label ids below 1. A single bad case is a `Problem` instead.
    """
    check_label_ids(labels)
    found = find_cases(source)
    results: list[CaseFingerprint | Problem] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for result in pool.map(lambda file: _case_or_problem(file, labels), found.files):
            results.append(result)
            if progress is not None:
                progress(len(results), len(found.files))
    cases = tuple(result for result in results if isinstance(result, CaseFingerprint))
    problems = found.problems + tuple(result for result in results if isinstance(result, Problem))
    return Fingerprint(tuple(labels), cases, find_outliers(cases), problems)


def fingerprint_case(
    label_map: LabelMap, labels: tuple[int, ...] = (), name: str | None = None
) -> CaseFingerprint:
    """Look at one mask; the case's name is its file's by default.

    Raises:
        InputError: the labels do not occur, or the mask is empty.
    """
    mask = select_mask(label_map, labels)
    grid, box = mask.grid, occupied_box(mask.occupancy)
    organ = np.asfortranarray(mask.occupancy[box])
    piece_voxels = _piece_voxels(organ, _ALL_NEIGHBOURS)
    # One layer of background around the box joins everything outside; what else is background is enclosed.
    n_background = len(_piece_voxels(np.pad(~organ, 1, constant_values=True)))
    i, j, k = grid.spacing_mm.tolist()
    return CaseFingerprint(
        name=case_name(mask.path) if name is None else name,
        path=mask.path,
        shape=grid.shape,
        spacing_mm=(i, j, k),
        orientation=grid.orientation,
        dtype=mask.dtype.name,
        label_ids=label_ids(label_map.values),
        volume_ml=float(piece_voxels.sum()) * grid.voxel_volume_mm3 / 1000,
        extent_mm=_world_extent_mm(organ.shape, grid),
        components=len(piece_voxels),
        largest_component=float(piece_voxels.max() / piece_voxels.sum()),
        holes=n_background - 1,
        border_contact=_border_contact(box, mask),
        notes=mask.notes,
    )


def find_outliers(cases: tuple[CaseFingerprint, ...]) -> tuple[Outlier, ...]:
    """Return the cases whose volume or extent stands apart from the others', farthest first."""
    if len(cases) < MIN_CASES_FOR_OUTLIERS:
        return ()
    measures = {"volume_ml": [case.volume_ml for case in cases]}
    for axis, name in enumerate(_WORLD_AXES):
        measures[f"extent_{name}_mm"] = [case.extent_mm[axis] for case in cases]
    outliers = [
        Outlier(case.name, measure, value, float(z))
        for measure, values in measures.items()
        for case, value, z in zip(cases, values, robust_z(np.log(values)), strict=True)
        if abs(z) > OUTLIER_Z
    ]
    return tuple(sorted(outliers, key=lambda outlier: (-abs(outlier.z), outlier.name)))


def robust_z(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return (value - median) / (1.4826 MAD), the spread being 0.05 at least."""
    deviation = values - np.median(values)
    return deviation / max(_MAD_TO_SIGMA * float(np.median(np.abs(deviation))), _MIN_LOG_SPREAD)


def _case_or_problem(file: CaseFile, labels: tuple[int, ...]) -> CaseFingerprint | Problem:
    try:
        return fingerprint_case(read_labels(file.path), labels, file.name)
    except InputError as error:
        return file.problem(error)
    except MemoryError:
        return file.problem(f"{file.path}: does not fit into memory. Crop it to the organ first.")


def _piece_voxels(
    occupancy: Bool[np.ndarray, "x y z"], neighbours: Bool[np.ndarray, "3 3 3"] | None = None
) -> Int[np.ndarray, " pieces"]:
    """Return the number of voxels in each connected piece (6 neighbours unless told otherwise)."""
    # scipy is three times as fast on C order, and volumes from files are in Fortran order.
    in_c_order = occupancy.T if occupancy.T.flags.c_contiguous else np.ascontiguousarray(occupancy)
    pieces = np.empty(in_c_order.shape, np.int32)
    ndimage.label(in_c_order, structure=neighbours, output=pieces)
    return np.bincount(pieces.ravel())[1:]


def _world_extent_mm(shape: tuple[int, ...], grid: Grid) -> tuple[float, float, float]:
    """Return a box's size along the world axis that each array axis is nearest to."""
    extent_mm = dict(zip(grid.orientation, np.array(shape) * grid.spacing_mm, strict=True))
    sizes = [
        float(next((extent_mm[side] for side in axis if side in extent_mm), np.nan)) for axis in _WORLD_AXES
    ]
    return sizes[0], sizes[1], sizes[2]


def _border_contact(box: tuple[slice, slice, slice], mask: Mask) -> tuple[str, ...]:
    """Return the sides on which an organ's box reaches its volume's border."""
    sides: list[str] = []
    for axis, (window, length) in enumerate(zip(box, mask.grid.shape, strict=True)):
        if window.start == 0:
            sides.append(mask.grid.side(axis, last=False))
        if window.stop == length:
            sides.append(mask.grid.side(axis, last=True))
    return tuple(sorted(sides))


def _json(record: CaseFingerprint | Outlier | Problem) -> dict[str, Any]:
    values = asdict(record)
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
