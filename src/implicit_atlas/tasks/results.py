"""What is written of a case: reconstructions, completions, repairs and made shapes, and what to say of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from scipy.spatial import KDTree

from implicit_atlas.completion.completion import Completion
from implicit_atlas.completion.observe import Drawn
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.fit import Fit, all_doubts
from implicit_atlas.geometry.pieces import largest_pieces
from implicit_atlas.io import (
    CaseFile,
    Mesh,
    Problem,
    enclosing_pieces,
    grid_around,
    label_ids,
    read_labels,
    write_label_map,
    write_mask,
    write_mesh,
    write_values,
    write_volume,
)
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.repair.annotations import Repair
from implicit_atlas.tasks.formats import DEFAULT, Formats
from implicit_atlas.tasks.observations import plain_name
from implicit_atlas.tasks.reconstruct import Reconstruction

OUTSIDE = 0.02  # share of a surface that may lie outside the volume that was given


@dataclass(frozen=True)
class Written:
    """Where a reconstruction was written, and how its fit went."""

    name: str
    mask: str
    mesh: str
    volume_ml: float
    dsc: float
    degrees_of_freedom: int
    iterations: int
    seconds: float
    template: int | None
    start: str
    mirrored: bool
    doubt: str


def write_reconstruction(found: Reconstruction, folder: Path, formats: Formats = DEFAULT) -> Written:
    """Write a fit's mask on the case's own grid, and its mesh in millimetres in the subfolder `meshes`."""
    fit, case = found.fit, found.case
    mask_path, mesh_path = formats.mask_path(folder, fit.name), formats.mesh_path(folder, fit.name)
    mask, grid = found.mask(), case.mask.grid
    write_mask(mask_path, mask, grid, writable(case.mask.dtype))
    write_mesh(mesh_path, found.mesh())
    code = fit.found
    return Written(
        fit.name,
        mask_path.name,
        mesh_path.relative_to(folder).as_posix(),
        round(float(mask.sum()) * grid.voxel_volume_mm3 / 1000, 3),
        round(100 * found.likeness, 2),
        code.degrees_of_freedom,
        code.iterations,
        round(code.seconds, 2),
        code.template,
        code.start,
        fit.placed().mirrored,
        found.doubt or "",
    )


def writable(dtype: np.dtype) -> np.dtype:
    """The file's own integer type, or uint8 where the file held floating-point numbers."""
    return dtype if np.issubdtype(dtype, np.integer) else np.dtype(np.uint8)


def write_completion(  # noqa: PLR0913 (what is known of a case)
    done: Completion,
    folder: Path,
    problems: list[Problem],
    grid: Grid | None = None,
    drawn: Drawn | None = None,
    source: CaseFile | None = None,
    formats: Formats = DEFAULT,
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
        source: of the case, under whose name results are written, and which is named where it failed.
        formats: of mask and mesh; the probability is written as the mask is.
    """
    fit = done.fit
    source = source or CaseFile(plain_name(fit.name), Path(fit.name))
    name = source.name
    if fit.failure is not None:
        problems.append(source.problem(f"the fit failed: {fit.failure}"))
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
    if not occupancy.any():
        problem = "the shape lies outside the volume that was given"
        remedy = "Check --image, and whether points are LPS or RAS."
        problems.append(source.problem(f"{problem}. {remedy}"))
        return None
    write_mask(formats.mask_path(folder, name), occupancy, grid)
    spread_mm: float | str = ""
    probability, spread_mesh = formats.probability_path(folder, name), formats.spread_path(folder, name)
    if not done.draws:
        probability.unlink(missing_ok=True)
        spread_mesh.unlink(missing_ok=True)
    write_mesh(formats.mesh_path(folder, name), mesh)
    if done.draws:
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
        "degrees_of_freedom": done.whole.degrees_of_freedom,
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


def write_repair(done: Repair, folder: Path, formats: Formats = DEFAULT) -> dict[str, Any]:
    """Write a repaired mask on its own grid; what was changed. Parts that it has keep their labels."""
    grid, name = done.mask.grid, done.fit.name
    path, parts = formats.mask_path(folder, name), _parts_of(done)
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
    """The labels of a mask, of what was added those of the nearest voxel; None of a mask of label 1 alone."""
    stored = read_labels(done.mask.path).values
    own = np.where(done.mask.occupancy, stored, 0).astype(stored.dtype)
    ids = label_ids(own)
    if len(ids) < 2:
        only = max(ids, default=1)
        return None if only == 1 else np.where(done.occupancy, only, 0).astype(stored.dtype)
    known, spacing_mm = np.argwhere(own), done.mask.grid.spacing_mm
    added = np.argwhere(done.occupancy & (own == 0))  # few: a transform of all of a scan would take gigabytes
    nearest = KDTree(known * spacing_mm).query(added * spacing_mm)[1]
    own[tuple(added.T)] = own[tuple(known[nearest].T)]
    own[~done.occupancy] = 0
    return own


def write_made(
    fit: Fit, name: str, folder: Path, most: int = 1, formats: Formats = DEFAULT
) -> dict[str, Any]:
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
    write_mask(formats.mask_path(folder, name), occupancy, grid)
    write_mesh(formats.mesh_path(folder, name), mesh)
    volume_ml = float(occupancy.sum() * grid.voxel_volume_mm3 / 1000)
    return {"name": name, "template": fit.found.template, "volume_ml": round(volume_ml, 3), "pieces": pieces}
