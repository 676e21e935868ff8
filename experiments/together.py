"""Many cells on one machine, a process a core, until a time limit: for a server with a GPU or many cores.

python -m experiments.together CELLS.json --data FOLDER --processes 14 --minutes 9. CELLS.json is a list of cells, the
most important first, each {"method", "organ", "subset"} and what else of `experiments.cells.cell.Cell` is not as by
default; FOLDER holds a folder with masks and splits.json for each organ. A cell that fails is printed and costs no
other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import queue
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from experiments.cells.cell import RESULTS, RUNS, Cell, run_cell
from experiments.cells.data import DEFAULT_DATA, Split, load_split
from implicit_atlas.errors import InputError
from implicit_atlas.geometry import grid
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.memory import keep_freed_memory

POLL_SECONDS = 0.5


def read_cells(path: Path) -> list[Cell]:
    """Cells of a JSON file.

    Raises:
        InputError: it is no list of cells.
    """
    try:
        return [Cell(**values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(path, f"is no list of cells ({error})", "See `experiments/together.py`.") from error


def run_together(
    cells: Sequence[Cell],
    data: Path,
    processes: int,
    minutes: float | None = None,
    results: Path = RESULTS,
    runs: Path = RUNS,
) -> dict[str, str]:
    """Run cells and return how each ended, by its place in the list: "done", or what went wrong; none of those left.

    A cell that the time limit stops goes on from its last state the next time.
    """
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for item in [*enumerate(cells), *[None] * processes]:
        todo.put(item)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    workers = [
        context.Process(
            target=_work, args=(cores[i % len(cores)] if cores else None, todo, done, data, results, runs)
        )
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        return _gather(cells, done, workers, None if minutes is None else time.monotonic() + 60 * minutes)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _gather(
    cells: Sequence[Cell], done: Any, workers: Sequence[BaseProcess], end: float | None
) -> dict[str, str]:
    """Print answers as they come, until there are as many as cells, no process is left, or it is late."""
    found: dict[str, str] = {}
    while len(found) < len(cells) and (end is None or time.monotonic() < end):
        alive = any(worker.is_alive() for worker in workers)
        try:
            index, seconds, outcome = done.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if not alive:
                break
            continue
        found[str(index)] = outcome
        cell = {key: value for key, value in dataclasses.asdict(cells[index]).items() if value}
        print(f"{json.dumps(cell)}: {seconds:.0f} s, {outcome}", flush=True)
    return found


def _work(core: int | None, todo: Any, done: Any, data: Path, results: Path, runs: Path) -> None:
    """Run cells until there are no more, each in one thread."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    grid.set_threads(1)
    keep_freed_memory()
    splits: dict[str, Split] = {}
    while (item := todo.get()) is not None:
        index, cell = item
        begun = time.monotonic()
        try:
            if cell.organ not in splits:
                splits[cell.organ] = load_split(cell.organ, data / cell.organ)
            run_cell(cell, splits[cell.organ], results, runs)
            outcome = "done"
        except Exception:
            outcome = f"failed: {traceback.format_exc()}"
        done.put((index, time.monotonic() - begun, outcome))


@exit_status
def main() -> None:
    """Run the cells of a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    cells = read_cells(options.cells)
    found = run_together(cells, options.data, options.processes, options.minutes, options.results)
    failed = sum(outcome != "done" for outcome in found.values())
    print(f"{len(found) - failed} of {len(cells)} cells are done, {failed} failed")


if __name__ == "__main__":
    sys.exit(main())
