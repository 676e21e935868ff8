"""Whether clicks in the wrong space are noticed: python -m experiments.spaces MODEL --organ hippocampus.

MODEL has learned from `train` alone. Labelled clicks of unseen cases are completed as they are, and with the signs of
x and y swapped, as where LPS is read as RAS. Results: experiments/results/spaces-ORGAN.json, for docs/uses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from experiments.cells.measurement import free_numbers, protocol_of, run_measurement
from experiments.cells.observed import clicks
from implicit_atlas.completion.completion import complete
from implicit_atlas.completion.spaces import HALF_TURN, TURNED
from implicit_atlas.io import Mask
from implicit_atlas.trained_atlas import TrainedAtlas

COUNTS = (16, 64, 256)


def measure(atlas: TrainedAtlas, masks: list[Mask], report: Callable[[str], object]) -> dict[str, Any]:
    """Of each number of clicks and each space: improbability a click, and who is called to be in the wrong one."""
    out: dict[str, Any] = {}
    for count in COUNTS:
        own = [clicks(mask, count) for mask in masks]
        turned = [replace(seen, points=seen.points * HALF_TURN) for seen in own]
        for space, told in (("right", own), ("wrong", turned)):
            found = complete(atlas, told)
            row = out[f"{count} clicks, {space} space"] = [
                {
                    "name": done.fit.name,
                    "improbability": round(done.fit.found.unguided / count, 3),
                    "told": TURNED in (done.doubt or ""),
                }
                for done in found
            ]
            report(f"{count} clicks, {space} space: {sum(one['told'] for one in row)} of {len(row)} told")
    return out


def lines_of(found: dict[str, Any]) -> list[str]:
    """What is said of one organ, for a page."""
    about = found["about"]
    lines = [
        f"\n**{about['organ'].capitalize()}.** {about['cases']} unseen cases; "
        f"{protocol_of(about, 'spaces')}\n",
        "| labelled clicks | improbability a click, least to most | called to be in the wrong space |",
        "|---|---|---|",
    ]
    for name, rows in found["spaces"].items():
        each = [row["improbability"] for row in rows]
        told = f"{sum(row['told'] for row in rows)} of {len(rows)}"
        lines.append(f"| {name} | {min(each):.2f} to {max(each):.2f} | {told} |")
    return lines


def main() -> int:
    """Measure and keep."""
    return run_measurement(
        __doc__, "spaces", "spaces", measure, lambda atlas: {"degrees_of_freedom": free_numbers(atlas)}
    )


if __name__ == "__main__":
    sys.exit(main())
