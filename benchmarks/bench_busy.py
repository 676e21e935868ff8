"""A training step of two threads on a machine whose two cores others use, too: threads that wait soon give up a core.

The reference waits as GNU OpenMP does by default. Both are timed by turns beside two busy processes, and alone.
Run: python benchmarks/bench_busy.py, on a machine with two cores; on others, with as many busy processes as cores.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from statistics import median

import torch
from bench_training import BATCH, forward_of, phantom_shapes, samples_of, training_step
from common import Comparison, Timing, report

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.methods import ModelConfig, build
from implicit_atlas.geometry import grid
from implicit_atlas.support.memory import keep_freed_memory

THREADS, STEPS, REPEATS = 2, 4, 3
DEFAULT_SPINS = "300000"  # of GNU OpenMP, in its own words


def steps() -> None:
    """Print the seconds of some steps."""
    grid.set_threads(THREADS)
    keep_freed_memory()
    atlas = build(ModelConfig())
    assert isinstance(atlas, Atlas)

    shapes = phantom_shapes(4)
    samples = samples_of([shapes[index % len(shapes)] for index in range(BATCH)])
    step = training_step(atlas.train(), forward_of(atlas), samples, nullcontext())
    step()
    begun = time.perf_counter()
    for _ in range(STEPS):
        step()
    print(time.perf_counter() - begun)


def by_turns(name: str) -> None:
    """Compare the product's way to wait with the default one; what a process takes to start does not count."""
    ours, theirs = (
        Timing(median(each), min(each), max(each), REPEATS)
        for each in zip(
            *[(timed(os.environ["GOMP_SPINCOUNT"]), timed(DEFAULT_SPINS)) for _ in range(REPEATS)],
            strict=True,
        )
    )
    report(Comparison(name, ours, theirs, theirs.median / ours.median))


def timed(spins: str) -> float:
    """Seconds of the steps in a process that waits so."""
    command = [sys.executable, __file__, "--steps"]
    environment = {**os.environ, "GOMP_SPINCOUNT": spins}
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(answer.stdout.split()[-1])


def busy() -> None:
    """Work until this process is ended."""
    while True:
        torch.rand(64, 64).sum()


def main() -> None:
    """Print the ratios."""
    others = [multiprocessing.Process(target=busy, daemon=True) for _ in range(os.cpu_count() or 1)]
    by_turns(f"{STEPS} training steps alone, {THREADS} threads")
    for other in others:
        other.start()
    try:
        by_turns(f"{STEPS} training steps beside {len(others)} busy processes, {THREADS} threads")
    finally:
        for other in others:
            other.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["--steps"]:
        steps()
    else:
        main()
