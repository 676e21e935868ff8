"""Uses of an atlas on files: observations in; completions, made shapes, corresponding meshes and labels out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from scipy.spatial import KDTree

from implicit_atlas.completion.completion import Completion, complete
from implicit_atlas.completion.observe import Drawn, Seen, from_landmarks
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.fit import Fit, all_doubts
from implicit_atlas.geometry.pieces import largest_pieces
from implicit_atlas.io import (
    Mesh,
    Problem,
    case_name,
    enclosing_pieces,
    find_cases,
    grid_around,
    label_ids,
    read_labels,
    read_landmarks,
    read_mask,
    write_label_map,
    write_mask,
    write_mesh,
    write_values,
    write_volume,
)
from implicit_atlas.io.output import make_folder
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.repair.annotations import Repair
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.sides import Mirror
from implicit_atlas.support.console import Report
from implicit_atlas.tasks.verbs import MESH_FOLDER, MESH_SUFFIX, writable
from implicit_atlas.trained_atlas import TrainedAtlas

OUTSIDE = 0.02  # share of a surface that may lie outside the volume that was given
POINT_ENDINGS = (".csv", ".mrk.json", ".fcsv")


@dataclass(frozen=True, eq=False)
class Told:
    """What a file says of an organ, and the mask that was drawn in part, if it is one."""

    source: Path
    seen: Observations
    drawn: Drawn | None = None


def read_observations(
    sources: Sequence[Path], seen: Seen, spread_mm: float, labels: Sequence[int], problems: list[Problem]
) -> Iterator[Told]:
    """What files say of organs, one after the other; files that cannot be used are added to `problems`.

    Files whose results would have one name are all set aside, because nothing says which is meant.
    """
    names = Counter(output_name(source) for source in sources)
    for source in sources:
        if names[output_name(source)] > 1:
            problem = "has the case name of another file"
            error = InputError(source, problem, "Rename one, or give them one by one, each its own -o.")
            problems.append(Problem(output_name(source), source, str(error)))
            continue
        try:
            if source.name.lower().endswith(POINT_ENDINGS):
                told = Told(source, from_landmarks(read_landmarks(source), spread_mm))
            else:
                drawn = Drawn.of(read_mask(source, tuple(labels)), seen)
                told = Told(source, drawn.observations(case_name(source)), drawn)
        except InputError as error:
            problems.append(Problem(output_name(source), source, str(error)))
        else:
            yield told


def observation_files(sources: Sequence[Path]) -> list[Path]:
    """The files themselves, and in place of a folder the clicks and masks in it.

    Raises:
        InputError: a folder holds neither.
    """
    found: list[Path] = []
    for source in sources:
        if not source.is_dir():
            found.append(source)
            continue
        clicks = sorted(p for p in source.iterdir() if p.name.lower().endswith(POINT_ENDINGS))
        clicks = [path for path in clicks if path.is_file() and not path.name.startswith(".")]
        found += clicks
        try:
            cases = find_cases(source)
        except InputError:
            if not clicks:
                raise
        else:
            found += [*cases.paths, *(problem.path for problem in cases.problems)]
    return list(dict.fromkeys(found))


def complete_each(  # noqa: PLR0913 (options of a main verb)
    atlas: TrainedAtlas,
    known: Iterable[Told],
    total: int,
    draws: int,
    problems: list[Problem],
    report: Report = lambda share, text: None,
    mirror: Mirror = "no",
) -> Iterator[tuple[Completion, Told]]:
    """Complete one case after the other; what cannot be of such an organ goes to `problems`.

    `mirror` says which are mirror images of the atlas's organs.

    Memory does not grow with the number of cases, where they are read one by one.
    """
    for number, told in enumerate(known):

        def overall(share: float, text: str, number: int = number) -> None:
            report((number + share) / total, text)

        try:
            done = complete(atlas, [told.seen], draws, overall, mirror)[0]
        except InputError as error:
            problems.append(Problem(output_name(told.source), told.source, str(error)))
            continue
        yield done, told


def write_completion(
    done: Completion,
    folder: Path,
    problems: list[Problem],
    grid: Grid | None = None,
    drawn: Drawn | None = None,
    source: Path | None = None,
) -> dict[str, Any] | None:
    """Write mask and mesh, and of draws the probability of each voxel and the spread of each vertex, in mm.

    Returns what to say of it, or None where it failed. What an earlier call wrote of draws goes.

    Args:
        done: what was completed.
        folder: where to.
        problems: a completion that failed is added to them.
        grid: of the mask, and a shape that lies outside in part is doubtful; by default that of the mask that was drawn
            in part, larger where its volume ended within the organ, or one around the shape, along the world's axes.
        drawn: what stays as it is.
        source: the file of the case, to be named where it failed.
    """
    fit, name = done.fit, _plain(done.fit.name)
    source = source or Path(fit.name)
    if fit.failure is not None:
        problems.append(Problem(name, source, f"the fit failed: {fit.failure}"))
        return None
    mesh, doubt = done.mesh(), done.doubt
    if grid is not None:
        doubt = all_doubts(doubt, _outside(mesh, grid))
    else:
        # With room for all that may be the organ.
        reach = np.concatenate([mesh.vertices, *done.draw_vertices])
        grid = grid_around(Mesh(reach, mesh.faces)) if drawn is None else drawn.grid_with(reach)
    occupancy = done.mask_on(grid)
    occupancy = occupancy if drawn is None else drawn.kept_in(occupancy, grid)
    make_folder(folder / MESH_FOLDER)
    if not occupancy.any():
        problem = "the shape lies outside the volume that was given"
        remedy = "Check --image, and whether points are LPS or RAS."
        problems.append(Problem(name, source, f"{problem}. {remedy}"))
        return None
    write_mask(folder / f"{name}.nii.gz", occupancy, grid)
    write_mesh(folder / MESH_FOLDER / f"{name}{MESH_SUFFIX}", mesh)
    spread_mm: float | str = ""
    probability, spread_mesh = folder / "probability" / f"{name}.nii.gz", folder / MESH_FOLDER / f"{name}.vtp"
    if not done.draws:
        probability.unlink(missing_ok=True)
        spread_mesh.unlink(missing_ok=True)
    else:
        write_volume(probability, done.probability_on(grid), grid)
        spread = done.spread_mm(mesh.vertices)
        spread_mm = round(float(spread.mean()), 3)
        surface = Mesh(mesh.vertices, mesh.faces)
        write_values(spread_mesh, surface, {"spread_mm": spread})
    return {
        "name": name,
        "volume_ml": round(occupancy.sum() * grid.voxel_volume_mm3 / 1000, 3),
        "labels_kept": "" if done.labels_kept is None else round(done.labels_kept, 3),
        "boundary_mm": "" if done.boundary_mm is None else round(done.boundary_mm, 3),
        "moved": round(done.moved, 3),
        "spread_mm": spread_mm,
        "guessed": "" if done.guessed is None else round(done.guessed, 3),
        "boundary": int((done.seen.occupancy == 0.5).sum()),
        "inside": int((done.seen.occupancy > 0.5).sum()),
        "outside": int((done.seen.occupancy < 0.5).sum()),
        "degrees_of_freedom": fit.found.degrees_of_freedom,
        "mirrored": fit.placed().mirrored,
        "doubt": doubt or "",
    }


def _outside(mesh: Mesh, grid: Grid) -> str | None:
    """A doubt about a shape that lies outside a volume in part, which its mask lacks."""
    inverse = np.linalg.inv(grid.affine)
    voxels = mesh.vertices @ inverse[:3, :3].T + inverse[:3, 3]
    share = float(((voxels < -0.5) | (voxels > np.array(grid.shape) - 0.5)).any(1).mean())
    if share <= OUTSIDE:
        return None
    part = (
        f"{100 * share:.0f} % of its surface lies outside the volume that was given, and its mask ends there"
    )
    return f"{part}: check --image, and whether points are LPS or RAS"


def output_name(source: Path) -> str:
    """The name of a case's results: that of its file, of points or a mask, without the ending."""
    name = _plain(source.name)
    return case_name(source) if name == source.name else name


def _plain(name: str) -> str:
    """A name without the ending of a file of points."""
    for ending in POINT_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def write_repair(done: Repair, folder: Path) -> dict[str, Any]:
    """Write a repaired mask on its own grid; what was changed. Parts that it has keep their labels."""
    grid, name = done.mask.grid, done.fit.name
    path, parts = folder / f"{name}.nii.gz", _parts_of(done)
    if parts is None:
        write_mask(path, done.occupancy, grid, writable(done.mask.dtype))
    else:
        write_label_map(path, parts, grid)
    to_ml = grid.voxel_volume_mm3 / 1000
    return {
        "name": name,
        "volume_ml": round(float(done.occupancy.sum()) * to_ml, 3),
        "added_ml": round(done.added * to_ml, 3),
        "removed_ml": round(done.removed * to_ml, 3),
        "put_back_ml": round(done.put_back * to_ml, 3),
        "slice_mm": round(done.slice_mm, 3),
        "dsc": round(100 * done.likeness, 2),
        "mirrored": done.fit.placed().mirrored,
        "doubt": done.doubt or "",
    }


def _parts_of(done: Repair) -> Integer[np.ndarray, "x y z"] | None:
    """The labels of a mask of several, of what was added those of the nearest voxel; None of a mask of one."""
    stored = read_labels(done.mask.path).values
    own = np.where(done.mask.occupancy, stored, 0).astype(stored.dtype)
    if len(label_ids(own)) < 2:
        return None
    known, spacing_mm = np.argwhere(own), done.mask.grid.spacing_mm
    added = np.argwhere(done.occupancy & (own == 0))  # few: a transform of all of a scan would take gigabytes
    nearest = KDTree(known * spacing_mm).query(added * spacing_mm)[1]
    own[tuple(added.T)] = own[tuple(known[nearest].T)]
    own[~done.occupancy] = 0
    return own


def write_made(fit: Fit, name: str, folder: Path, most: int = 1) -> dict[str, Any]:
    """Write a shape that lies in no scan, about the origin: its largest pieces, at most so many.

    Raises:
        InputError: the shape is empty.
    """
    whole = fit.mesh()
    if not len(whole.faces):
        raise InputError(name, "is empty", "Use a lower temperature.")
    mesh, pieces = enclosing_pieces(whole, most)
    grid = grid_around(mesh)
    occupancy, _ = largest_pieces(fit.mask_on(grid), most)
    make_folder(folder / MESH_FOLDER)
    write_mask(folder / f"{name}.nii.gz", occupancy, grid)
    write_mesh(folder / MESH_FOLDER / f"{name}{MESH_SUFFIX}", mesh)
    volume_ml = float(occupancy.sum() * grid.voxel_volume_mm3 / 1000)
    return {"name": name, "template": fit.found.template, "volume_ml": round(volume_ml, 3), "pieces": pieces}
