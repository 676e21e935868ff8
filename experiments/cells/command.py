"""What the commands of experiments share: their options, the queue of cells, and a quick run on synthetic organs."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from experiments.cells.cell import Cell, run_queue
from experiments.cells.data import FEW, Organ, Split, load_split, phantom_split
from experiments.cells.tables import Result, Table, markdown, read_results
from experiments.cells.variants import DEFAULTS
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.memory import keep_freed_memory

SMOKE_STEPS, SMOKE_ITERATIONS, SMOKE_KNOWN = 2, 10, 11


def main(table: Table) -> int:
    """Run a table's cells and print it."""
    options = arguments(table.title).parse_args()
    return execute(options, [table], lambda organ, results: markdown(table, organ, results))


def arguments(title: str) -> argparse.ArgumentParser:
    """The options of a command that runs cells."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--organ", choices=get_args(Organ), default="hippocampus")
    parser.add_argument("--data", type=Path, help="masks with splits.json, or a Decathlon labelsTr")
    parser.add_argument(
        "--minutes", type=float, help="stop after this time; what was begun goes on next time"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--steps", type=int, default=Cell.steps, help="length of each training")
    parser.add_argument("--iterations", type=int, default=Cell.iterations, help="of each fit")
    parser.add_argument("--only", nargs="*", help="methods, variants or METHOD:VARIANT to run")
    parser.add_argument(
        "--smoke", action="store_true", help="a few steps on synthetic organs; nothing is kept"
    )
    return parser


@exit_status
def execute(
    options: argparse.Namespace, tables: Sequence[Table], show: Callable[[Organ, Sequence[Result]], str]
) -> None:
    """Run the cells of some tables and print what was found.

    Args:
        options: of `arguments`.
        tables: whose cells are run, those of the first seed first.
        show: the text of an organ's results.
    """
    keep_freed_memory()
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            print(show("hippocampus", smoke_results(tables, Path(folder), options.only)))
        return
    split = load_split(options.organ, options.data)
    seeds = range(options.seeds)
    cells = [c for t in tables for c in t.cells(options.organ, seeds, options.steps, options.iterations)]
    run_queue(chosen(cells, split, options.only), split, options.minutes)
    print(show(options.organ, read_results()))


def chosen(cells: Sequence[Cell], split: Split, only: Sequence[str] | None) -> list[Cell]:
    """The cells that are asked for and can be run, seed by seed."""
    found = [cell for cell in cells if split.holds(cell.subset) and (not only or _names(cell) & set(only))]
    return sorted(found, key=lambda cell: cell.seed)


def _names(cell: Cell) -> set[str]:
    """What `--only` calls it: its method where that is as by default, and else its variant, of all methods or one."""
    if cell.variant == DEFAULTS:
        return {cell.method}
    return {cell.variant, f"{cell.method}:{cell.variant}"}


def smoke(table: Table, folder: Path) -> str:
    """The table from a few steps on small phantoms: shows that every cell runs, and nothing else."""
    return markdown(table, "hippocampus", smoke_results([table], folder))


def smoke_results(tables: Sequence[Table], folder: Path, only: Sequence[str] | None = None) -> list[Result]:
    """Results of tables from a few steps on small phantoms; subsets of more than ten are left out."""
    known = FEW if all(table.subset in ("few_shot", "train") for table in tables) else SMOKE_KNOWN
    split = phantom_split(folder / "masks", known=known, unknown=1)
    cells = [c for table in tables for c in table.cells("hippocampus", [0], SMOKE_STEPS, SMOKE_ITERATIONS)]
    cells = [dataclasses.replace(cell, smoke=True) for cell in chosen(cells, split, only)]
    results = run_queue(cells, split, folder=folder / "results", runs=folder / "runs")
    return [result for result in results if result is not None]
