"""What the uses of an atlas reach on unseen shapes: python -m experiments.applications MODEL --organ hippocampus.

MODEL has learned from `train` alone. Completion in a scan, where neither position nor size nor orientation are given,
from clicks, slices and masks that were cut off, beside what one would use instead. Results are kept in
experiments/results/applications-ORGAN.json, from which docs/uses is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments.cells.measurement import (
    TOLERANCE_MM,
    free_numbers,
    known_shapes,
    run_measurement,
)
from experiments.cells.observed import (
    boundary_clicks,
    clicks,
    crossing_slices,
    cut_off,
    kept_slices,
    long_axis,
)
from experiments.peers.others import COMPONENTS, BoxedComponents, in_box, shape_based, smooth_function
from experiments.peers.through_clicks import through_clicks
from implicit_atlas.completion.completion import complete
from implicit_atlas.completion.observe import Drawn
from implicit_atlas.completion.rivals import MeanShape
from implicit_atlas.errors import InputError
from implicit_atlas.io import Mask, case_name
from implicit_atlas.metrics import score
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import prepare
from implicit_atlas.trained_atlas import TrainedAtlas

COUNTS, SLICES, CROSSING, CUT = (64, 256, 1024), (1, 3, 5, 9), (1, 2), (10, 30, 50)
LABELS = 1500  # that one spline goes through
WRITTEN = "ours, what was drawn kept"
ONE_END = "ours, the best end alone"
BOXED, OURS_BOXED = f"{COMPONENTS} principal components, told the box", "ours, told the box"

Found = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Told:
    """What a completion is told, what one would use instead on the mask's grid, and what was drawn and stays."""

    seen: Observations
    others: Found
    drawn: Drawn | None = None


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
    return _beside_the_part(Drawn.of(part, "volume"), _on_whole_grid(part, mask))


def by_unfinished(mask: Mask, percent: int) -> Told:
    """The same part within a volume that goes on; of one whose end is not told, nothing is known to be missing."""
    whole = _on_whole_grid(cut_off(mask, percent), mask)
    unfinished = replace(mask, occupancy=whole)
    try:
        drawn = Drawn.of(unfinished, "volume")
    except InputError:
        drawn = Drawn(unfinished, np.ones(whole.shape, bool))
    return _beside_the_part(drawn, whole)


def _on_whole_grid(part: Mask, mask: Mask) -> np.ndarray:
    whole = np.zeros(mask.grid.shape, bool)
    whole[tuple(slice(0, n) for n in part.grid.shape)] = part.occupancy
    return whole


def _beside_the_part(drawn: Drawn, part: np.ndarray) -> Told:
    return Told(drawn.observations(case_name(drawn.mask.path)), {"the part alone": part}, drawn)


TASKS: dict[str, tuple[Callable[[Mask, int], Told], tuple[int, ...], str]] = {
    "clicks": (by_clicks, COUNTS, "points"),
    "boundary clicks": (by_boundary, COUNTS, "points"),
    "slices": (by_slices, SLICES, "slices"),
    "crossing slices": (by_crossing, CROSSING, "slices across each axis"),
    "cut off": (by_part, CUT, "% missing"),
    "unfinished": (by_unfinished, CUT, "% missing"),
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
                ours = ended = np.zeros(mask.grid.shape, bool)
                if not done.fit.failure:
                    end = replace(done.fit, rivals=())
                    alone = replace(done, fit=end, mean=MeanShape.of(end))
                    ours, ended = done.mask_on(mask.grid), alone.mask_on(mask.grid)
                found = {"ours": ours, ONE_END: ended, **given.others}
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


def main() -> int:
    """Measure and keep."""
    return run_measurement(__doc__, "applications", "completion", run_completion, _free, tuple(TASKS))


def _free(atlas: TrainedAtlas) -> dict[str, Any]:
    return {"degrees_of_freedom": free_numbers(atlas)}


if __name__ == "__main__":
    sys.exit(main())
