"""Freed memory is kept where the C library can, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, numpy as np
from implicit_atlas.memory import keep_freed_memory
if {keep}: keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): np.ones(8_000_000)
before = faults()
for _ in range(10): np.ones(8_000_000)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_arrays_take_the_same_pages_again():
    counts = {}
    for keep in (False, True):
        answer = subprocess.run(
            [sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True
        )
        counts[keep] = int(answer.stdout)
    assert counts[True] <= counts[False] / 4 or counts[False] < 100
