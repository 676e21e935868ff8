"""Whether draws of completions say how uncertain they are: python -m experiments.calibration MODEL --organ hippocampus.

MODEL has learned from `train` alone. Of every unseen case, completed with 19 draws: the share of the true surface that
lies within some of the draws and outside others. Were truth one more draw, that would be 90 %: of 20 alike, truth is
the first or the last of them at a place with a probability of 10 %. And the spread of the draws, where the organ was
seen and where it was not, and how many of the voxels that some share of the shapes holds are of the organ.
Results: experiments/results/calibration-ORGAN.json, for docs/uses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.cells.measurement import free_numbers, run_measurement
from experiments.cells.observed import boundary_clicks, clicks, cut_off, kept_slices, long_axis
from implicit_atlas.completion.completion import Completion, complete
from implicit_atlas.completion.correction import values_at
from implicit_atlas.completion.observe import from_mask
from implicit_atlas.geometry.surface import occupancy_mesh
from implicit_atlas.io import Mask, case_name
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import prepare
from implicit_atlas.trained_atlas import TrainedAtlas

DRAWS = 19
POINTS = 4000  # of a surface
NEAR_PLANES = 1.0  # a place this near to a slice that was drawn, in slices, was seen
# Voxels by the share of the shapes, the mean and the draws, that hold them.
SHARES = {"to 20 %": 0.2, "to 40 %": 0.4, "to 60 %": 0.6, "to 80 %": 0.8, "below 100 %": 0.999, "100 %": 1.0}

Seen = Callable[[np.ndarray], np.ndarray]
"""Which of some points, in RAS mm, were in what was observed."""


def planes_of(mask: Mask, points_mm: np.ndarray) -> np.ndarray:
    """Position of points along the long axis, in slices."""
    axis, _ = long_axis(mask)
    inverse = np.linalg.inv(mask.grid.affine)
    return points_mm @ inverse[axis, :3] + inverse[axis, 3]


def by_clicks(mask: Mask) -> tuple[Observations, Seen]:
    """64 clicks, all around."""
    return clicks(mask, 64), lambda points: np.ones(len(points), bool)


def by_boundary_clicks(mask: Mask) -> tuple[Observations, Seen]:
    """64 clicks on the boundary, all around."""
    return boundary_clicks(mask, 64), lambda points: np.ones(len(points), bool)


def by_slices(mask: Mask) -> tuple[Observations, Seen]:
    """Three slices."""
    kept, chosen = kept_slices(mask, 3)

    def seen(points_mm: np.ndarray) -> np.ndarray:
        return (np.abs(planes_of(mask, points_mm)[:, None] - chosen) <= NEAR_PLANES).any(1)

    return from_mask(kept, "slices", case_name(mask.path)), seen


def by_part(mask: Mask) -> tuple[Observations, Seen]:
    """The first half, of a volume that ends there."""
    part = cut_off(mask, 50)
    end = part.grid.shape[long_axis(mask)[0]]
    seen = from_mask(part, "volume", case_name(mask.path))
    return seen, lambda points: planes_of(mask, points) <= end - 0.5


TASKS: dict[str, Callable[[Mask], tuple[Observations, Seen]]] = {
    "64 clicks": by_clicks,
    "64 boundary clicks": by_boundary_clicks,
    "3 slices": by_slices,
    "50 % cut off": by_part,
}


def some(points: np.ndarray) -> np.ndarray:
    """A random choice of points that is always the same."""
    if len(points) <= POINTS:
        return points
    return points[np.random.default_rng(0).choice(len(points), POINTS, replace=False)]


def covered(done: Completion, truth_mm: np.ndarray) -> np.ndarray:
    """Which points of the true surface lie within some draws and outside others."""
    within = [values_at(done.field_of(draw), draw.placed(), truth_mm) > 0 for draw in done.draws]
    count = np.sum(within, axis=0)
    return (count > 0) & (count < len(done.draws))


def held_voxels(done: Completion, mask: Mask) -> dict[str, Any]:
    """Of voxels by the share of shapes that hold them: how many, what was said of them, and what is true (sums).

    "none" has the number of the organ's voxels that no shape holds.
    """
    said, true = done.probability_on(mask.grid), mask.occupancy
    rows: dict[str, Any] = {"none": int(true[said == 0].sum())}
    low = 0.0
    for name, high in SHARES.items():
        chosen = (said > low + 1e-4) & (said <= high + 1e-4)
        rows[name] = [int(chosen.sum()), round(float(said[chosen].sum()), 2), int(true[chosen].sum())]
        low = high
    return rows


def measure_case(done: Completion, mask: Mask, seen: Seen) -> dict[str, Any]:
    """Coverage in percent and spread in mm, where the organ was seen and where not; None where nothing is such."""
    shape = prepare(mask)
    truth, found = some(occupancy_mesh(shape.occupancy, shape.frame).vertices), some(done.mesh().vertices)
    inside, spread = covered(done, truth), done.spread_mm(found)
    row: dict[str, Any] = {"name": case_name(mask.path), "draws": len(done.draws), "doubt": done.doubt}
    for word, at_truth, at_found in (
        ("seen", seen(truth), seen(found)),
        ("unseen", ~seen(truth), ~seen(found)),
    ):
        row[f"covered {word}"] = round(100 * float(inside[at_truth].mean()), 2) if at_truth.any() else None
        row[f"spread {word}"] = round(float(spread[at_found].mean()), 4) if at_found.any() else None
    return row | {"voxels": held_voxels(done, mask)}


def measure(
    atlas: TrainedAtlas, masks: list[Mask], report: Callable[[str], object], tasks: Sequence[str] = ()
) -> dict[str, Any]:
    """Rows of the cases by task; of all tasks where none are named."""
    out: dict[str, Any] = {}
    for task in tasks or TASKS:
        told = [TASKS[task](mask) for mask in masks]
        finished = complete(atlas, [seen for seen, _ in told], draws=DRAWS)
        usable = [
            (done, mask, seen)
            for done, mask, (_, seen) in zip(finished, masks, told, strict=True)
            if done.fit.failure is None and done.draws
        ]
        out[task] = [measure_case(done, mask, seen) for done, mask, seen in usable]
        report(f"{task}: {means(out[task])}")
    return out


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the cases of which there is something to say."""
    names = [f"{what} {word}" for what in ("covered", "spread") for word in ("seen", "unseen")]
    found = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    return {name: round(float(np.mean(values)), 2) for name, values in found.items() if values}


def said_and_true(rows: list[dict[str, Any]]) -> list[str]:
    """In percent, said -> true, of all voxels of the cases, by the share of shapes that hold them."""
    found = [row["voxels"] for row in rows]
    cells = []
    for name in SHARES:
        count, said, true = np.sum([voxels[name] for voxels in found], axis=0)
        cells.append(f"{100 * said / count:.0f} → {100 * true / count:.0f}" if count else "-")
    organ = sum(voxels["none"] + sum(voxels[name][2] for name in SHARES) for voxels in found)
    missed = sum(voxels["none"] for voxels in found)
    return [*cells, f"{100 * missed / max(organ, 1):.1f}"]


def table_of_voxels(by_task: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The table of what is said of voxels; nothing where that was not measured."""
    rows = {task: cases for task, cases in by_task.items() if cases and "voxels" in cases[0]}
    if not rows:
        return []
    return [
        "\nVoxels, by the share of the shapes that hold them: what that says of being the organ's → what is true, in "
        "percent; and the share of the organ that no shape holds.\n",
        "| observed | " + " | ".join(SHARES) + " | in none |",
        "|---" * (len(SHARES) + 2) + "|",
        *(f"| {task} | " + " | ".join(said_and_true(cases)) + " |" for task, cases in rows.items()),
    ]


def main() -> int:
    """Measure and keep."""
    return run_measurement(__doc__, "calibration", "calibration", measure, _more, tuple(TASKS))


def _more(atlas: TrainedAtlas) -> dict[str, Any]:
    return {"degrees_of_freedom": free_numbers(atlas), "draws": DRAWS}


if __name__ == "__main__":
    sys.exit(main())
