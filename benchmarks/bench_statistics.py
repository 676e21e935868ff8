"""Memory of statistics against the number of cases, which are read one by one."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import print_json

from implicit_atlas.statistics import align, compare_groups, generality, principal_modes, specificity

VERTICES, COUNTS = 3734, (10, 100, 1000)  # vertices as `correspond` makes them of hippocampi
MB = 1e6


def write_cases(path: Path, count: int) -> np.ndarray:
    """Random cases of one topology, of which the memory holds one at a time."""
    out = np.lib.format.open_memmap(path, "w+", np.float64, (count, VERTICES, 3))
    mean = np.random.default_rng(0).normal(size=(VERTICES, 3)) * 10
    for index in range(count):
        rng = np.random.default_rng(index + 1)
        out[index] = mean * (1 + 0.1 * rng.normal(size=3)) + 3 * rng.normal(size=3)
    return np.load(path, mmap_mode="r")


def peak_mb(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the most memory that Python held beside what it held before."""
    tracemalloc.start()
    found = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, peak / MB


def main() -> None:
    """Print and keep the peak of each step."""
    peaks: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            cases = write_cases(Path(folder) / f"{count}.npy", count)
            alike, found = peak_mb(lambda cases=cases: align(cases))
            peaks.setdefault("align", []).append(found)
            modes, found = peak_mb(lambda alike=alike: principal_modes(alike, 5))
            peaks.setdefault("modes", []).append(found)
            groups = np.arange(count) % 2
            for name, call in {
                "generality": lambda alike=alike, modes=modes: generality(alike, modes),
                "specificity": lambda alike=alike, modes=modes: specificity(alike, modes),
                "two groups": lambda alike=alike, groups=groups: compare_groups(alike, groups),
            }.items():
                peaks.setdefault(name, []).append(peak_mb(call)[1])
    for name, found in peaks.items():
        print(
            f"{name}: " + ", ".join(f"{mb:.1f} MB of {n} cases" for n, mb in zip(COUNTS, found, strict=True))
        )
    whole = [count * VERTICES * 24 / MB for count in COUNTS]
    print_json(
        name="memory of statistics", cases=COUNTS, vertices=VERTICES, peak_mb=peaks, all_cases_mb=whole
    )


if __name__ == "__main__":
    main()
