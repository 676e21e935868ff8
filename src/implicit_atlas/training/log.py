"""The log of a training run: one JSON object a line, cut back on resume."""

from __future__ import annotations

import json
from pathlib import Path

from implicit_atlas.support.files import write_atomic


class RunLog:
    """Appends lines to a file; without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def write(self, **values: float) -> None:
        """Append one line."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({name: _short(value) for name, value in values.items()}) + "\n")

    def cut_after(self, step: int) -> None:
        """Drop lines of steps that a resumed run does again, and what a kill left half written."""
        if self.path is None or not self.path.exists():
            return
        kept = [line for line in self.read_lines() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomic(self.path, text.encode())

    def read_lines(self) -> list[dict[str, float]]:
        """The complete lines, oldest first."""
        if self.path is None or not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:  # the last line of a killed run
                continue
        return lines


def _short(value: float) -> float:
    return float(f"{value:.7g}")
