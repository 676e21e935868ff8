"""The log of a training run: one JSON object a line, cut back on resume; and its curves, which a model keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from implicit_atlas.support.files import write_atomic

MOST_PLACES = 200  # of a curve: of 2000 steps, all that were logged

Curves = Mapping[str, Sequence[float]]
"""Values by name, those of "step" among them."""


class RunLog:
    """Keeps lines, and appends them to a file where there is a path."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines: list[dict[str, float]] = []

    def write(self, **values: float) -> None:
        """Append one line."""
        self.lines.append({name: _short(value) for name, value in values.items()})
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(self.lines[-1]) + "\n")

    def cut_after(self, step: int) -> None:
        """Go on with the file's lines but those of steps that are done again, and what a kill left half written."""
        if self.path is not None and self.path.exists():
            self.lines = self._read(self.path)
        self.lines = [line for line in self.lines if line["step"] <= step]
        if self.path is not None:
            write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())

    def curves(self) -> Curves:
        """What all lines say, by name; of many lines some, at even distances, the last one among them."""
        every = -(-len(self.lines) // MOST_PLACES) or 1
        kept = self.lines[(len(self.lines) - 1) % every :: every] if self.lines else []
        names = [name for name in (kept or [{}])[-1] if all(name in line for line in kept)]
        return {name: [line[name] for line in kept] for name in names}

    @staticmethod
    def _read(path: Path) -> list[dict[str, float]]:
        lines = []
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the last line of a killed run
                continue
            if isinstance(line, dict) and "step" in line:
                lines.append(line)
        return lines


def _short(value: float) -> float:
    return float(f"{value:.7g}")
