"""How many threads a training takes on a machine that others use, too.

Threads of a step wait for one another; where other processes hold some of the cores, all of them wait for the one that
has to stand in line, and two threads beside two busy processes are three times as slow as one. So where a step gets
less of the processor than its threads could take, fewer are tried, and whichever number was faster is kept.

Sums depend on the number of threads, and so do results, in their last digits. A training with a time budget depends on
the pace anyhow; the others keep all threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

STEPS = 4  # whose time is compared; the first one of all compiles and does not count
CROWDED = 0.75  # a smaller share of what the threads could take means that others are there
AGAIN = 90.0  # seconds until another number is tried


@dataclass
class Threads:
    """What is known of the pace with some threads.

    Args:
        most: as many as there may be, and are at first.
        change: takes so many from now on.
    """

    most: int
    change: Callable[[int], object]
    now: int = field(init=False)
    _kept: int = field(default=0, init=False)  # while another number is tried: the one before
    _pace: float = field(default=0.0, init=False)  # seconds of a step with that one
    _steps: int = field(default=-1, init=False)
    _seconds: float = field(default=0.0, init=False)
    _processor: float = field(default=0.0, init=False)
    _since: float = field(default=AGAIN, init=False)

    def __post_init__(self) -> None:
        self.now = self.most

    def after(self, seconds: float, processor: float) -> None:
        """Choose the threads of the next step.

        Args:
            seconds: that a step took.
            processor: seconds of all cores together that this process had in them.
        """
        if self.most == 1:
            return
        self._since += seconds
        self._steps += 1
        if self._steps > 0:
            self._seconds += seconds
            self._processor += processor
        hopeless = self._kept and self._seconds > STEPS * self._pace
        if self._steps == STEPS or hopeless:
            self._decide()

    def restore(self) -> None:
        """Take all again."""
        if self.now != self.most:
            self._change(self.most)

    def _decide(self) -> None:
        pace, share = self._seconds / self._steps, self._processor / max(self._seconds, 1e-9)
        self._steps, self._seconds, self._processor = 0, 0.0, 0.0
        if self._kept:
            if pace > self._pace:
                self._change(self._kept)
            self._kept, self._since = 0, 0.0
        elif self._since >= AGAIN and (self.now < self.most or share < CROWDED * self.most):
            self._kept, self._pace = self.now, pace
            self._change(self.most if self.now < self.most else max(1, min(self.most - 1, round(share))))

    def _change(self, threads: int) -> None:
        self.now = threads
        self.change(threads)
