"""What was measured of the uses, in the pages of docs/uses: python -m experiments.uses_page.

A page says what a use is for, its command and its code, by hand; between `<!-- measured: NAME -->` and `<!-- end -->`
stands what this writes of experiments/results/.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.applications import TASKS, means
from experiments.calibration import means as calibration_means
from experiments.calibration import table_of_voxels
from experiments.cells.cell import RESULTS
from experiments.cells.data import HERE
from experiments.completed_sides import lines_of as completed_sides
from experiments.known_truth import lines_of as known_truth
from experiments.parts import PARTS
from experiments.sides import WAYS as SIDES
from experiments.spaces import lines_of as spaces
from implicit_atlas.support.files import write_atomic

HOW = {
    "clicks": "Clicks: labelled in or out, at a normal noise of 2 voxels of the 128³ box around the boundary.",
    "boundary clicks": "Boundary clicks: anywhere on the mask's surface, with no word of where inside is; splines and "
    "Poisson's equation know it by normals, estimated from neighbouring clicks.",
    "slices": "Slices: evenly spaced across the longest axis. Their background is known; other slices are unobserved.",
    "crossing slices": "Crossing slices: evenly spaced across each of the array's axes.",
    "cut off": "Cut off: the volume ends within the organ, across its longest axis.",
    "unfinished": "Unfinished: the same slices are missing, but the volume goes on; a part whose end is not told is "
    "taken for the whole organ.",
}


def completion(found: dict[str, Any]) -> list[str]:
    """A table for each kind of completion of one organ."""
    about = found["about"]
    lines = [
        f"\n{_titled(about)} "
        f"{about['cases']} unseen cases; an atlas of {about['training_shapes']} training shapes and {about['steps']} "
        f"steps, seed {about['seed']}; {about['degrees_of_freedom']} numbers of each end of a search, all under a "
        f"prior; {about['device']}; {about['seconds']:.0f} s, beside other work; MODEL with a margin of "
        f"{100 * about['margin']:g} %. `python -m experiments.applications MODEL --organ {about['organ']} "
        f"--every {about['every']}`.{_in_other_runs(about)}"
    ]
    for task, (_, _, unit) in TASKS.items():
        amounts = found["completion"].get(task)
        if amounts is None:
            continue
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


def _in_other_runs(about: dict[str, Any]) -> str:
    """What was measured in other runs."""
    out = ""
    for run in about.get("again", []):
        took = f"{run['seconds']:.0f} s, " if "seconds" in run else ""
        every = f"--every {run['every']} " if run.get("every", about["every"]) != about["every"] else ""
        what = f"{every}--tasks {' '.join(map(repr, run['measured']))}"
        out += f" In another run ({took}{run['degrees_of_freedom']} numbers): {what}."
    return out


def parts(found: dict[str, Any]) -> list[str]:
    """The table of carried parts."""
    about, ways = found["about"], ("template", "affine", "nearest shape")
    lines = [
        "\n**Hippocampus.** "
        f"{' and '.join(PARTS.values())} hippocampus of {about['cases']} unseen cases, from a few labelled ones, "
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
        f"\n{_titled(about)} "
        f"{about['cases']} unseen masks, changed on purpose (`experiments/cells/corrupt.py`, "
        "`experiments/repairs.py`), "
        "against the clean ones: DSC / NSD / ASSD in mm / share of the thin part that is left (what no ball of "
        f"{about['thin_mm']} mm within the organ reaches). Labels within {about['keep_voxels']} voxels of the fitted "
        f"surface stay, and all where mask and shape differ little; {about['degrees_of_freedom']} numbers of a "
        f"fit, an atlas of {about['training_shapes']} "
        f"training shapes and {about['steps']} steps, seed {about['seed']}; {about['device']}. "
        f"`python -m experiments.repairs MODEL --organ {about['organ']} --every {about['every']}`."
        f"{_in_other_runs(about)}\n",
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
        f"\n{_titled(about)} "
        f"{about['made']} of each, in the cube, and {about['cases']} unseen real ones: mean DSC in percent with the "
        "nearest training shape (specificity), of an unseen shape with the nearest of them, and of any two of them "
        "(the lower, the more diverse); surface over that of a ball of the same volume (the rougher, the larger); "
        "share in one piece; mean volume in a scan and its deviation (principal components have no size). An atlas "
        f"of {about['training_shapes']} training shapes and {about['steps']} steps, seed {about['seed']}; "
        f"{about['device']}. `python -m experiments.generation MODEL --organ {about['organ']}`, MODEL with a margin of "
        f"{100 * about['margin']:g} %; a random shape has the 256 numbers of a code and 3 of its size.\n",
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
        f"\n{_titled(about)} "
        f"{about['cases']} unseen cases, {about['draws']} draws each: the share of the true surface that lies within "
        "some draws and outside others, which is 90 % where truth is as one more draw; and the root mean square "
        "distance of the draws' surfaces from that of the completion. Unseen: more than a slice from a drawn one, or "
        f"beyond the cut. An atlas of {about['training_shapes']} training shapes and {about['steps']} steps, seed "
        f"{about['seed']}; {about['degrees_of_freedom']} numbers; {about['device']}; {about['seconds']:.0f} s. "
        f"`python -m experiments.calibration MODEL --organ {about['organ']} "
        f"--every {about['every']}`, MODEL with a margin of "
        f"{100 * about['margin']:g} %.{_in_other_runs(about)}\n",
        "| observed | cases | covered, seen | covered, unseen | spread mm, seen | unseen | doubtful |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, rows in found["calibration"].items():
        mean = calibration_means(rows)
        cells = (
            "-" if (value := mean.get(f"{what} {word}")) is None else f"{value:.{digits}f}"
            for what, digits in (("covered", 1), ("spread", 2))
            for word in ("seen", "unseen")
        )
        doubtful = sum(bool(row["doubt"]) for row in rows)
        lines.append(f"| {task} | {len(rows)} | {' | '.join(cells)} | {doubtful} |")
    return lines + table_of_voxels(found["calibration"])


def populations(found: dict[str, Any]) -> list[str]:
    """The tables of statistics."""
    about, parts_of = found["about"], found["populations"]
    meshes, curves = parts_of["meshes"], parts_of["curves"]
    exact = [np.mean([row[name] for row in meshes]) for name in ("left_mm_p95", "not_found", "folds")]
    lines = [
        f"\n{_titled(about)} "
        f"{len(meshes)} unseen cases, {meshes[0]['vertices']} vertices each, by an atlas of "
        f"{about['training_shapes']} training shapes and {about['steps']} steps, seed {about['seed']} "
        f"({about['degrees_of_freedom']} numbers of a fit); {about['device']}; {about['seconds']:.0f} s. Their error "
        f"is at most {exact[0]:.4f} mm at 95 % of vertices; {100 * exact[1]:.2f} % of vertices were not found, and at "
        f"{100 * exact[2]:.2f} % the map folds (means over cases). In brackets 95 % bootstrap intervals "
        "(of compactness, for the population: few shapes look more compact than all that there are, so that the "
        "interval lies lower than what these few give, and may end below it). "
        f"`python -m experiments.populations MODEL --organ {about['organ']}`.\n",
        "| modes | compactness, % | generality, mm | specificity, mm |",
        "|---|---|---|---|",
    ]
    for row in curves:
        cells = (
            f"{k * row[name]:.{digits}f} ({k * row[name + '_low']:.{digits}f} to {k * row[name + '_high']:.{digits}f})"
            for name, k, digits in (
                ("compactness", 100, 1),
                ("generality_mm", 1, 3),
                ("specificity_mm", 1, 3),
            )
        )
        lines.append(f"| {row['modes']} | {' | '.join(cells)} |")
    lines += [
        f"\nTwo groups, {about['permutations']} relabellings:\n",
        "| groups | cases | p of as large a difference by chance | vertices with q at most 0.05, % |",
        "|---|---|---|---|",
    ]
    for way, row in parts_of["groups"].items():
        sizes, differ = " and ".join(map(str, row["sizes"])), row["vertices that differ, percent"]
        lines.append(f"| {way} | {sizes} | {row['p']:.4f} | {differ:.1f} |")
    return lines


def organs(found: dict[str, Any]) -> list[str]:
    """The table of several organs in one go."""
    about, rows = found["about"], found["organs"]
    names = [name for name in rows[0] if name not in ("name", "contested")]
    lines = [
        f"\n{_titled(about)} "
        f"{len(rows)} unseen label maps, atlases of {about['training_shapes']} shapes and {about['steps']} steps, seed "
        f"{about['seed']}, 256 numbers a part; {about['device']}; {about['seconds']:.0f} s; {about['problems']} "
        f"problems. DSC / NSD (tolerance {about['tolerance_mm']:g} mm) in percent on the merged label map. Two parts "
        f"claimed {np.mean([row['contested'] for row in rows]):.1f} voxels of a case on average. "
        "`python -m experiments.several MODELS`.\n",
        "| part | DSC / NSD |",
        "|---|---|",
    ]
    for name in names:
        dsc, nsd = np.mean([row[name] for row in rows], axis=0)
        lines.append(f"| {name} | {dsc:.2f} / {nsd:.2f} |")
    return lines


def sides(found: dict[str, Any]) -> list[str]:
    """The table of organs of the other side."""
    about, rows = found["about"], found["sides"]
    wrong, right = (sum(row[name] for row in rows) for name in ("taken for the other side", "image found"))
    lines = [
        f"\n{_titled(about)} "
        f"{len(rows)} unseen cases: {wrong} of them are taken for the other side, and of their mirror images {right}. "
        f"The images, fitted with {about['degrees_of_freedom']} numbers: DSC / NSD (tolerance "
        f"{about['tolerance_mm']:g} mm) in percent on their own grids. An atlas of {about['training_shapes']} training "
        f"shapes and {about['steps']} steps, seed {about['seed']}; {about['device']}; {about['seconds']:.0f} s. "
        f"`python -m experiments.sides MODEL --organ {about['organ']} --every {about['every']}`.\n",
        "| image | DSC / NSD | fits that failed, not in the mean |",
        "|---|---|---|",
    ]
    for way in SIDES:
        scores = [row[way] for row in rows if row[way] is not None]
        mean = "{:.2f} / {:.2f}".format(*np.mean(scores, axis=0)) if scores else "-"
        lines.append(f"| {way} | {mean} | {len(rows) - len(scores)} |")
    return lines


def both_sides(found: dict[str, Any]) -> list[str]:
    """The table of one atlas of organs of both sides."""
    about, rows = found["about"], found["both_sides"]
    lines = [
        f"\n{_titled(about)} Five of both sides, {about['steps']} steps, the product's defaults; all unseen ones, on "
        f"the margin-free 128³ box grid. `python -m experiments.both_sides --steps {about['steps']}`. "
        f"{next(iter(rows.values()))['protocol']}.\n",
        "| shapes | unseen cases | DSC / NSD | HD95 / ASSD mm | fits that failed |",
        "|---|---|---|---|---|",
    ]
    for way, row in rows.items():
        cells = "{dsc:.2f} / {nsd:.2f} | {hd95_mm:.2f} / {assd_mm:.2f}".format(**row)
        lines.append(f"| {way} | {row['cases']} | {cells} | {row['failed']} |")
    return lines


def _titled(about: dict[str, Any]) -> str:
    """The organ, which begins what is said of it."""
    return f"**{str(about['organ']).capitalize()}.**"


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {
    "completion": ("applications", completion),
    "parts": ("parts", parts),
    "calibration": ("calibration", calibration),
    "generation": ("generation", generation),
    "repairs": ("repairs", repairs),
    "populations": ("populations", populations),
    "organs": ("organs", organs),
    "sides": ("sides", sides),
    "completed_sides": ("completed-sides", completed_sides),
    "both_sides": ("both-sides", both_sides),
    "known_truth": ("known-truth", known_truth),
    "spaces": ("spaces", spaces),
}
"""What stands between the marks, of which result files."""


def section(name: str, results: Path) -> str:
    """What was measured of one use, of every organ."""
    prefix, tables = SECTIONS[name]
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(f"{prefix}-*.json"))
    ]
    return "\n".join(line for one in found for line in tables(one)).strip() or "Not measured."


def filled(page: str, results: Path) -> str:
    """A page with what was measured between its marks.

    Raises:
        KeyError: a mark names no section.
    """
    mark = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return mark.sub(lambda m: f"{m[1]}\n{section(m[2], results)}\n\n{m[3]}", page)


def main() -> int:
    """Fill the pages."""
    for path in sorted((HERE.parent / "docs" / "uses").glob("*.md")):
        write_atomic(path, filled(path.read_text(encoding="utf-8"), RESULTS).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
