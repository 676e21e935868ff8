"""Threads of a training on a machine that others use: fewer where these are faster, all again where nobody is there."""

from __future__ import annotations

import pytest

from implicit_atlas.training.threads import AGAIN, CROWDED, STEPS, Threads

ALONE = {1: 1.0, 2: 0.6}  # seconds of a step
BESIDE_OTHERS = {1: 1.3, 2: 3.0}


class Machine:
    """Steps that take as long as so many threads do, in an invented time."""

    def __init__(self, most: int = 2) -> None:
        self.taken: list[int] = []
        self.threads = Threads(most, self.taken.append)
        self.steps: list[int] = []

    def run(self, seconds: float, pace: dict[int, float], share: float) -> None:
        while seconds > 0:
            now = self.threads.now
            self.steps.append(now)
            seconds -= pace[now]
            self.threads.after(pace[now], share * now * pace[now])


def test_alone_all_threads_stay():
    machine = Machine()
    machine.run(10 * AGAIN, ALONE, 1.0)
    assert set(machine.steps) == {2} and not machine.taken


def test_beside_others_fewer_are_taken_and_all_again_once_they_are_gone():
    machine = Machine()
    machine.run(4 * AGAIN, BESIDE_OTHERS, 0.5)
    crowded = list(machine.steps)
    assert machine.threads.now == 1 or crowded[-1] == 2  # or all are just tried
    assert crowded[: STEPS + 1] == [2] * (STEPS + 1) and crowded.count(2) <= STEPS + 1 + 4 * 2
    machine.run(4 * AGAIN, ALONE, 1.0)
    assert machine.steps[-1] == 2 and machine.steps[len(crowded) :].count(2) > 2.5 * AGAIN / 0.6


def test_what_is_no_faster_is_given_up_after_a_trial():
    """A step that does much alone takes little of two threads, but is not faster with one."""
    machine = Machine()
    machine.run(10 * AGAIN, ALONE, 0.6)
    assert 0.6 < CROWDED and 0 < machine.steps.count(1) <= 10 * STEPS
    assert machine.taken == [1, 2] * (len(machine.taken) // 2)


@pytest.mark.parametrize(("share", "tried"), [(0.5, 8), (0.01, 1), (0.72, 12)])
def test_as_many_are_tried_as_are_left(share, tried):
    machine = Machine(16)
    pace = dict.fromkeys(range(1, 17), 1.0)
    machine.run(STEPS + 1, pace, share)
    assert machine.threads.now == tried
    machine.threads.restore()
    assert machine.threads.now == 16 and machine.taken == [tried, 16]


def test_one_thread_stays_one():
    machine = Machine(1)
    machine.run(2 * AGAIN, {1: 1.0}, 0.1)
    assert not machine.taken
