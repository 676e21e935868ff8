"""Tables side by side: the same rows, and a column for each way to learn; what was not run shows as missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.cells.data import Organ
from experiments.cells.tables import Result, Row, Schedule, Table, meaning, pair, results_of, runs_of
from experiments.peers.classical import CLASSICAL


@dataclass(frozen=True)
class Column:
    """Scores of a table's known or unknown shapes."""

    title: str
    table: Table
    side: Literal["known", "unknown"] = "unknown"

    @property
    def is_shared(self) -> bool:
        """True for cells that are also of a table of the paper: they alone make no series."""
        return self.table.subset in ("train", "few_shot") and not self.table.noise


@dataclass(frozen=True)
class Series:
    """Columns over the same rows."""

    title: str
    about: str
    columns: tuple[Column, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of every column."""
        return self.columns[0].table.rows

    def exists(self, organ: Organ, results: Sequence[Result]) -> bool:
        """Whether a cell was run that is of this series alone."""
        return any(results_of(c.table, organ, results) for c in self.columns if not c.is_shared)

    def schedules(self, organ: Organ, results: Sequence[Result]) -> list[Schedule]:
        """Schedules of such cells, of methods that learn."""
        found = {
            schedule
            for column in self.columns
            for row in self.rows
            if not column.is_shared and row.method not in CLASSICAL
            for schedule in runs_of(column.table, row, organ, results)
        }
        return sorted(found)

    def markdown(self, organ: Organ, results: Sequence[Result]) -> str:
        """A table for each schedule; one that says "missing" everywhere where nothing was run."""
        of = [r for column in self.columns for r in results_of(column.table, organ, results)]
        about = f"{meaning(of[0]['unknown']['protocol'])} {self.about}" if of else "No cell has been run."
        parts = []
        for schedule in self.schedules(organ, results) or [None]:
            length = "" if schedule is None else f", {schedule[0]} steps, fits of {schedule[1]} iterations"
            parts += [f"### {self.title}, {organ}{length}", "", about, ""]
            parts += [*self._lines(organ, results, schedule), ""]
        return "\n".join(parts[:-1])

    def _lines(self, organ: Organ, results: Sequence[Result], schedule: Schedule | None) -> list[str]:
        lines = ["| method |" + "".join(f" {column.title} |" for column in self.columns)]
        lines.append("|---" * (1 + len(self.columns)) + "|")
        for row in self.rows:
            found = [runs_at(column.table, row, organ, results, schedule) for column in self.columns]
            cells = [pair(r, c.side) if r else "missing" for r, c in zip(found, self.columns, strict=True)]
            lines.append(f"| `{row.title}` | " + " | ".join(cells) + " |")
        return lines


def runs_at(
    table: Table, row: Row, organ: Organ, results: Sequence[Result], schedule: Schedule | None
) -> list[Result]:
    """Results of a row at a schedule; of a row that learns no network, at any."""
    groups = runs_of(table, row, organ, results)
    if row.method in CLASSICAL:
        return [result for group in groups.values() for result in group]
    return groups.get(schedule, []) if schedule else []
