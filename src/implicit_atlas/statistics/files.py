"""Statistics of mesh files: meshes of one topology in, means, modes, curves and comparisons out."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from implicit_atlas.errors import InputError
from implicit_atlas.io import Mesh, case_name, read_stored, write_mesh, write_values
from implicit_atlas.io.formats import is_mask_name
from implicit_atlas.statistics.cases import Shapes
from implicit_atlas.statistics.groups import GroupComparison, compare_groups
from implicit_atlas.statistics.modes import (
    compactness,
    generality,
    most_modes,
    principal_modes,
    specificity,
)

_log = logging.getLogger(__name__)

DEVIATIONS = 2.0  # of the meshes of modes
REMEDY = "Give meshes that one call of `implicit-atlas correspond` wrote."


def corresponding(
    paths: Sequence[Path], store: Path
) -> tuple[Float[np.ndarray, "n v 3"], Int[np.ndarray, "f 3"]]:
    """Vertices of meshes in RAS mm, on disk, and their common faces; they are read one by one.

    Meshes of organs of the other side than the first one's, whose faces run the other way round, are mirrored.

    Args:
        paths: PLY files.
        store: a file that is made to hold the vertices.

    Raises:
        InputError: no mesh, one that cannot be read, or one of another topology.
    """
    if not paths:
        raise InputError("meshes", "are none", REMEDY)
    first = read_stored(paths[0])
    shapes = np.lib.format.open_memmap(store, "w+", np.float64, (len(paths), *first.vertices.shape))
    others = 0
    for index, path in enumerate(paths):
        mesh = read_stored(path)
        other = np.array_equal(mesh.faces, first.faces[:, ::-1])
        if mesh.vertices.shape != first.vertices.shape or not (
            other or np.array_equal(mesh.faces, first.faces)
        ):
            raise InputError(path, f"has another topology than {paths[0].name}", REMEDY)
        shapes[index] = mesh.vertices * ((-1, 1, 1) if other else (1, 1, 1))
        others += other
    if others:
        _log.warning("%d of %d meshes are of the other side than %s: mirrored", others, len(paths), paths[0])
    return shapes, first.faces


def write_modes(
    shapes: Shapes,
    faces: Int[np.ndarray, "f 3"],
    names: Sequence[str],
    count: int,
    folder: Path,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the mean and the meshes of `DEVIATIONS` along each mode; rows of curves by modes, and of scores by case.

    Of the last mode of a row, `deviation_mm` is the standard deviation of its scores, which are norms over all
    vertices, and `rms_mm` how far it moves a vertex, root mean square.

    Of n cases, at most n - 2 modes are written, or fewer: as many as can be tested on cases left out.

    Raises:
        InputError: too few cases.
    """
    stats = principal_modes(shapes, min(count, most_modes(len(shapes))))
    curves = {
        "compactness": compactness(stats, seed),
        "generality_mm": generality(shapes, stats, seed),
        "specificity_mm": specificity(shapes, stats, seed=seed),
    }
    write_mesh(folder / "mean.ply", Mesh(stats.mean_mm, faces))
    for k, (mode, deviation) in enumerate(zip(stats.modes, stats.deviations_mm, strict=True), start=1):
        for sign, word in ((-1, "minus"), (1, "plus")):
            moved = stats.mean_mm + sign * DEVIATIONS * deviation * mode
            write_mesh(folder / f"mode-{k}-{word}.ply", Mesh(moved, faces))
    rows = []
    for k, deviation in enumerate((0.0, *stats.deviations_mm)):  # curves begin at the mean alone
        rms_mm = deviation / np.sqrt(len(stats.mean_mm))
        row: dict[str, Any] = {
            "modes": k,
            "deviation_mm": round(float(deviation), 4),
            "rms_mm": round(float(rms_mm), 4),
        }
        for name, curve in curves.items():
            for part, values in (("", curve.values), ("_low", curve.low), ("_high", curve.high)):
                row[name + part] = round(float(values[k]), 4)
        rows.append(row)
    scores = [
        {"name": name} | {f"mode_{k + 1}": round(float(value), 4) for k, value in enumerate(own)}
        for name, own in zip(names, stats.scores_mm, strict=True)
    ]
    return rows, scores


def read_groups(path: Path, names: Sequence[str]) -> list[str]:
    """The group of each case, of a CSV with columns `name` and `group`.

    Raises:
        InputError: the file cannot be read, lacks a column or a case, contradicts itself, or does not have two groups.
    """
    rows: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            delimiter = max(",;\t", key=header.count)
            columns = [one.strip().lower() for one in next(csv.reader([header], delimiter=delimiter), [])]
            lacking = {"name", "group"} - set(columns)
            if lacking:
                problem = f"has no column '{min(lacking)}', but {', '.join(columns) or 'nothing'}"
                raise InputError(path, problem, "Give a CSV with the columns name, group in its first line.")
            table = csv.DictReader(stream, columns, delimiter=delimiter)
            for row in table:
                name, group = row["name"].strip(), row["group"].strip()
                name = case_name(Path(name)) if is_mask_name(name) else name
                if rows.setdefault(name, group) != group:
                    problem = f"puts {name} into two groups, {rows[name]} and {group}"
                    raise InputError(path, problem, "Leave one of the two lines.")
    except (OSError, KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            path, f"cannot be read ({error})", "Give a CSV with the columns name, group."
        ) from error
    missing = [name for name in names if not rows.get(name)]
    if missing:
        raise InputError(path, f"has no group for {missing[0]}", "Name each mesh without its ending.")
    found = sorted({rows[name] for name in names})
    if len(found) != 2:
        raise InputError(path, f"has {len(found)} groups for these meshes", "Give two.")
    return [rows[name] for name in names]


def write_comparison(
    shapes: Shapes,
    faces: Int[np.ndarray, "f 3"],
    groups: Sequence[str],
    folder: Path,
    permutations: int = 1000,
    seed: int = 0,
) -> GroupComparison:
    """Write groups.vtp: the mean surface with difference (mm, outwards), p, q and share of variance of each vertex."""
    found = compare_groups(shapes, groups, permutations, seed)
    values = {"outward_mm": found.outward_mm(faces), "p": found.p, "q": found.q, "share": found.share}
    write_values(folder / "groups.vtp", Mesh(found.mean_mm, faces), values)
    return found
