"""What the benchmarks share: comparison by turns in one run, the machine's line, and one JSON line a result."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated calls."""

    median: float
    least: float
    most: float
    repeats: int


@dataclass(frozen=True)
class Comparison:
    """The product against its reference, taken in one run.

    Args:
        ratio: of the medians.
        goal: what the ratio should reach, where there is a goal.
    """

    name: str
    product: Timing
    reference: Timing
    ratio: float
    goal: float | None = None


def compare(
    name: str,
    product: Callable[[], object],
    reference: Callable[[], object],
    goal: float | None = None,
    repeats: int = 5,
) -> Comparison:
    """Time both by turns, after one call each that does not count: other load on the machine meets both alike."""
    _seconds(product), _seconds(reference)
    pairs = [(_seconds(product), _seconds(reference)) for _ in range(repeats)]
    ours, theirs = (_timing(seconds) for seconds in zip(*pairs, strict=True))
    return Comparison(name, ours, theirs, theirs.median / ours.median, goal)


def seconds_by_turns(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each call, all timed in turn, after one of each that does not count."""
    for call in calls:
        call()
    rounds = [[_seconds(call) for call in calls] for _ in range(repeats)]
    return [statistics.median(one) for one in zip(*rounds, strict=True)]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _timing(seconds: tuple[float, ...]) -> Timing:
    return Timing(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def machine() -> str:
    """Processor, cores, threads, load and versions that a timing belongs to."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, Python {platform.python_version()}"
    )


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def report(result: Comparison) -> None:
    """Print a line for people and one of JSON."""
    goal = "" if result.goal is None else f" (goal {result.goal:g})"
    print(
        f"{result.name}: product {result.product.median:.4f} s, reference {result.reference.median:.4f} s, "
        f"ratio {result.ratio:.1f}{goal}, median of {result.product.repeats}"
    )
    print_json(**asdict(result))


def print_json(**values: object) -> None:
    """Print values and the machine as one line of JSON, and keep them for docs/performance.md."""
    result = {"machine": machine(), **values}
    print(json.dumps(result))
    name = re.sub(r"\W+", "-", str(values["name"])).strip("-")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
