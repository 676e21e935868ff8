"""Worker processes for folders of cases: a case that kills its process costs that case and no other.

`multiprocessing` and its executors are not used. They import the user's script again in every worker, which
runs it twice where it has no `if __name__ == "__main__"`; one killed worker fails every case that waits;
their workers outlive a killed parent; and they speak pickle. Here a worker reads cases from a pipe, and ends
when the pipe does. A message is one line of JSON and as many bytes after it as the line says.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from implicit_atlas.errors import InputError

START_SECONDS = 2.0
"""About what a worker takes to start, on an idle core: work of less than this is done sooner without it."""

_BOOTSTRAP = (
    "import sys, json; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from implicit_atlas.support.workers import serve; serve()"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Message:
    """What goes to a worker or comes back: JSON values, and bytes beside them."""

    values: dict[str, Any]
    payload: bytes = b""


def run_cases(
    function: Callable[[Message], Message], cases: Sequence[Message], workers: int = 2
) -> Iterator[tuple[int, Message | None]]:
    """Call a function on every case, in several processes, and yield the answers as they come.

    Args:
        function: a function at the top of an importable module; what it raises ends its process.
        cases: what it is called with.
        workers: processes; with 1 the work is done in this process.

    Yields:
        (index of the case, its answer); None for an answer where the process died.

    Raises:
        InputError: no process can be started.
    """
    workers = min(workers, len(cases))
    if workers <= 1:
        for index, case in enumerate(cases):
            yield index, function(case)
        return
    pool = [_Worker(f"{function.__module__}:{function.__qualname__}") for _ in range(workers)]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in pool:
        idle.put(worker)
    threads = ThreadPoolExecutor(workers)
    try:
        indices = {threads.submit(_call, idle, case): index for index, case in enumerate(cases)}
        for future in as_completed(list(indices)):
            yield indices.pop(future), future.result()
    finally:
        # Left early, the processes are killed first, so that no thread waits for one.
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in pool:
            worker.kill()
        threads.shutdown(wait=True)
        for worker in pool:
            worker.end()


def serve() -> None:
    """Answer cases from standard input until it ends: the body of a worker process."""
    # Ctrl-C goes to the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(EOFError, BrokenPipeError):
        module, name = _receive(sys.stdin.buffer).values["function"].split(":")
        function = getattr(importlib.import_module(module), name)
        _send(answers, Message({}))
        while True:
            _send(answers, function(_receive(sys.stdin.buffer)))


def _call(idle: queue.SimpleQueue[_Worker], case: Message) -> Message | None:
    """Give a case to a worker that has none."""
    worker = idle.get()
    try:
        return worker.call(case)
    finally:
        idle.put(worker)


class _Worker:
    """One process that answers cases, started at its first case and again after it died."""

    def __init__(self, function: str) -> None:
        self._function = function
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def call(self, case: Message) -> Message | None:
        """Return the answer, or None where the process died."""
        process = self._process = self._process or _start_process(self._function)
        with contextlib.suppress(EOFError, OSError):
            if not self._killed:
                _send(cast(BinaryIO, process.stdin), case)
                return _receive(cast(BinaryIO, process.stdout))
        self.end()
        return None

    def kill(self) -> None:
        """Kill the process, at work or not, and give it no more cases; safe from another thread."""
        self._killed = True
        process = self._process
        if process is not None:
            process.kill()

    def end(self) -> None:
        """Kill the process and free its pipes."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    cast(BinaryIO, pipe).close()
            self._process.wait()
            self._process = None


def _start_process(function: str) -> subprocess.Popen[bytes]:
    """Start a process and wait until it is ready: one that never is must not be held against a case."""
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOTSTRAP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **_ONE_THREAD},
    )
    stdin = cast(BinaryIO, process.stdin)
    try:
        stdin.write(json.dumps(sys.path).encode() + b"\n")
        _send(stdin, Message({"function": function}))
        _receive(cast(BinaryIO, process.stdout))
    except (EOFError, OSError) as error:
        problem = f"cannot be started (exit status {process.wait()})"
        raise InputError("worker process", problem, "Use one worker; what it printed says why.") from error
    return process


def _send(stream: BinaryIO, message: Message) -> None:
    stream.write(json.dumps([message.values, len(message.payload)]).encode() + b"\n" + message.payload)
    stream.flush()


def _receive(stream: BinaryIO) -> Message:
    """Read a message; EOFError when the other side has ended, before or within one."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    values, size = json.loads(line)
    payload = stream.read(size)
    if len(payload) != size:
        raise EOFError
    return Message(values, payload)
