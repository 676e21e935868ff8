"""How much data: accuracy of unknown shapes against the number of training shapes, for every method of Table 2.

python -m experiments.amount --organ hippocampus --steps 400 --iterations 100 runs the cells and draws
docs/amount-ORGAN.png; `--counts 10 20` and `--only implicit-atlas+reg pca-128` choose cells.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.cells.command import arguments, execute
from experiments.cells.data import HERE, Organ, Subset
from experiments.cells.series import Column, Series, runs_at
from experiments.cells.tables import (
    TABLE2,
    Result,
    Row,
    Schedule,
    Table,
    read_results,
    results_of,
    values_of,
)
from experiments.cells.variants import DEFAULTS
from experiments.peers.classical import CLASSICAL
from implicit_atlas.support.files import write_atomic

TITLE = "How much data: unknown shapes"
COUNTS: dict[str, Subset] = {
    "5": "few_shot",
    "10": "first-10",
    "20": "first-20",
    "50": "first-50",
    "100": "first-100",
    "all": "train",
}
ABOUT = (
    "Learned from the first 5, 10, 20, ... training shapes in name order, with as many steps for all, and fitted "
    "to the same unknown shapes."
)
ROWS = tuple(row for row in TABLE2.rows if row.variant == DEFAULTS)
STYLES = ("-", "--", ":")
COLOURS = 10  # of matplotlib's cycle

Curves = dict[str, list[tuple[int, float, float]]]


def table_of(count: str, rows: tuple[Row, ...] = ROWS) -> Table:
    """Cells that learn from so many shapes."""
    return Table("amount", TITLE, COUNTS[count], rows)


def series_of(organ: Organ, results: Sequence[Result], rows: tuple[Row, ...] = ROWS) -> Series:
    """A column for each number of shapes that the organ has, as far as results tell."""
    full = results_of(table_of("all"), organ, results)
    total = full[0]["unknown"]["protocol"]["training_shapes"] if full else None
    columns = []
    for count in COUNTS:
        title = f"all ({total})" if count == "all" and total else count
        if count == "all" or total is None or int(count) <= total:
            columns.append(Column(title, table_of(count, rows)))
    return Series(TITLE, ABOUT, tuple(columns))


def markdown(organ: Organ, results: Sequence[Result]) -> str:
    """The numbers of the plot."""
    return series_of(organ, results).markdown(organ, results)


def exists(organ: Organ, results: Sequence[Result]) -> bool:
    """Whether there is anything that Tables 2 and 4 do not show."""
    return series_of(organ, results).exists(organ, results)


def curves(organ: Organ, results: Sequence[Result]) -> Curves:
    """(training shapes, DSC, NSD) of each row that was run; its steps + iterations are named where they differ."""
    series = series_of(organ, results)
    schedules = series.schedules(organ, results)
    found: Curves = {}
    for schedule in schedules or [None]:
        for row in series.rows:
            points = _curve(series, row, organ, results, schedule)
            several = schedule is not None and len(schedules) > 1 and row.method not in CLASSICAL
            if points:
                found[f"{row.title}, {schedule[0]} + {schedule[1]}" if several else row.title] = points
    return found


def _curve(
    series: Series, row: Row, organ: Organ, results: Sequence[Result], schedule: Schedule | None
) -> list[tuple[int, float, float]]:
    points = []
    for column in series.columns:
        runs = runs_at(column.table, row, organ, results, schedule)
        values = [values_of(runs, "unknown", name) for name in ("dsc", "nsd")]
        if values[0]:
            shapes = runs[0]["unknown"]["protocol"]["training_shapes"]
            points.append((shapes, float(np.mean(values[0])), float(np.mean(values[1]))))
    return points


def draw(organ: Organ, results: Sequence[Result], path: Path) -> None:
    """DSC and NSD beside each other, a line for each method."""
    found = curves(organ, results)
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axes, which, name in zip(panels, (1, 2), ("DSC %", "NSD %"), strict=True):
        for index, (title, points) in enumerate(found.items()):
            style = STYLES[index // COLOURS % len(STYLES)]
            axes.plot(
                [p[0] for p in points], [p[which] for p in points], style, marker="o", ms=3, label=title
            )
        counts = sorted({p[0] for points in found.values() for p in points})
        axes.set(xscale="log", xlabel="training shapes", ylabel=name)
        axes.set_xticks(counts, [str(count) for count in counts], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.suptitle(f"Unknown shapes, {organ}")
    write_atomic(path, lambda partial: figure.savefig(partial, format="png", dpi=110))
    plt.close(figure)


def draw_all(results: Sequence[Result]) -> None:
    """A picture for each organ of which there are results."""
    for organ in get_args(Organ):
        if exists(organ, results):
            draw(organ, results, HERE.parent / "docs" / f"amount-{organ}.png")


def main() -> int:
    """Run the cells, print the table and draw."""
    parser = arguments(TITLE)
    parser.add_argument(
        "--counts", nargs="*", choices=COUNTS, default=list(COUNTS), help="of training shapes"
    )
    options = parser.parse_args()
    status = execute(options, [table_of(count) for count in options.counts], markdown)
    if not options.smoke:
        draw_all(read_results())
    return status


if __name__ == "__main__":
    sys.exit(main())
