"""Tests of implicit_atlas.support.workers: a case that kills its process costs that case and no other."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from implicit_atlas.errors import InputError
from implicit_atlas.support.workers import Message, run_cases

SCRIPT = """
from shape_masks import ellipsoid_mask, save_mask
from pathlib import Path
import implicit_atlas.shapes.preparation as preparation

folder = Path("masks")
folder.mkdir()
for i in range(4):
    save_mask(folder, f"case_{i}", ellipsoid_mask())
preparation.START_SECONDS = 0.0
print(len(preparation.prepare_cases(folder, preparation.PrepareConfig(8)).shapes))
"""


def answer(case):
    """Called in the workers: what the case says."""
    values = case.values
    if values.get("print"):
        print("noise on standard output", flush=True)
        os.write(1, b"more noise\n")
    if values.get("die"):
        os._exit(9)
    if values.get("raise"):
        raise RuntimeError("expected by the test")
    time.sleep(values.get("sleep", 0))
    return Message({"pid": os.getpid(), "double": 2 * values["number"]}, case.payload[::-1])


@pytest.mark.parametrize("workers", [1, 2])
def test_every_case_has_its_own_answer(workers):
    cases = [
        Message({"number": i, "print": True, "text": "é\n\udcff"}, bytes([i, 255, 10])) for i in range(9)
    ]
    answers = dict(run_cases(answer, cases, workers))
    assert sorted(answers) == list(range(9))
    for index, reply in answers.items():
        assert reply is not None
        assert reply.values["double"] == 2 * index and reply.payload == bytes([10, 255, index])
    assert (os.getpid() in {reply.values["pid"] for reply in answers.values() if reply}) == (workers == 1)


@pytest.mark.parametrize("end", ["die", "raise"])
def test_a_process_that_dies_costs_one_case(end):
    cases = [Message({"number": i, end: i in (0, 4)}) for i in range(8)]
    answers = dict(run_cases(answer, cases, 2))
    assert [index for index in range(8) if answers[index] is None] == [0, 4]


def test_left_early_the_processes_end():
    cases = [Message({"number": i, "sleep": 0 if i == 0 else 60}) for i in range(4)]
    begin = time.monotonic()
    running = run_cases(answer, cases, 2)
    _, first = next(running)
    running.close()
    assert time.monotonic() - begin < 30
    assert first is not None
    with pytest.raises(ProcessLookupError):
        os.kill(first.values["pid"], 0)


def test_a_worker_that_cannot_start_is_no_fault_of_a_case():
    def nowhere(case):
        return case

    with pytest.raises(InputError, match="cannot be started"):
        dict(run_cases(nowhere, [Message({})] * 2, 2))


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr
