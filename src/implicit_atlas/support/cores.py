"""How many cores' worth of time this process may take.

Containers limit it by a quota (`docker run --cpus 2`, limits of Kubernetes), of which OpenMP, OpenBLAS and Python know
nothing: on a host of 64 cores they start 64 threads, which wait for one another while none of them may run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores(groups: Path = GROUPS, mounted: Path = MOUNTED) -> int:
    """Cores that this process may use, at least 1: those that it may run on, and no more than its quota pays for.

    Args:
        groups: file that names the control groups of this process (Linux; elsewhere there is none).
        mounted: where they are mounted.
    """
    return max(1, math.floor(min([usable(), *_quotas(groups, mounted)])))


def usable() -> int:
    """Cores that this process may run on, whatever time it gets there."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(groups: Path, mounted: Path) -> Iterator[float]:
    """Cores that each control group of this process, and each above it, has a quota of."""
    for line in _text(groups).splitlines():
        controllers, _, name = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        tree = mounted / "cpu" if controllers else mounted
        # Inside a container its own group is the root of what is mounted, whatever it is called outside.
        places = [Path(name.lstrip("/")), *Path(name.lstrip("/")).parents]
        for folder in {tree / place for place in places}:
            if controllers:  # version 1
                quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
            else:
                quota, _, period = _text(folder / "cpu.max").partition(" ")
            if quota.isdigit() and period.isdigit() and int(period):
                yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
