"""docs/applications.md, of what experiments.applications and experiments.parts measured.

python -m experiments.applications_page
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.applications import TASKS, means
from experiments.calibration import means as calibration_means
from experiments.cell import RESULTS
from experiments.data import HERE
from experiments.parts import PARTS
from implicit_atlas.files import write_atomic

PAGE = """# What an atlas is for, and what it reaches

Written by `python -m experiments.applications_page` from `experiments/results/`; nothing here is typed. Shapes of
`val`, unseen by the atlas, on their own grids in mm. DSC / NSD in percent; NSD: DeepMind surface-distance, tolerance
1 mm. In every completion position, size and orientation of the organ are found with its shape. Commands, MODEL being
`implicit-atlas prepare masks/ -o shapes/ --margin 0.05` and `implicit-atlas train shapes/ -o MODEL --steps N --only
splits.json:train`: `python -m experiments.applications MODEL --every 3` and `python -m experiments.parts MODEL`.

| use | command |
|---|---|
| completion from clicks | `implicit-atlas complete MODEL clicks.mrk.json --image scan.nii.gz -o out/` |
| from slices | `implicit-atlas complete MODEL slices.nii.gz -o out/` |
| of a mask that was cut off | `implicit-atlas complete MODEL part.nii.gz --seen volume --image scan.nii.gz -o out/` |
| repair of annotations | `implicit-atlas clean MODEL MASKS -o out/` |
| random shapes | `implicit-atlas generate MODEL -o new/` |
| shapes between two | `implicit-atlas interpolate MODEL A B -o line/` |
| meshes of one topology | `implicit-atlas correspond MODEL MASKS -o meshes/` |
| landmarks and parts | `implicit-atlas transfer landmarks`, `implicit-atlas transfer labels` |
"""
HOW = {
    "clicks": "Clicks: labelled in or out, at a normal noise of 2 voxels of the 128³ box around the boundary.",
    "slices": "Slices: evenly spaced across the longest axis. Their background is known; other slices are unobserved.",
    "cut off": "Cut off: the volume ends within the organ, across its longest axis.",
}


def completion(found: dict[str, Any]) -> list[str]:
    """A table for each kind of completion of one organ."""
    about, lines = found["about"], [f"## {found['about']['organ'].capitalize()}"]
    lines.append(
        f"\n{about['cases']} unseen cases; an atlas of {about['training_shapes']} training shapes and {about['steps']} "
        f"steps, seed {about['seed']}; {about['degrees_of_freedom']} numbers of a completion, all under a prior; "
        f"{about['device']}; {about['seconds']:.0f} s for all below, beside other work; MODEL with a margin of "
        f"{100 * about['margin']:g} %."
    )
    for task, (_, _, unit) in TASKS.items():
        amounts = found["completion"][task]
        names = list(means(next(iter(amounts.values()))))
        lines += [
            f"\n{HOW[task]}\n",
            f"| {unit} | " + " | ".join(names) + " | doubtful |",
            "|---" * (len(names) + 2) + "|",
        ]
        for amount, rows in amounts.items():
            scores = " | ".join(f"{dsc:.2f} / {nsd:.2f}" for dsc, nsd in means(rows).values())
            lines.append(f"| {amount} | {scores} | {sum(bool(row['doubt']) for row in rows)} |")
    return lines


def parts(found: dict[str, Any]) -> list[str]:
    """The table of carried parts."""
    about, ways = found["about"], ("template", "affine", "nearest shape")
    lines = [
        "\n## Parts carried from labelled cases",
        f"\n{' and '.join(PARTS.values())} hippocampus of {about['cases']} unseen cases, from a few labelled ones, "
        f"through the template{' (with a local residual)' if about['local'] else ''}; by the place in the organ's box "
        "(affine); and by that in the labelled case that is most alike. DSC in percent; an atlas of "
        f"{about['training_shapes']} training shapes and {about['steps']} steps, fits of 256 numbers unless said.\n",
        "| labelled | " + " | ".join(ways) + " |",
        "|---" * (len(ways) + 1) + "|",
    ]
    for count, rows in found["parts"].items():
        cells = [np.mean([row[way] for row in rows], axis=0) for way in ways]
        lines.append(
            f"| {count} | " + " | ".join(" / ".join(f"{v:.2f}" for v in cell) for cell in cells) + " |"
        )
    return lines


def repairs(found: dict[str, Any]) -> list[str]:
    """The table of repaired annotations."""
    about, table = found["about"], found["repairs"]
    methods = list(next(iter(table.values())))
    lines = [
        f"\n## Repaired annotations, {about['organ']}",
        f"\n{about['cases']} unseen masks, changed on purpose (`experiments/corrupt.py`, `experiments/repairs.py`), "
        "against the clean ones: DSC / NSD / ASSD in mm / share of the thin part that is left (what no ball of "
        f"{about['thin_mm']} mm within the organ reaches). Labels within {about['keep_voxels']} voxels of the fitted "
        f"surface stay; {about['degrees_of_freedom']} numbers of a fit, an atlas of {about['training_shapes']} "
        f"training shapes and {about['steps']} steps, seed {about['seed']}; {about['device']}. "
        "`python -m experiments.repairs MODEL`.\n",
        "| change | " + " | ".join(methods) + " |",
        "|---" * (len(methods) + 1) + "|",
    ]
    for kind, row in table.items():
        cells = ("{:.2f} / {:.2f} / {:.2f} / {:.0f}".format(*row[method]) for method in methods)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return lines


def generation(found: dict[str, Any]) -> list[str]:
    """The table of random shapes."""
    about, table = found["about"], found["generation"]
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    lines = [
        f"\n## Random shapes, {about['organ']}",
        f"\n{about['made']} of each, in the cube, and {about['cases']} unseen real ones: mean DSC in percent with the "
        "nearest training shape (specificity), of an unseen shape with the nearest of them, and of any two of them "
        "(the lower, the more diverse); surface over that of a ball of the same volume (the rougher, the larger); "
        f"share in one piece. An atlas of {about['training_shapes']} training shapes and {about['steps']} steps, seed "
        f"{about['seed']}; {about['device']}. `python -m experiments.generation MODEL`, MODEL of a cell of Table 2 "
        "(`runs/*/model.atlas`, no margin); a random shape has the 256 numbers of a code.\n",
        "| shapes | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for way, row in table.items():
        cells = (f"{row[name]:.2f}" if name in row else "-" for name in names)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def calibration(found: dict[str, Any]) -> list[str]:
    """The table of how well draws say what is not known."""
    about = found["about"]
    lines = [
        f"\n## What draws say of their uncertainty, {about['organ']}",
        f"\n{about['cases']} unseen cases, {about['draws']} draws each: the share of the true surface that lies within "
        "some draws and outside others, which is 90 % where truth is as one more draw; and the root mean square "
        "distance of the draws' surfaces from the most probable one. Unseen: more than a slice from a drawn one, or "
        f"beyond the cut. An atlas of {about['training_shapes']} training shapes and {about['steps']} steps, seed "
        f"{about['seed']}; {about['degrees_of_freedom']} numbers; {about['device']}; {about['seconds']:.0f} s. "
        f"`python -m experiments.calibration MODEL --every {about['every']}`, MODEL with a margin of "
        f"{100 * about['margin']:g} %.\n",
        "| observed | covered, seen | covered, unseen | spread mm, seen | unseen | doubtful |",
        "|---|---|---|---|---|---|",
    ]
    for task, rows in found["calibration"].items():
        mean = calibration_means(rows)
        cells = (
            "-" if (value := mean.get(f"{what} {word}")) is None else f"{value:.{digits}f}"
            for what, digits in (("covered", 1), ("spread", 2))
            for word in ("seen", "unseen")
        )
        lines.append(f"| {task} | {' | '.join(cells)} | {sum(bool(row['doubt']) for row in rows)} |")
    return lines


def page(results: Path) -> str:
    """The page, of what was measured."""
    lines = [PAGE]
    for path in sorted(results.glob("applications-*.json")):
        lines += completion(json.loads(path.read_text(encoding="utf-8")))
    for path in sorted(results.glob("parts-*.json")):
        lines += parts(json.loads(path.read_text(encoding="utf-8")))
    for path in sorted(results.glob("calibration-*.json")):
        lines += calibration(json.loads(path.read_text(encoding="utf-8")))
    for path in sorted(results.glob("generation-*.json")):
        lines += generation(json.loads(path.read_text(encoding="utf-8")))
    for path in sorted(results.glob("repairs-*.json")):
        lines += repairs(json.loads(path.read_text(encoding="utf-8")))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page."""
    write_atomic(HERE.parent / "docs" / "applications.md", page(RESULTS).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
