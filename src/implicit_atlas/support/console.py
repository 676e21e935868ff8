"""What long steps say: a progress bar on a terminal, plain lines in a log."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from implicit_atlas.errors import AtlasError

LINE_SECONDS = 10.0
Arguments = ParamSpec("Arguments")

Report = Callable[[float, str], None]
"""Told the share that is done, 0 to 1, and a line of text."""


@contextmanager
def task(title: str) -> Iterator[Report]:
    """Report one step on standard error, by a bar or by lines at most every ten seconds."""
    if sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Report]:
    columns = (
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        which = bar.add_task(title, total=1.0, note="")
        yield lambda share, note: bar.update(which, completed=share, note=note)


def _lines(title: str) -> Report:
    last = -LINE_SECONDS

    def report(share: float, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS or share >= 1:
            last = now
            print(f"{title}: {100 * share:3.0f} %  {note}", file=sys.stderr, flush=True)

    return report


def counted(report: Report) -> Callable[[int, int, str], None]:
    """A report for steps that count cases: cases done, their number, name of the last."""
    return lambda done, total, name: report(done / max(1, total), f"{done} of {total}  {name}")


def exit_status(main: Callable[Arguments, object]) -> Callable[Arguments, int]:
    """What a script does, so that its errors are one line on standard error, and its result the exit status."""

    @functools.wraps(main)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            main(*args, **kwargs)
        except AtlasError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0

    return run
