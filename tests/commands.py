"""The command line in this process, and what its results are compared by."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from implicit_atlas.cli.app import main
from implicit_atlas.geometry.surface import occupancy_mesh


def run(*words: object) -> int:
    """Exit status of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["implicit-atlas", *map(str, words)])
        # The process is that of all tests: its allocator stays as it is.
        patch.setattr("implicit_atlas.cli.app.keep_freed_memory", lambda: None)
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def paths(folder: Path) -> list[Path]:
    """The masks in a folder."""
    return sorted(folder.glob("*.nii.gz"))


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def surface_points(mask, count: int) -> np.ndarray:
    """Points all over a mask's surface, in millimetres."""
    vertices = occupancy_mesh(mask.occupancy, mask.grid).vertices
    return np.random.default_rng(0).permutation(vertices)[:count]
