"""Preparing many masks: in several processes, bad cases set aside, and files that did not change not read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from implicit_atlas.errors import AbsentLabelError, InputError
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.io import CaseFile, MaskSource, Problem, find_cases, printable, read_labels, select_mask
from implicit_atlas.shapes.manifest import PrepareConfig
from implicit_atlas.shapes.shape import Shape, hash_source
from implicit_atlas.support.workers import START_SECONDS, Message, run_cases

Progress = Callable[[int, int, str], None]
"""Called after every case with the cases done, their number, and the case's name."""

# One core, compressed masks: hippocampi of 4 kB take about 8 ms, livers of 90 kB about 45 ms.
_SECONDS_PER_CASE = 0.006
_SECONDS_PER_MEGABYTE = 0.4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCases:
    """What became of the masks of a folder.

    Args:
        shapes: the shapes, in the order of the list, of a folder in that of their names.
        problems: the cases that could not be prepared.
    """

    shapes: tuple[Shape, ...]
    problems: tuple[Problem, ...]


def prepare_cases(
    source: MaskSource,
    config: PrepareConfig | None = None,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> PreparedCases:
    """Prepare masks in memory.

    Args:
        source: a folder of masks, a mask file, or several of them.
        config: how masks become shapes.
        workers: processes to use.
        progress: called after every case.

    Raises:
        InputError: no mask was found. A mask that cannot be prepared is a problem in the result.
    """
    cases = find_cases(source)
    shapes: dict[CaseFile, Shape] = {}
    problems = list(cases.problems)
    for file, outcome in prepare_each(cases.files, config or PrepareConfig(), {}, workers, progress):
        if isinstance(outcome, Shape):
            shapes[file] = outcome
        elif isinstance(outcome, Problem):
            problems.append(outcome)
    in_order = tuple(shapes[file] for file in cases.files if file in shapes)
    return PreparedCases(in_order, tuple(sorted(problems, key=lambda problem: problem.name)))


def prepare_each(
    files: tuple[CaseFile, ...],
    config: PrepareConfig,
    known_hashes: Mapping[str, str],
    workers: int,
    progress: Progress | None,
) -> Iterator[tuple[CaseFile, Shape | Problem | None]]:
    """Prepare masks in any order, and log what had to be repaired.

    Args:
        files: of masks.
        config: how masks become shapes.
        known_hashes: `hash_source` of the files that were prepared before, by the names of their cases.
        workers: processes to use.
        progress: called after every case.

    Yields:
        (file, its shape, or what is wrong with it, or None where the file has its known hash).
    """
    parameters = asdict(config)
    cases = [
        Message({"path": str(file.path), "known": known_hashes.get(file.name), "config": parameters})
        for file in files
    ]
    for done, (index, answer) in enumerate(
        run_cases(prepare_case, cases, _workers_worth([file.path for file in files], workers)), start=1
    ):
        file = files[index]
        outcome = _outcome(file, answer, config.labels)
        for note in outcome.notes if isinstance(outcome, Shape) else ():
            _log.warning("%s: %s", printable(str(file.path)), note)
        yield file, outcome
        if progress is not None:
            progress(done, len(files), file.name)


def prepare_case(case: Message) -> Message:
    """Prepare one mask in a worker process; whatever goes wrong with it is in the answer."""
    path, config = Path(case.values["path"]), PrepareConfig(**case.values["config"])
    try:
        # The hash comes first: a file that changes while it is read then counts as changed the next time.
        content_hash = hash_source(path)
        if content_hash == case.values["known"]:
            return Message({"problem": None, "shape": None})
        shape = _prepared(path, config, content_hash)
    except InputError as error:
        return _refused(error)
    except MemoryError:
        return _refused(InputError(path, "needs more memory than there is", "Crop it to the organ."))
    except Exception as error:  # One case that no check foresaw must not stop the other thousand.
        problem = f"failed unexpectedly ({type(error).__name__}: {error})"
        return _refused(InputError(path, problem, "Save it again in another program, or leave it out."))
    values = {
        "content_hash": content_hash,
        "dtype": shape.dtype,
        "notes": shape.notes,
        "frame": shape.frame.to_json(),
    }
    return Message({"problem": None, "shape": values}, shape.packed.tobytes())


def _workers_worth(paths: Sequence[Path], workers: int) -> int:
    """Return how many processes to start: one where they would take longer to start than they save."""
    megabytes = sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
    seconds = _SECONDS_PER_CASE * len(paths) + _SECONDS_PER_MEGABYTE * megabytes
    return workers if seconds > START_SECONDS * workers else 1


def _prepared(path: Path, config: PrepareConfig, content_hash: str) -> Shape:
    return config.shape_of(select_mask(read_labels(path), config.labels), content_hash=content_hash)


def _refused(error: InputError) -> Message:
    return Message({"problem": str(error), "absent": isinstance(error, AbsentLabelError), "shape": None})


def _outcome(file: CaseFile, answer: Message | None, labels: tuple[int, ...]) -> Shape | Problem | None:
    """Return a worker's answer as the shape, the problem, or None for a file that did not change."""
    if answer is None:
        problem = "ended the process that prepared it"
        return file.problem(InputError(file.path, problem, "Crop it to the organ, or leave it out."))
    if answer.values["problem"] is not None:
        return file.problem(answer.values["problem"], answer.values["absent"])
    values = answer.values["shape"]
    if values is None:
        return None
    return Shape(
        name=file.name,
        packed=np.frombuffer(answer.payload, np.uint8),
        frame=Frame.from_json(values["frame"], file.path),
        source=str(file.path),
        content_hash=values["content_hash"],
        dtype=values["dtype"],
        notes=tuple(values["notes"]),
        labels=labels,
    )
