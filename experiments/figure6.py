"""Figure 6 of the paper: DSC of completed unknown shapes against the number of points.

python -m experiments.figure6 --organ hippocampus --minutes 25 runs the cells of Table 2 (every cell completes, too) and
draws docs/figure6-ORGAN.png.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.cells.command import main
from experiments.cells.completion import BAND_WIDTH_VOX, COUNTS
from experiments.cells.data import HERE, Organ
from experiments.cells.tables import TABLE2, Row, read_results, results_of
from experiments.cells.variants import DEFAULTS
from experiments.peers.classical import CLASSICAL
from implicit_atlas.support.files import write_atomic

Means = dict[str, list[tuple[float, float]]]


def means(organ: Organ, results: Sequence[dict[str, Any]]) -> Means:
    """(DSC, NSD) for each number of points by method, means over shapes and then over seeds, of what was run."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    # Rows of the ablation complete, too, but are not of the figure.
    rows = {row.title for row in TABLE2.rows}
    for result in results_of(TABLE2, organ, results):
        cell, found = result["cell"], result.get("completion")
        title = Row(cell["method"], variant=cell.get("variant", DEFAULTS)).title
        if title in rows and found:
            if cell["method"] not in CLASSICAL:
                title += f", {cell['steps']} steps"
            runs[f"{title} ({result['unknown']['protocol']['degrees_of_freedom']})"].append(found)
    return {
        name: [
            tuple(float(np.mean([run[str(count)]["mean"][key] for run in found])) for key in ("dsc", "nsd"))
            for count in COUNTS
        ]  # pyright: ignore
        for name, found in runs.items()
    }


def markdown(organ: Organ, results: Sequence[dict[str, Any]]) -> str:
    """The numbers of the figure; the paper prints a plot only."""
    head = "| method (free numbers) |" + "".join(f" {count} points |" for count in COUNTS)
    lines = [
        f"### Figure 6: completion from points, {organ}",
        "",
        f"DSC / NSD in percent of unknown shapes from points at a normal noise of {BAND_WIDTH_VOX:g} voxels around the "
        "boundary, labelled inside or outside, in the given box. ImplicitAtlas and PCA are told the noise, too. In "
        "brackets the numbers of a fit to a mask; an ImplicitAtlas completes with a residual of some "
        "thousand more, all under a prior. A fit that failed counts as 0.",
        "",
        head,
        "|---" * (1 + len(COUNTS)) + "|",
    ]
    for name, values in means(organ, results).items():
        lines.append(f"| `{name}` |" + "".join(f" {dsc:.2f} / {nsd:.2f} |" for dsc, nsd in values))
    return "\n".join(lines)


def draw(organ: Organ, results: Sequence[dict[str, Any]], path: Path) -> None:
    """The curves."""
    figure, axes = plt.subplots(figsize=(5, 4.4), layout="constrained")
    for name, values in means(organ, results).items():
        axes.plot(COUNTS, [dsc for dsc, _ in values], marker="o", label=name)
    axes.set(xscale="log", xlabel="points", ylabel="DSC %", title=f"Completion of unknown shapes, {organ}")
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8)
    write_atomic(path, lambda partial: figure.savefig(partial, format="png", dpi=110))
    plt.close(figure)


def draw_all(results: Sequence[dict[str, Any]]) -> None:
    """A picture for each organ of which there are results."""
    for organ in get_args(Organ):
        if means(organ, results):
            draw(organ, results, HERE.parent / "docs" / f"figure6-{organ}.png")


if __name__ == "__main__":
    status = main(TABLE2)
    draw_all(read_results())
    sys.exit(status)
