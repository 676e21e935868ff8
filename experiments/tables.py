"""The paper's tables as lists of cells, and our numbers beside the paper's."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from experiments.cell import RESULTS, Cell, run_queue
from experiments.classical import CLASSICAL
from experiments.data import FEW, PAPER, Organ, Subset, load_split, phantom_split
from experiments.peers.difnet_run import METHOD as DIF_NET
from experiments.variants import DEFAULTS, LOCAL, NO_MODES, PLAIN, VARIANTS
from implicit_atlas.errors import AtlasError
from implicit_atlas.methods import DEFAULT_METHOD

Result = dict[str, Any]
SMOKE_STEPS, SMOKE_ITERATIONS = 2, 10


@dataclass(frozen=True)
class Row:
    """A method with one change of its defaults or none, and the paper's name of the row where it has one."""

    method: str
    paper: str | None = None
    variant: str = DEFAULTS

    @property
    def title(self) -> str:
        """What stands in the first column."""
        return self.method if self.variant == DEFAULTS else f"{self.method}, {self.variant}"


@dataclass(frozen=True)
class Table:
    """One table.

    Args:
        name: as in `paper.json`.
        subset: what its cells learn from.
        rows: one a method or variant.
    """

    name: str
    title: str
    subset: Subset
    rows: tuple[Row, ...]

    def cells(self, organ: Organ, seeds: Sequence[int], steps: int, iterations: int) -> list[Cell]:
        """The cells of an organ, seed by seed, so that a short queue gives whole tables; classical rows once."""
        return [
            Cell(row.method, organ, self.subset, seed, steps, iterations, row.variant)
            for seed in seeds
            for row in self.rows
            if seed == seeds[0] or row.method not in CLASSICAL
        ]

    def paper(self, row: str | None, organ: Organ) -> list[list[float]] | None:
        """[DSC, NSD] of known and of unknown shapes, as printed; None for rows beyond the paper's."""
        if row is None:
            return None
        columns = PAPER["columns"]
        return [PAPER[self.name][row][columns.index(f"{organ}_{side}")] for side in ("known", "unknown")]


_OURS = ("mlp", "mlp+template", "conv", "implicit-atlas", "implicit-atlas+reg")
_BASELINES = (
    *(Row(method, paper=method) for method in _OURS),
    *(Row(method) for method in (DIF_NET, *CLASSICAL)),
)
_TWO = (*_BASELINES, Row(DEFAULT_METHOD, variant=NO_MODES), Row(DEFAULT_METHOD, variant=LOCAL))
TABLE2 = Table("table2", "Table 2: known and unknown shapes", "train", _TWO)
TABLE3 = Table(
    "table3",
    "Table 3: ablation",
    "train",
    (
        Row("D", "D"),
        Row("MT", "MT"),
        Row("implicit-atlas", "D+MT"),
        Row("D+MT+LS", "D+MT+LS"),
        Row("D+MT+DP", "D+MT+DP"),
        Row("implicit-atlas+reg", "D+MT+LS+DP"),
    ),
)
# The paper learns from five shapes as they are, without modes; ours from warped copies, too, unless the row says so.
_FOUR = (
    *_BASELINES,
    *(Row(method, variant=NO_MODES) for method in ("implicit-atlas", "implicit-atlas+reg")),
    *(Row(m, paper=m, variant=PLAIN) for m in ("conv", "implicit-atlas", "implicit-atlas+reg")),
)
TABLE4 = Table("table4", "Table 4: five training shapes", "few_shot", _FOUR)
IDEAS = Table(
    "ideas",
    "Ideas beyond the paper, one change of the defaults each, five training shapes",
    "few_shot",
    tuple(Row(DEFAULT_METHOD, variant=variant) for variant in VARIANTS),
)
TABLES = (TABLE2, TABLE3, TABLE4, IDEAS)

HEADER = (
    "| method | known, ours | paper | unknown, ours | paper | HD95 / ASSD mm | free | weights | steps "
    "| points | seeds | training s | fit s | device |\n" + "|---" * 14 + "|"
)


def read_results(folder: Path = RESULTS) -> list[Result]:
    """All cells that were run."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if "cell" in result]


def markdown(table: Table, organ: Organ, results: Sequence[Result]) -> str:
    """The table of one organ: a row for each method and length of schedule; a method not run shows as missing."""
    lines = [f"### {table.title}, {organ}", "", _protocol(table, organ, results), "", HEADER]
    for row in table.rows:
        groups: dict[tuple[int, int], list[Result]] = defaultdict(list)
        for result in results:
            cell = result["cell"]
            of = (cell["method"], cell.get("variant", DEFAULTS), cell["organ"], cell["subset"])
            if of == (row.method, row.variant, organ, table.subset):
                groups[cell["steps"], cell["iterations"]].append(result)
        paper = table.paper(row.paper, organ)
        lines += [_row(row, groups[key], paper) for key in sorted(groups)] or [_missing(row, paper)]
    return "\n".join(lines)


def _protocol(table: Table, organ: Organ, results: Sequence[Result]) -> str:
    of = [r for r in results if (r["cell"]["organ"], r["cell"]["subset"]) == (organ, table.subset)]
    if not of:
        return "No cell has been run."
    protocol = of[0]["unknown"]["protocol"]
    unknown = max(len(result["unknown"]["cases"]) for result in of)  # of some, fits failed
    return (
        f"DSC / NSD in percent, means over shapes, then over seeds (± standard deviation). NSD: "
        f"{protocol['nsd_definition']}, spacing 1, tolerance {protocol['tolerance_vox']:g} voxel of the "
        f"{protocol['resolution']}³ box grid. {protocol['training_shapes']} training shapes, {unknown} "
        "unknown shapes. The paper's unknown shapes are other cases."
    )


def _row(row: Row, runs: Sequence[Result], paper: list[list[float]] | None) -> str:
    protocol, training = runs[0]["unknown"]["protocol"], [run["training"] for run in runs]
    far = [_values(runs, "unknown", name) for name in ("hd95_mm", "assd_mm")]
    mm = " / ".join(f"{np.mean(values):.2f}" if values else "none" for values in far)
    learned = row.method not in CLASSICAL
    cells = (
        f"`{row.title}`",
        _pair(runs, "known"),
        _printed(paper, 0),
        _pair(runs, "unknown"),
        _printed(paper, 1),
        mm,
        str(protocol["degrees_of_freedom"]),
        f"{protocol['parameters']:,}",
        str(runs[0]["cell"]["steps"]) if learned else "-",
        _points(training[0]) if learned else "-",
        str(len(runs)) if learned else "-",
        f"{np.mean([t['seconds'] for t in training]):.0f}",
        f"{np.mean([t['fit_seconds'] for t in training]):.1f}",
        ", ".join(sorted({t["device"] for t in training})),
    )
    return "| " + " | ".join(cells) + " |"


def _points(training: dict[str, Any]) -> str:
    """Points of a shape in a step of training."""
    config = training["configuration"]
    if "surface_points" in config:
        return f"{config['surface_points'] + config['free_points']:,}"
    return f"{config['points']['lattice'] ** 3 + config['points']['band']:,}"


def _missing(row: Row, paper: list[list[float]] | None) -> str:
    cells = (f"`{row.title}`", "missing", _printed(paper, 0), "missing", _printed(paper, 1), *("",) * 9)
    return "| " + " | ".join(cells) + " |"


def _values(runs: Sequence[Result], side: str, name: str) -> list[float]:
    """The mean of each run; a run whose every fit failed has none."""
    return [run[side]["mean"][name] for run in runs if name in run[side]["mean"]]


def _pair(runs: Sequence[Result], side: str) -> str:
    """DSC / NSD, with the spread over seeds where there are several, and the number of fits that failed."""
    out = []
    for name in ("dsc", "nsd"):
        values = _values(runs, side, name)
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        out.append(f"{np.mean(values):.2f}{spread}" if values else "none")
    failed = sum(len(run[side].get("problems", ())) for run in runs)
    return " / ".join(out) + (f" ({failed} fits failed)" if failed else "")


def _printed(paper: list[list[float]] | None, side: int) -> str:
    return "-" if paper is None else f"{paper[side][0]:.2f} / {paper[side][1]:.2f}"


def main(table: Table) -> int:
    """Run a table's cells and print it."""
    parser = argparse.ArgumentParser(description=table.title)
    parser.add_argument("--organ", choices=get_args(Organ), default="hippocampus")
    parser.add_argument("--data", type=Path, help="masks with splits.json, or a Decathlon labelsTr")
    parser.add_argument(
        "--minutes", type=float, help="stop after this time; what was begun goes on next time"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--steps", type=int, default=Cell.steps, help="length of each training")
    parser.add_argument("--iterations", type=int, default=Cell.iterations, help="of each fit")
    parser.add_argument("--only", nargs="*", help="methods or variants to run")
    parser.add_argument(
        "--smoke", action="store_true", help="a few steps on synthetic organs; nothing is kept"
    )
    options = parser.parse_args()
    try:
        if options.smoke:
            with tempfile.TemporaryDirectory() as folder:
                print(smoke(table, Path(folder)))
            return 0
        cells = table.cells(options.organ, range(options.seeds), options.steps, options.iterations)
        cells = [cell for cell in cells if not options.only or _name(cell) in options.only]
        run_queue(cells, load_split(options.organ, options.data), options.minutes)
        print(markdown(table, options.organ, read_results()))
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _name(cell: Cell) -> str:
    """What `--only` calls it: its variant, or its method where that is as by default."""
    return cell.method if cell.variant == DEFAULTS else cell.variant


def smoke(table: Table, folder: Path) -> str:
    """The table from a few steps on small phantoms: shows that every cell runs, and nothing else."""
    split = phantom_split(folder / "masks", known=FEW, unknown=1)
    cells = table.cells("hippocampus", [0], SMOKE_STEPS, SMOKE_ITERATIONS)
    cells = [dataclasses.replace(cell, smoke=True) for cell in cells]
    results = run_queue(cells, split, folder=folder / "results", runs=folder / "runs")
    return markdown(table, "hippocampus", [result for result in results if result is not None])
