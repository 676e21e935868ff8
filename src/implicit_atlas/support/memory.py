"""How the C library hands out memory; for commands, which own their process."""

from __future__ import annotations

import ctypes
import sys

# Names and values of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep large arrays that were freed, instead of giving each back to the system.

    A training step asks for the same large arrays again and again; the page faults of fresh ones cost about a
    fifth of its time. Does nothing on other systems.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries of Linux have none
        mallopt(M_MMAP_THRESHOLD, NEVER)
        mallopt(M_TRIM_THRESHOLD, NEVER)
