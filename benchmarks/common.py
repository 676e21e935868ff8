"""What the benchmarks share: a timer, the machine's line, and one JSON line a result."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated calls."""

    median: float
    least: float
    most: float
    repeats: int


@dataclass(frozen=True)
class Comparison:
    """The product against its reference, taken in one run; `ratio` is of medians, `goal` what it should reach."""

    name: str
    product: Timing
    reference: Timing
    ratio: float
    goal: float


def timed(call: Callable[[], Result], repeats: int = 5, warm_up: int = 1) -> tuple[Result, Timing]:
    """The last call's result, and the seconds of `repeats` calls after `warm_up` ones that do not count."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(repeats - 1):
        seconds.append(_seconds(call)[1])
    result, last = _seconds(call)
    seconds.append(last)
    return result, Timing(statistics.median(seconds), min(seconds), max(seconds), repeats)


def _seconds(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def compare(
    name: str, product: Callable[[], object], reference: Callable[[], object], goal: float, repeats: int = 5
) -> Comparison:
    """Time both by turns, so that other load on the machine meets both alike."""
    ours, theirs = [], []
    product(), reference()
    for _ in range(repeats):
        ours.append(_seconds(product)[1])
        theirs.append(_seconds(reference)[1])
    mine, other = (
        Timing(statistics.median(seconds), min(seconds), max(seconds), repeats) for seconds in (ours, theirs)
    )
    return Comparison(name, mine, other, other.median / mine.median, goal)


def machine() -> str:
    """Processor, cores, threads and versions that a timing belongs to."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123 (a device file)
            names = [line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def report(result: Comparison) -> None:
    """Print a line for people and one of JSON."""
    print(
        f"{result.name}: product {result.product.median:.3f} s, reference {result.reference.median:.3f} s, "
        f"ratio {result.ratio:.1f} (goal {result.goal:g}), median of {result.product.repeats}"
    )
    print(json.dumps({"machine": machine(), **asdict(result)}))
