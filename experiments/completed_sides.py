"""Whether it is noticed that clicks are of the other side: python -m experiments.completed_sides MODEL --organ liver.

MODEL has learned from `train` alone, of an organ whose cases are all of one side. Unseen cases and their mirror images
are completed from clicks and slices as they are (what is DOUBTFUL for its side?), and the images with `--mirror auto`.
Results: experiments/results/completed-sides-ORGAN.json, for docs/uses/sides.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.cells.measurement import free_numbers, protocol_of, run_measurement
from experiments.cells.observed import boundary_clicks, clicks, kept_slices
from experiments.sides import image_of
from implicit_atlas.completion.completion import Completion, complete
from implicit_atlas.completion.mirrored import OTHER_SIDE
from implicit_atlas.completion.observe import Drawn
from implicit_atlas.io import Mask, case_name
from implicit_atlas.metrics import dsc
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.trained_atlas import TrainedAtlas


def slices(mask: Mask) -> Observations:
    """Three slices of it."""
    return Drawn.of(kept_slices(mask, 3)[0], "slices").observations(case_name(mask.path))


TASKS: dict[str, Callable[[Mask], Observations]] = {
    "24 boundary clicks": lambda mask: boundary_clicks(mask, 24),
    "64 boundary clicks": lambda mask: boundary_clicks(mask, 64),
    "64 labelled clicks": lambda mask: clicks(mask, 64),
    "three slices": slices,
}


def measure(atlas: TrainedAtlas, masks: list[Mask], report: Callable[[str], object]) -> dict[str, Any]:
    """Of each task, how many of the own and of the other side are told to be of the other, and the latter's DSC."""
    images, out = [image_of(mask) for mask in masks], {}
    for task, seen in TASKS.items():
        own = complete(atlas, [seen(mask) for mask in masks])
        told = [seen(image) for image in images]
        other, turned = complete(atlas, told), complete(atlas, told, mirror="auto")
        out[task] = {
            "cases": len(masks),
            "own side told": sum(OTHER_SIDE in (done.doubt or "") for done in own),
            "images told": sum(OTHER_SIDE in (done.doubt or "") for done in other),
            "images mirrored": sum(done.seen.mirrored for done in turned),
            "dsc as it is": _mean_dsc(other, images),
            "dsc mirrored": _mean_dsc(turned, images),
        }
        report(f"{task}: {out[task]}")
    return out


def _mean_dsc(completed: list[Completion], masks: list[Mask]) -> float:
    """In percent, on the masks' own grids; 0 of those that failed."""
    scores = [
        0.0 if done.fit.failure is not None else dsc(done.mask_on(mask.grid), mask.occupancy)
        for done, mask in zip(completed, masks, strict=True)
    ]
    return round(100 * float(np.mean(scores)), 3)


def lines_of(found: dict[str, Any]) -> list[str]:
    """What is said of one organ, for a page."""
    about = found["about"]
    lines = [
        f"\n**{about['organ'].capitalize()}.** {about['cases']} unseen cases and their mirror images, DSC in percent "
        "on the images' own grids; "
        f"{protocol_of(about, 'completed_sides')}\n",
        "| completed from | DOUBTFUL for its side: own side | images | images, DSC | with `--mirror auto` | DSC |",
        "|---|---|---|---|---|---|",
    ]
    for task, row in found["completed_sides"].items():
        count = row["cases"]
        lines.append(
            f"| {task} | {row['own side told']} of {count} | {row['images told']} of {count} | "
            f"{row['dsc as it is']:.2f} | {row['images mirrored']} of {count} mirrored | {row['dsc mirrored']:.2f} |"
        )
    return lines


def main() -> int:
    """Measure and keep."""
    return run_measurement(
        __doc__,
        "completed-sides",
        "completed_sides",
        measure,
        lambda atlas: {"degrees_of_freedom": free_numbers(atlas)},
    )


if __name__ == "__main__":
    sys.exit(main())
