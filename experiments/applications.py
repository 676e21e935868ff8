"""What the uses of an atlas reach on unseen shapes: python -m experiments.applications MODEL --organ hippocampus.

MODEL has learned from `train` alone. Completion in a scan, where neither position nor size nor orientation are given,
from clicks, slices and masks that were cut off, beside what one would use instead. Results are kept in
experiments/results/applications-ORGAN.json, from which docs/uses is made.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from trimesh.sample import sample_surface

import implicit_atlas
from experiments.cells.cell import RESULTS
from experiments.cells.completion import BAND_WIDTH_VOX, observe
from experiments.cells.data import DEFAULT_DATA
from experiments.peers.others import COMPONENTS, BoxedComponents, in_box, shape_based, smooth_function
from experiments.peers.through_clicks import through_clicks
from implicit_atlas.completion.completion import complete
from implicit_atlas.completion.observe import CLICK_MM, Drawn
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.pose import FREE
from implicit_atlas.fitting.sparse import SparseConfig
from implicit_atlas.geometry.surface import occupancy_mesh
from implicit_atlas.io import Mask, case_name, find_cases, read_mask
from implicit_atlas.metrics import score
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import Shape, prepare
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.files import write_atomic
from implicit_atlas.trained_atlas import TrainedAtlas

COUNTS, SLICES, CROSSING, CUT = (64, 256, 1024), (1, 3, 5, 9), (1, 2), (10, 30, 50)
TOLERANCE_MM = 1.0
LABELS = 1500  # that one spline goes through
WRITTEN = "ours, what was drawn kept"
BOXED, OURS_BOXED = f"{COMPONENTS} principal components, told the box", "ours, told the box"

Found = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Told:
    """What a completion is told, what one would use instead on the mask's grid, and what was drawn and stays."""

    seen: Observations
    others: Found
    drawn: Drawn | None = None


def clicks(mask: Mask, count: int) -> Observations:
    """Points of Figure 6 in millimetres: labelled in or out, at a noise of 2 voxels of 128 around the boundary."""
    shape = prepare(mask)
    seen = observe(shape, count)
    spread_mm = BAND_WIDTH_VOX * float(shape.frame.lattice_spacing_mm.mean())
    return replace(seen, points=shape.frame.cube_to_world(seen.points), spread=spread_mm)


def boundary_clicks(mask: Mask, count: int) -> Observations:
    """Points in millimetres anywhere on the mask's surface, with no word of where inside is."""
    surface = occupancy_mesh(mask.occupancy, mask.grid)
    points, _ = sample_surface(trimesh.Trimesh(surface.vertices, surface.faces, process=False), count, seed=0)
    return Observations(np.asarray(points), np.full(count, 0.5), name=case_name(mask.path), spread=CLICK_MM)


def long_axis(mask: Mask) -> tuple[int, np.ndarray]:
    """The array's axis along which the organ is longest, and the slices that hold it."""
    occupied = [np.flatnonzero(mask.occupancy.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
    axis = int(np.argmax([np.ptp(planes) * mask.grid.spacing_mm[a] for a, planes in enumerate(occupied)]))
    return axis, occupied[axis]


def kept_slices(mask: Mask, count: int) -> tuple[Mask, np.ndarray]:
    """The mask on a few evenly spaced slices across its long axis, and which they are."""
    axis, planes = long_axis(mask)
    chosen = planes[np.round((np.arange(count) + 0.5) / count * (len(planes) - 1)).astype(int)]
    kept = np.zeros(mask.occupancy.shape, bool)
    np.moveaxis(kept, axis, 0)[chosen] = np.moveaxis(mask.occupancy, axis, 0)[chosen]
    return replace(mask, occupancy=kept), chosen


def crossing_slices(mask: Mask, count: int) -> Mask:
    """The mask on a few evenly spaced slices across each of its axes."""
    kept = np.zeros(mask.occupancy.shape, bool)
    for axis in range(3):
        planes = np.flatnonzero(mask.occupancy.any(tuple(b for b in range(3) if b != axis)))
        chosen = planes[np.round((np.arange(count) + 0.5) / count * (len(planes) - 1)).astype(int)]
        np.moveaxis(kept, axis, 0)[chosen] = np.moveaxis(mask.occupancy, axis, 0)[chosen]
    return replace(mask, occupancy=kept)


def cut_off(mask: Mask, percent: int) -> Mask:
    """The part of a mask that a volume ending within the organ would show; the volume's end is where the array ends."""
    axis, planes = long_axis(mask)
    stop = planes[0] + max(1, round(len(planes) * (1 - percent / 100)))
    part = np.moveaxis(np.moveaxis(mask.occupancy, axis, 0)[:stop], 0, axis)
    return replace(mask, occupancy=part, grid=type(mask.grid)(part.shape, mask.grid.affine))


def by_clicks(mask: Mask, count: int) -> Told:
    """Clicks, and what labels alone say."""
    seen = clicks(mask, count)
    return Told(seen, {"radial basis functions": smooth_function(seen, mask)})


def by_boundary(mask: Mask, count: int) -> Told:
    """Clicks on the boundary, and what surfaces pass through them."""
    seen = boundary_clicks(mask, count)
    return Told(seen, through_clicks(seen, mask))


def by_slices(mask: Mask, count: int) -> Told:
    """Slices, and what lies between them."""
    kept, planes = kept_slices(mask, count)
    between = shape_based(kept, planes, long_axis(mask)[0])
    drawn = Drawn.of(kept, "slices")
    seen = drawn.observations(case_name(mask.path))
    return Told(seen, {"shape-based interpolation": between}, drawn)


def by_crossing(mask: Mask, count: int) -> Told:
    """Slices across all axes, and what labels alone say: many of them, as neighbours mostly lie in one plane."""
    drawn = Drawn.of(crossing_slices(mask, count), "slices")
    seen = drawn.observations(case_name(mask.path))
    some = np.random.default_rng(0).permutation(len(seen.points))[:LABELS]
    labels = Observations(seen.points[some], seen.occupancy[some], name=seen.name)
    return Told(seen, {"radial basis functions": smooth_function(labels, mask, neighbors=None)}, drawn)


def by_part(mask: Mask, percent: int) -> Told:
    """A part, and that alone."""
    part = cut_off(mask, percent)
    whole = np.zeros(mask.grid.shape, bool)
    whole[tuple(slice(0, n) for n in part.grid.shape)] = part.occupancy
    drawn = Drawn.of(part, "volume")
    return Told(drawn.observations(case_name(mask.path)), {"the part alone": whole}, drawn)


TASKS: dict[str, tuple[Callable[[Mask, int], Told], tuple[int, ...], str]] = {
    "clicks": (by_clicks, COUNTS, "points"),
    "boundary clicks": (by_boundary, COUNTS, "points"),
    "slices": (by_slices, SLICES, "slices"),
    "crossing slices": (by_crossing, CROSSING, "slices across each axis"),
    "cut off": (by_part, CUT, "% missing"),
}


def run_completion(
    atlas: TrainedAtlas,
    masks: list[Mask],
    report: Callable[[str], object],
    tasks: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Scores of every case, of all tasks or some, in percent: {task: {amount: [{name, method: [DSC, NSD], ...}]}}."""
    out: dict[str, Any] = {}
    components = BoxedComponents(known_shapes(atlas, masks[0].path.parent))
    for use in tasks or TASKS:
        observed, amounts, _ = TASKS[use]
        out[use] = {}
        for amount in amounts:
            told, rows = [observed(mask, amount) for mask in masks], []
            finished = complete(atlas, [task.seen for task in told])
            placed = told_the_box(atlas, masks, [task.seen for task in told])
            for mask, done, boxed, given in zip(masks, finished, placed, told, strict=True):
                ours = np.zeros(mask.grid.shape, bool) if done.fit.failure else done.mask_on(mask.grid)
                found = {"ours": ours, **given.others}
                if given.drawn is not None:
                    found[WRITTEN] = given.drawn.kept_in(ours, mask.grid)
                found |= {OURS_BOXED: boxed, BOXED: components.complete(given.seen, mask)}
                row: dict[str, Any] = {"name": case_name(mask.path), "doubt": done.doubt}
                for name, occupancy in found.items():
                    scores = score(mask.occupancy, occupancy, mask.grid.spacing_mm.tolist(), TOLERANCE_MM)
                    row[name] = [round(100 * scores.dsc, 3), round(100 * scores.nsd, 3)]
                rows.append(row)
            out[use][str(amount)] = rows
            report(f"{use} {amount}: " + ", ".join(f"{k} {v}" for k, v in means(rows).items()))
    return out


def told_the_box(atlas: TrainedAtlas, masks: list[Mask], observed: list[Observations]) -> list[np.ndarray]:
    """Completions that are told the organ's true box, on the masks' grids; nothing where one failed."""
    frames = [prepare(mask, margin=atlas.config.margin).frame for mask in masks]
    fits = atlas.complete([in_box(seen, frame) for seen, frame in zip(observed, frames, strict=True)])
    return [
        np.zeros(mask.grid.shape, bool) if fit.failure else replace(fit, frame=frame).mask_on(mask.grid)
        for mask, fit, frame in zip(masks, fits, frames, strict=True)
    ]


def means(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Mean scores by method."""
    names = [name for name in rows[0] if name not in ("name", "doubt")]
    return {name: [float(v) for v in np.mean([row[name] for row in rows], axis=0).round(2)] for name in names}


def free_numbers(atlas: TrainedAtlas) -> int:
    """Numbers of a completion: code, residual and pose, all under a prior."""
    nodes = atlas.residual_nodes(SparseConfig().residual_nodes)
    return atlas.codes.shape[1] + (0 if nodes is None else nodes.free) + FREE


def unseen(folder: Path, every: int) -> list[Mask]:
    """Every n-th of the masks that no training saw, of a folder with masks/ and splits.json."""
    names = json.loads((folder / "splits.json").read_text())["val"][::every]
    wanted = {case_name(Path(name)) for name in names}
    return [read_mask(path) for path in find_cases(folder / "masks").paths if case_name(path) in wanted]


def known_shapes(atlas: TrainedAtlas, folder: Path, margin: float = 0.0) -> list[Shape]:
    """The shapes that an atlas has learned, of one mask after the other: scans of livers together fill a memory.

    Raises:
        InputError: they do not lie in this folder.
    """
    names = set(atlas.config.names)
    paths = [path for path in find_cases(folder).paths if case_name(path) in names]
    if len(paths) < len(names):
        problem = f"holds {len(paths)} of the {len(names)} masks that the model has learned"
        raise InputError(str(folder), problem, "Give the folder that it was trained on.")
    return [prepare(read_mask(path), margin=margin) for path in paths]


def about_run(atlas: TrainedAtlas, organ: str, masks: list[Mask]) -> dict[str, Any]:
    """What to know of measurements."""
    return {
        "organ": organ,
        "cases": len(masks),
        "tolerance_mm": TOLERANCE_MM,
        "training_shapes": len(atlas.config.names),
        "margin": atlas.config.margin,
        "steps": atlas.provenance["steps"],
        "seed": atlas.provenance["training"]["seed"],
        "device": atlas.provenance["device"],
    }


@exit_status
def run_measurement(  # noqa: PLR0913 (what differs between measurements)
    text: str | None,
    name: str,
    key: str,
    measure: Callable[[TrainedAtlas, list[Mask], Callable[[str], object]], Any],
    more: Callable[[TrainedAtlas], dict[str, Any]],
    arguments: Sequence[str] | None = None,
    keep: bool = False,
) -> None:
    """Measure a use of a model on unseen masks, by the command line, and keep what was found.

    Args:
        text: of the help.
        name: of the result file, before the organ's.
        key: under which the file has the measurements.
        measure: what is measured.
        more: what else to know of it.
        arguments: of the command line.
        keep: what the file already has of other measurements under `key`.
    """
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("model", type=Path)
    parser.add_argument("--organ", default="hippocampus")
    parser.add_argument("--data", type=Path, help="folder with masks/ and splits.json")
    parser.add_argument("--every", type=int, default=1, help="of the unseen cases, take every n-th")
    options = parser.parse_args(arguments)
    folder = options.data or DEFAULT_DATA / options.organ
    atlas = implicit_atlas.load(str(options.model))
    masks = unseen(folder, options.every)
    begun = time.perf_counter()
    found = measure(atlas, masks, lambda line: print(line, flush=True))
    seconds = round(time.perf_counter() - begun, 1)
    about = {**about_run(atlas, options.organ, masks), **more(atlas)}
    about |= {"every": options.every, "seconds": seconds}
    path = RESULTS / f"{name}-{options.organ}.json"
    if keep and path.exists():
        before = json.loads(path.read_text())
        once_more = {
            "measured": list(found),
            "seconds": seconds,
            "degrees_of_freedom": about["degrees_of_freedom"],
        }
        about = before["about"]  # what was measured before keeps what is said of it
        others = [one for one in about.get("again", []) if one["measured"] != list(found)]
        about["again"] = [*others, once_more]
        found = before[key] | found
    write_atomic(path, (json.dumps({"about": about, key: found}, indent=1) + "\n").encode())


def main() -> int:
    """Measure and keep; with --tasks some alone, beside what the file has of others."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=tuple(TASKS))
    chosen, others = parser.parse_known_args()
    return run_measurement(
        __doc__,
        "applications",
        "completion",
        partial(run_completion, tasks=chosen.tasks),
        lambda atlas: {"degrees_of_freedom": free_numbers(atlas)},
        others,
        keep=len(chosen.tasks) < len(TASKS),
    )


if __name__ == "__main__":
    sys.exit(main())
