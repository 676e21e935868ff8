"""Preparing many masks: in several processes, bad cases set aside, and files that did not change not read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from implicit_atlas.errors import AbsentLabelError, InputError
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.io import Problem, case_name, find_cases, printable, read_labels, select_mask
from implicit_atlas.shapes.manifest import PrepareConfig
from implicit_atlas.shapes.shape import Shape, hash_source
from implicit_atlas.support.workers import START_SECONDS, Message, run_cases

Progress = Callable[[int, int, str], None]
"""Called after every case with the cases done, their number, and the case's name."""

MaskSource = str | Path | Iterable[str | Path]
"""A folder of masks, a mask file, or several of them."""

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
    shapes: dict[Path, Shape] = {}
    problems = list(cases.problems)
    for path, outcome in prepare_each(cases.paths, config or PrepareConfig(), {}, workers, progress):
        if isinstance(outcome, Shape):
            shapes[path] = outcome
        elif isinstance(outcome, Problem):
            problems.append(outcome)
    in_order = tuple(shapes[path] for path in cases.paths if path in shapes)
    return PreparedCases(in_order, tuple(sorted(problems, key=lambda problem: problem.name)))


def prepare_each(
    paths: tuple[Path, ...],
    config: PrepareConfig,
    known_hashes: Mapping[Path, str],
    workers: int,
    progress: Progress | None,
) -> Iterator[tuple[Path, Shape | Problem | None]]:
    """Prepare masks in any order, and log what had to be repaired.

    Args:
        paths: the mask files.
        config: how masks become shapes.
        known_hashes: `hash_source` of the files that were prepared before.
        workers: processes to use.
        progress: called after every case.

    Yields:
        (file, its shape, or what is wrong with it, or None where the file has its known hash).
    """
    parameters = asdict(config)
    cases = [
        Message({"path": str(path), "known": known_hashes.get(path), "config": parameters}) for path in paths
    ]
    for done, (index, answer) in enumerate(
        run_cases(prepare_case, cases, _workers_worth(paths, workers)), start=1
    ):
        path = paths[index]
        outcome = _outcome(path, answer, config.labels)
        for note in outcome.notes if isinstance(outcome, Shape) else ():
            _log.warning("%s: %s", printable(str(path)), note)
        yield path, outcome
        if progress is not None:
            progress(done, len(paths), case_name(path))


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


def _workers_worth(paths: tuple[Path, ...], workers: int) -> int:
    """Return how many processes to start: one where they would take longer to start than they save."""
    megabytes = sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
    seconds = _SECONDS_PER_CASE * len(paths) + _SECONDS_PER_MEGABYTE * megabytes
    return workers if seconds > START_SECONDS * workers else 1


def _prepared(path: Path, config: PrepareConfig, content_hash: str) -> Shape:
    return config.shape_of(select_mask(read_labels(path), config.labels), content_hash=content_hash)


def _refused(error: InputError) -> Message:
    return Message({"problem": str(error), "absent": isinstance(error, AbsentLabelError), "shape": None})


def _outcome(path: Path, answer: Message | None, labels: tuple[int, ...]) -> Shape | Problem | None:
    """Return a worker's answer as the shape, the problem, or None for a file that did not change."""
    if answer is None:
        error = InputError(
            path, "ended the process that prepared it", "Crop it to the organ, or leave it out."
        )
        return Problem(case_name(path), path, str(error))
    if answer.values["problem"] is not None:
        return Problem(case_name(path), path, answer.values["problem"], answer.values["absent"])
    values = answer.values["shape"]
    if values is None:
        return None
    return Shape(
        name=case_name(path),
        packed=np.frombuffer(answer.payload, np.uint8),
        frame=Frame.from_json(values["frame"], path),
        source=str(path),
        content_hash=values["content_hash"],
        dtype=values["dtype"],
        notes=tuple(values["notes"]),
        labels=labels,
    )
