"""Several organs of one label map: an atlas of each, and their shapes put back into one map without overlaps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.fitting.fit import Fit, all_doubts, cut_mask, unlike_mask
from implicit_atlas.fitting.sizes import unlike_size
from implicit_atlas.io import (
    CaseFile,
    MaskFile,
    Problem,
    declared_labels,
    label_ids,
    parse_labels,
    read_labels,
    select_mask,
)
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.metrics import dsc
from implicit_atlas.shapes.shape import Shape, restore, restore_lattice
from implicit_atlas.sides import Mirror, sided
from implicit_atlas.support.console import Report
from implicit_atlas.trained_atlas import TrainedAtlas

Organs = dict[str, tuple[int, ...]]
"""Label ids of every organ, by its name."""


@dataclass(frozen=True, eq=False)
class Merged:
    """The organs of one case as their atlases see them.

    Args:
        name: of the case.
        labels: of every voxel: the organ's first label id, 0 for background.
        grid: of the case's file.
        fits: of each organ that was found.
        voxels: that each of them has got.
        doubts: of each, why it is not to be trusted.
        absent: organs that do not occur in the file.
        contested: voxels that more than one organ claimed; each went to the one that holds it more probably.
    """

    name: str
    labels: Integer[np.ndarray, "x y z"]
    grid: Grid
    fits: dict[str, Fit]
    voxels: dict[str, int]
    doubts: dict[str, str | None]
    absent: tuple[str, ...]
    contested: int


def parse_organs(words: Sequence[str], source: Path) -> Organs:
    """Organs as they are typed, NAME=IDS or a name that the data declares; all that it declares where none is given.

    Raises:
        InputError: a name twice or that no file can have, a label of two organs, or nothing to choose from.
    """
    organs: Organs = {}
    if not words:
        words = sorted(declared_labels(source))
    for word in words:
        name, equals, ids = word.partition("=")
        name = name.strip()
        if not re.fullmatch(r"[\w][\w .+-]*", name) or name in organs:
            problem = "cannot be the name of a folder, or is given twice"
            raise InputError(
                f"organ '{name}'", problem, "Write --organ NAME=IDS, for example --organ liver=1."
            )
        organs[name] = parse_labels(ids if equals else name, source)
    if not organs:
        remedy = "Say which labels are which organ: --organ liver=1 --organ kidneys=2,3."
        raise InputError(source, "declares no labels in a dataset.json or .seg.nrrd", remedy)
    check_distinct(organs)
    return organs


def check_distinct(organs: Mapping[str, Sequence[int]]) -> None:
    """Refuse organs that share a label, or that have none.

    Raises:
        InputError: naming them.
    """
    owner: dict[int, str] = {}
    for name, ids in organs.items():
        if not ids:
            remedy = "Train it with --label, so that it is known which label it stands for."
            raise InputError(f"organ '{name}'", "was trained on all labels above 0", remedy)
        for label in ids:
            if label in owner:
                problem = f"and '{owner[label]}' share label {label}"
                raise InputError(f"organ '{name}'", problem, "Give every label to one organ.")
            owner[label] = name


def reconstruct_organs(
    atlases: Mapping[str, TrainedAtlas],
    sources: Sequence[MaskFile],
    config: FitConfig | None = None,
    on_problem: Callable[[Problem], object] = lambda problem: None,
    report: Report = lambda share, text: None,
    mirror: Mirror = "no",
) -> Iterator[Merged]:
    """Fit every organ of label maps by its own atlas, and merge them, case by case.

    What cannot be read or fitted goes to `on_problem`; the case's other organs are still merged. Memory does not
    grow with the number of cases.

    Args:
        atlases: by name of the organ; each knows its own labels.
        sources: label maps.
        config: how to fit.
        on_problem: told of what cannot be used.
        report: told how far it is.
        mirror: which organs are mirror images of their atlas's.

    Raises:
        InputError: two atlases share a label, or one was trained on all labels.
    """
    check_distinct({name: atlas.config.labels for name, atlas in atlases.items()})
    config = config or FitConfig()
    for first in range(0, len(sources), config.batch):
        part = [CaseFile.of(source) for source in sources[first : first + config.batch]]
        cases = [case for file in part if (case := _organs_of(file, atlases, on_problem, mirror)) is not None]
        for number, (name, atlas) in enumerate(atlases.items()):
            having = [case for case in cases if name in case.shapes]
            done = (first + len(part) * number / len(atlases)) / len(sources)
            report(done, f"fitting {name} in {len(having)} cases")
            fits = atlas.fit([case.shapes[name] for case in having], config) if having else []
            for case, fit in zip(having, fits, strict=True):
                if fit.failure is None:
                    case.fits[name] = fit
                else:
                    why = all_doubts(fit.failure, case.unlike[name])
                    on_problem(Problem(f"{fit.name}, {name}", case.file.path, f"the fit failed: {why}"))
        for case in cases:
            yield _merged(case, atlases)
    report(1.0, "")


@dataclass(frozen=True, eq=False)
class _Case:
    file: CaseFile
    grid: Grid
    shapes: dict[str, Shape]
    unlike: dict[str, str | None]
    fits: dict[str, Fit]
    absent: tuple[str, ...]


def _organs_of(
    file: CaseFile,
    atlases: Mapping[str, TrainedAtlas],
    on_problem: Callable[[Problem], object],
    mirror: Mirror,
) -> _Case | None:
    """A label map's organs, each in its atlas's frame; None for a file that cannot be read."""
    try:
        whole = read_labels(file.path)
        there = set(label_ids(whole.values))
    except InputError as error:
        on_problem(file.problem(error))
        return None
    shapes, unlike, absent = {}, {}, []
    for organ, atlas in atlases.items():
        about = atlas.config
        if there.isdisjoint(about.labels):
            absent.append(organ)
            continue
        try:
            mask = select_mask(whole, about.labels)
            shape = about.prepared.shape_of(mask, file.name, "")
            shapes[organ], side = sided(atlas, shape, mirror)
            unlike[organ] = all_doubts(side, cut_mask(mask))
        except InputError as error:
            on_problem(Problem(f"{file.name}, {organ}", file.path, str(error)))
    return _Case(file, whole.grid, shapes, unlike, {}, tuple(absent))


def _merged(case: _Case, atlases: Mapping[str, TrainedAtlas]) -> Merged:
    ids = {name: atlases[name].config.labels[0] for name in case.fits}
    claims = {
        ids[name]: (fit, restore_lattice(fit.own_logits(case.shapes[name]), fit.placed(), 0.0))
        for name, fit in case.fits.items()
    }
    labels, contested = merge(claims, case.grid)
    voxels = {name: int((labels == label).sum()) for name, label in ids.items()}
    doubts = {
        name: all_doubts(
            unlike_mask(dsc(claims[ids[name]][1], restore(case.shapes[name]))),
            case.fits[name].found.doubt,
            case.unlike[name],
            unlike_size(atlases[name].config, case.shapes[name].frame),
        )
        for name in case.fits
    }
    return Merged(case.file.name, labels, case.grid, case.fits, voxels, doubts, case.absent, contested)


def merge(
    claims: Mapping[int, tuple[Fit, Bool[np.ndarray, "x y z"]]], grid: Grid
) -> tuple[Integer[np.ndarray, "x y z"], int]:
    """One label map of several shapes, and how many voxels more than one of them claimed.

    Such a voxel goes to the shape that holds it with the larger probability.

    Args:
        claims: by label id, shapes with their place in the scan of `grid`, and the voxels that each of them holds.
        grid: of the label map.
    """
    labels = np.zeros(grid.shape, np.min_scalar_type(max(claims, default=0)))
    count = np.zeros(grid.shape, np.uint8)
    for label, (_, mask) in claims.items():
        labels[mask] = label
        count += mask
    disputed = np.argwhere(count > 1)
    points_mm = disputed @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    best = np.full(len(disputed), -np.inf)
    for label, (fit, mask) in claims.items():
        claimed = np.flatnonzero(mask[tuple(disputed.T)])
        logits = fit.logits_at(fit.placed().world_to_cube(points_mm[claimed]))
        better = claimed[logits > best[claimed]]
        best[claimed] = np.maximum(best[claimed], logits)
        labels[tuple(disputed[better].T)] = label
    return labels, len(disputed)
