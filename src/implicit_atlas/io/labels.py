"""From stored voxel values to whole-number labels, and from labels to one organ's mask."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, Shaped

from implicit_atlas.errors import AbsentLabelError, InputError
from implicit_atlas.io.types import LabelMap, Mask

MAX_LABEL = 2**53
"""Largest label that survives as a float64, for files that store labels as floats."""

_ROUNDING = 1e-4
_SCAN_VOXELS = 2**20
_IMAGE_VALUES = 32
_LABEL_REMEDY = "Threshold it, or save it as an integer label map (0 is background)."
_SHOWN_LABELS = 20


def whole_labels(
    values: Shaped[np.ndarray, "x y z"], source: Path
) -> tuple[Integer[np.ndarray, "x y z"], tuple[str, ...]]:
    """Return voxel values as integers, and a note where that took a repair.

    Integers stay as they are (in this machine's byte order). Floats must be whole numbers up to 1e-4, or take
    a single value besides 0, which becomes label 1.

    Raises:
        InputError: NaN or infinite voxels, fractional labels, or labels too large to be told apart.
    """
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False), ()
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(source, f"has {count} voxels that are NaN or infinite", _LABEL_REMEDY)
    low, high = float(values.min()), float(values.max())
    if max(-low, high) > MAX_LABEL:
        raise InputError(
            source, f"has labels beyond {MAX_LABEL}, which floats cannot tell apart", _LABEL_REMEDY
        )
    rounded = np.rint(values)
    if np.abs(values - rounded).max() <= _ROUNDING:
        kind = np.result_type(np.min_scalar_type(round(low)), np.min_scalar_type(round(high)))
        return rounded.astype(kind), ()
    foreground = values != 0
    levels = values[foreground]
    if levels[0] > 0 and (levels == levels[0]).all():
        return foreground.view(np.uint8), (f"its values 0 and {levels[0]:g} were read as 0 and 1",)
    example = levels[np.abs(levels - np.rint(levels)) > _ROUNDING][0]
    raise InputError(source, f"has fractional labels (for example {example:g})", _LABEL_REMEDY)


def label_ids(values: Integer[np.ndarray, "x y z"]) -> tuple[int, ...]:
    """Return the labels other than 0 that occur, in order."""
    flat = values.reshape(-1, order="A")
    found: set[int] = set()
    for start in range(0, flat.size, _SCAN_VOXELS):
        block = flat[start : start + _SCAN_VOXELS]
        if block.dtype == np.uint8:
            found.update(np.flatnonzero(np.bincount(block)).tolist())
        elif block.any():
            found.update(np.unique(block).tolist())
    return tuple(sorted(found - {0}))


def select_mask(label_map: LabelMap, labels: tuple[int, ...] = ()) -> Mask:
    """Return the organ that the given label ids make up together; every label above 0 if none is given.

    Of several ids some may be absent (not every kidney has a cyst): that is a note. All absent is an error.

    Raises:
        InputError: a label below 1, an empty volume, or an image where a label map was expected; `AbsentLabelError`
            where none of the labels occurs (the message says which do).
    """
    source, values = label_map.path, label_map.values
    notes = list(label_map.notes)
    if labels:
        occupancy, absent = _voxels_of(values, labels, source)
        if absent:
            notes.append(f"{_words(absent)} {'does' if len(absent) == 1 else 'do'} not occur")
    else:
        _refuse_image(values, source)
        # Before the comparison, which would be the first to spend memory on a volume of zeros.
        if values.max() < 1:
            problem = "the mask is empty: no voxel is above 0"
            raise InputError(source, problem, "Leave the case out, or segment it again.")
        occupancy = values > 0
    if occupancy.all():
        notes.append("the mask fills the whole volume")
    return Mask(occupancy, label_map.grid, source, labels, label_map.dtype, tuple(notes))


def as_label_ids(labels: Any) -> tuple[int, ...]:
    """Label ids as they may be given: one, or several.

    Raises:
        InputError: a text, or anything else that is no whole number.
    """
    try:
        several: tuple[Any, ...] = (labels,) if isinstance(labels, (str, int, np.integer)) else tuple(labels)
        if any(isinstance(label, str) for label in several):
            raise TypeError("a text")
        return tuple(operator.index(label) for label in several)
    except TypeError as error:
        raise InputError(
            "labels", f"{labels!r} are no label ids ({error})", "Give (1,) or (1, 2)."
        ) from error


def check_label_ids(labels: tuple[int, ...]) -> None:
    """Refuse label ids that cannot name an organ.

    Raises:
        InputError: an id below 1.
    """
    if any(label < 1 for label in labels):
        raise InputError(
            "labels", f"{min(labels)} is no label of an organ", "Use ids from 1 up; 0 is background."
        )


def _voxels_of(
    values: np.ndarray, labels: tuple[int, ...], source: Path
) -> tuple[Bool[np.ndarray, "x y z"], list[int]]:
    """Return the voxels of any of the labels, and the labels that have none."""
    check_label_ids(labels)
    occupancy, absent = np.zeros_like(values, dtype=bool), []
    for label in labels:
        voxels = values == label
        if voxels.any():
            occupancy |= voxels
        else:
            absent.append(label)
    if len(absent) == len(labels):
        there = label_ids(values)
        problem = f"has no voxel of {_words(absent)}; " + (
            f"it has {_words(there)}" if there else "it is empty"
        )
        raise AbsentLabelError(source, problem, "Choose a label that occurs, or leave the case out.")
    return occupancy, absent


def _refuse_image(values: np.ndarray, source: Path) -> None:
    """Refuse an image given as a mask: negative values, or many values with neighbours that mostly differ."""
    if values.dtype.kind == "i" and values.min() < 0:
        problem = f"has negative voxels (down to {values.min()}), as an image has and a mask has not"
        raise InputError(source, problem, "Give the segmentation, or choose label ids.")
    flat = values.reshape(-1, order="A")
    step = max(1, flat.size // (2 * _SCAN_VOXELS))
    here, next_voxel = flat[:-1:step], flat[1::step]
    both = (here > 0) & (next_voxel > 0)
    if not both.any() or np.mean(here[both] != next_voxel[both]) <= 0.5:
        return
    n_values = len(np.unique(here[both]))
    if n_values > _IMAGE_VALUES:
        problem = f"looks like an image and not a mask: {n_values} values, and most neighbours differ"
        raise InputError(source, problem, "Give the segmentation, or choose label ids.")


def _words(labels: list[int] | tuple[int, ...]) -> str:
    """Write label ids for a message: "label 3", "labels 1, 2"."""
    shown = ", ".join(str(label) for label in labels[:_SHOWN_LABELS])
    more = f" and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
    return f"label{'' if len(labels) == 1 else 's'} {shown}{more}"
