"""What the package asks of the process: freed memory is kept by commands, and threads that wait give up their core."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import resource, numpy as np
from implicit_atlas.support.memory import keep_freed_memory
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


@pytest.mark.parametrize(("given", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_wait_briefly_unless_the_user_says_how(given, expected):
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    code = "import os, implicit_atlas; print(os.environ['GOMP_SPINCOUNT'])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment | given
    )
    assert answer.stdout.strip() == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"OMP_NUM_THREADS": "1"}, "1"),
        ({"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}, "2"),
        ({"OMP_NUM_THREADS": "many"}, "None"),
    ],
)
def test_as_many_threads_are_used_as_were_asked_for(given, expected):
    environment = {key: value for key, value in os.environ.items() if not key.endswith("NUM_THREADS")}
    code = "import os, implicit_atlas; print(os.environ.get('NUMBA_NUM_THREADS'))"
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment | given, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == expected
