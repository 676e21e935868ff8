"""The paper's tables as lists of cells, and our numbers beside the paper's."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells.cell import RESULTS, Cell
from experiments.cells.data import PAPER, Organ, Subset
from experiments.cells.variants import (
    DEFAULTS,
    LARGER,
    LEARNED_MODES,
    LOCAL,
    MORE_POINTS,
    MORE_WARPS,
    NO_MODES,
    ONE_MEAN,
    PLAIN,
    PRODUCT,
    PRODUCT_STRAYS,
    PRODUCT_WARPS,
    ROBUST,
    SHRUNK,
    STRAYS,
    VARIANTS,
    WARPS_AND_MODES,
)
from experiments.peers.classical import CLASSICAL
from experiments.peers.difnet_run import METHOD as DIF_NET
from implicit_atlas.atlas.methods import DEFAULT_METHOD

Result = dict[str, Any]
Schedule = tuple[int, int]
"""Steps of training and iterations of a fit."""


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
        noise: of the shapes that its cells learn from.
    """

    name: str
    title: str
    subset: Subset
    rows: tuple[Row, ...]
    noise: str = ""

    def cells(self, organ: Organ, seeds: Sequence[int], steps: int, iterations: int) -> list[Cell]:
        """The cells of an organ, seed by seed, so that a short queue gives whole tables; classical rows once."""
        return [
            Cell(row.method, organ, self.subset, seed, steps, iterations, row.variant, noise=self.noise)
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
_OF_MANY = (MORE_WARPS, WARPS_AND_MODES, MORE_POINTS, LARGER)
_TWO = (
    *_BASELINES,
    *(
        Row(DEFAULT_METHOD, variant=variant)
        for variant in (ROBUST, STRAYS, LEARNED_MODES, ONE_MEAN, NO_MODES, LOCAL)
    ),
    Row("conv", variant=MORE_WARPS),
    *(Row(DEFAULT_METHOD, variant=variant) for variant in _OF_MANY),
)
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
    *(Row(m, variant=v) for v in (ROBUST, STRAYS) for m in ("conv", DEFAULT_METHOD)),
    *(Row(DEFAULT_METHOD, variant=variant) for variant in (SHRUNK, PRODUCT, PRODUCT_STRAYS, PRODUCT_WARPS)),
    *(Row(m, variant=v) for v in (ONE_MEAN, NO_MODES) for m in ("implicit-atlas", "implicit-atlas+reg")),
    *(Row(m, paper=m, variant=PLAIN) for m in ("conv", "implicit-atlas", "implicit-atlas+reg")),
)
TABLE4 = Table("table4", "Table 4: five training shapes", "few_shot", _FOUR)
IDEAS = Table(
    "ideas",
    "Ideas beyond the paper, one change of the defaults each, five training shapes",
    "few_shot",
    tuple(
        Row(DEFAULT_METHOD, variant=variant)
        for variant in VARIANTS
        if variant not in (LEARNED_MODES, *_OF_MANY)
    ),
)
OWN = Table(
    "own",
    "A user's own organ: five training shapes, default options",
    "few_shot",
    (
        *(
            Row(method, variant=variant)
            for variant in (DEFAULTS, ROBUST, STRAYS)
            for method in ("conv", DEFAULT_METHOD)
        ),
        *(Row(DEFAULT_METHOD, variant=variant) for variant in (SHRUNK, PRODUCT, PRODUCT_STRAYS)),
    ),
)


def tables_of(organ: Organ) -> tuple[Table, ...]:
    """The tables of one of the paper's organs, or that of any other."""
    return (TABLE2, TABLE3, TABLE4, IDEAS) if organ in PAPER["table1"] else (OWN,)


HEADER = (
    "| method | known, ours | paper | unknown, ours | paper | HD95 / ASSD mm | free | weights | steps "
    "| points | seeds | training s | iterations | fit s | device |\n" + "|---" * 15 + "|"
)


def read_results(folder: Path = RESULTS) -> list[Result]:
    """All cells that were run."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if "cell" in result]


def markdown(table: Table, organ: Organ, results: Sequence[Result]) -> str:
    """The table of one organ: a row for each method and length of schedule; a method not run shows as missing."""
    rows = rows_of(table, organ, results)
    about = _protocol(table, organ, results)
    if len(rows) < len(table.rows):
        about += " Changes of the defaults that were not run of this organ are left out."
    lines = [f"### {table.title}, {organ}", "", about, "", HEADER]
    for row in rows:
        groups = runs_of(table, row, organ, results)
        paper = table.paper(row.paper, organ)
        lines += [_row(row, groups[key], paper) for key in sorted(groups)] or [_missing(row, paper)]
    return "\n".join(lines)


def rows_of(table: Table, organ: Organ, results: Sequence[Result]) -> list[Row]:
    """The paper's rows, the methods, and changes of the defaults as far as they were run."""
    return [
        row
        for row in table.rows
        if row.variant == DEFAULTS or row.paper is not None or runs_of(table, row, organ, results)
    ]


def runs_of(table: Table, row: Row, organ: Organ, results: Sequence[Result]) -> dict[Schedule, list[Result]]:
    """Results of a row of a table by the length of their schedules."""
    groups: dict[Schedule, list[Result]] = defaultdict(list)
    for result in results_of(table, organ, results):
        cell = result["cell"]
        if (cell["method"], cell.get("variant", DEFAULTS)) == (row.method, row.variant):
            groups[cell["steps"], cell["iterations"]].append(result)
    return dict(groups)


def results_of(table: Table, organ: Organ, results: Sequence[Result]) -> list[Result]:
    """Results that were learned from a table's shapes, of any method; files from before there was noise lack it."""
    wanted = (organ, table.subset, table.noise)
    cells = [result["cell"] for result in results]
    return [
        result
        for result, cell in zip(results, cells, strict=True)
        if (cell["organ"], cell["subset"], cell.get("noise", "")) == wanted
    ]


def meaning(protocol: dict[str, Any]) -> str:
    """What the pairs of numbers are."""
    return (
        f"DSC / NSD in percent, means over shapes, then over seeds (± standard deviation). NSD: "
        f"{protocol['nsd_definition']}, spacing 1, tolerance {protocol['tolerance_vox']:g} voxel of the "
        f"{protocol['resolution']}³ box grid."
    )


def _protocol(table: Table, organ: Organ, results: Sequence[Result]) -> str:
    of = results_of(table, organ, results)
    if not of:
        return "No cell has been run."
    protocol = of[0]["unknown"]["protocol"]
    unknown = max(len(result["unknown"]["cases"]) for result in of)  # of some, fits failed
    return (
        f"{meaning(protocol)} {protocol['training_shapes']} training shapes, {unknown} "
        "unknown shapes. The paper's unknown shapes are other cases."
    )


def _row(row: Row, runs: Sequence[Result], paper: list[list[float]] | None) -> str:
    protocol, training = runs[0]["unknown"]["protocol"], [run["training"] for run in runs]
    far = [values_of(runs, "unknown", name) for name in ("hd95_mm", "assd_mm")]
    mm = " / ".join(f"{np.mean(values):.2f}" if values else "none" for values in far)
    learned = row.method not in CLASSICAL
    cells = (
        f"`{row.title}`",
        pair(runs, "known"),
        _printed(paper, 0),
        pair(runs, "unknown"),
        _printed(paper, 1),
        mm,
        str(protocol["degrees_of_freedom"]),
        f"{protocol['parameters']:,}",
        str(runs[0]["cell"]["steps"]) if learned else "-",
        _points(training[0]) if learned else "-",
        str(len(runs)) if learned else "-",
        f"{np.mean([t['seconds'] for t in training]):.0f}",
        str(runs[0]["cell"]["iterations"]) if learned else "-",
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
    cells = (f"`{row.title}`", "missing", _printed(paper, 0), "missing", _printed(paper, 1), *("",) * 10)
    return "| " + " | ".join(cells) + " |"


def values_of(runs: Sequence[Result], side: str, name: str) -> list[float]:
    """The mean of each run; a run whose every fit failed has none."""
    return [run[side]["mean"][name] for run in runs if name in run[side]["mean"]]


def pair(runs: Sequence[Result], side: str) -> str:
    """DSC / NSD, with the spread over seeds where there are several, and the number of fits that failed."""
    out = []
    for name in ("dsc", "nsd"):
        values = values_of(runs, side, name)
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        out.append(f"{np.mean(values):.2f}{spread}" if values else "none")
    failed = sum(len(run[side].get("problems", ())) for run in runs)
    return " / ".join(out) + (f" ({failed} fits failed)" if failed else "")


def _printed(paper: list[list[float]] | None, side: int) -> str:
    return "-" if paper is None else f"{paper[side][0]:.2f} / {paper[side][1]:.2f}"
