"""A training step of two threads on a machine whose two cores others use, too: threads that wait soon give up a core.

The reference waits as GNU OpenMP does by default. Both are timed by turns beside two busy processes, and alone. So is
the start of modes and codes, whose linear algebra takes one thread, against all that OpenBLAS would take.
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

import numpy as np
import torch
from bench_training import BATCH, forward_of, phantom_shapes, samples_of, training_step
from common import Comparison, Timing, compare, report

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.linear import DISTANCE_RESOLUTION, signed_distances
from implicit_atlas.atlas.methods import ModelConfig, build
from implicit_atlas.geometry import grid
from implicit_atlas.support.memory import keep_freed_memory
from implicit_atlas.training.modal_start import modal_start

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


def start_of_modes(name: str) -> None:
    """Compare the start of modes and codes of twelve shapes, by one thread, with all that OpenBLAS takes."""
    distances = [signed_distances(shape.occupancy, DISTANCE_RESOLUTION) for shape in phantom_shapes(12)]
    volumes = np.stack(distances).reshape(-1, *(DISTANCE_RESOLUTION,) * 3)
    arguments = volumes, len(volumes), ModelConfig().code_size, ModelConfig().mode_nodes
    report(
        compare(
            name,
            lambda: modal_start(*arguments),
            lambda: modal_start.__wrapped__(*arguments),  # pyright: ignore[reportFunctionMemberAccess]
            repeats=REPEATS,
        )
    )


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
    start_of_modes("start of modes and codes of 12 shapes, alone")
    for other in others:
        other.start()
    try:
        beside = f"beside {len(others)} busy processes"
        by_turns(f"{STEPS} training steps {beside}, {THREADS} threads")
        start_of_modes(f"start of modes and codes of 12 shapes, {beside}")
    finally:
        for other in others:
            other.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["--steps"]:
        steps()
    else:
        main()
