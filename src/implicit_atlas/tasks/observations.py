"""Observations of organs from files: clicks, and masks that were drawn in part; completed one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from implicit_atlas.completion.completion import Completion, complete
from implicit_atlas.completion.observe import Drawn, Seen, from_landmarks
from implicit_atlas.errors import InputError
from implicit_atlas.io import (
    CaseFile,
    Problem,
    case_name,
    find_cases,
    read_landmarks,
    read_mask,
)
from implicit_atlas.io.cases import distinct_names, matches
from implicit_atlas.io.formats import is_mask_name
from implicit_atlas.io.landmarks import LANDMARK_ENDINGS
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.sides import Mirror
from implicit_atlas.support.console import Report
from implicit_atlas.trained_atlas import TrainedAtlas


@dataclass(frozen=True, eq=False)
class Told:
    """What a file says of an organ, and the mask that was drawn in part, if it is one."""

    source: CaseFile
    seen: Observations
    drawn: Drawn | None = None


def read_observations(
    sources: Sequence[CaseFile], seen: Seen, spread_mm: float, labels: Sequence[int], problems: list[Problem]
) -> Iterator[Told]:
    """What files say of organs, one after the other; files that cannot be used are added to `problems`.

    Files whose results would have one name are all set aside, because nothing says which is meant.
    """
    names = Counter(source.name for source in sources)
    for source in sources:
        if names[source.name] > 1:
            problem = "has the case name of another file"
            remedy = "Rename one, or give them one by one, each its own -o."
            problems.append(source.problem(InputError(source.path, problem, remedy)))
            continue
        try:
            if source.path.name.lower().endswith(LANDMARK_ENDINGS):
                told = Told(source, from_landmarks(read_landmarks(source.path), spread_mm))
            else:
                drawn = Drawn.of(read_mask(source.path, tuple(labels)), seen)
                told = Told(source, drawn.observations(source.name), drawn)
        except InputError as error:
            problems.append(source.problem(error))
        else:
            yield told


def observation_files(sources: Sequence[Path]) -> list[CaseFile]:
    """The files themselves, and in place of a folder or pattern the clicks and masks in it, under distinct names.

    Raises:
        InputError: a folder that was named holds neither, or all that a pattern matches.
    """
    found: list[Path] = []
    for named in sources:
        several = matches(named)
        own = [path for source in several for path in _observed_in(source, named=several == [named])]
        if not own:
            raise InputError(named, "matches neither clicks nor masks", "Correct the pattern.")
        found += own
    return [CaseFile(name, path) for path, name in distinct_names(dict.fromkeys(found), output_name).items()]


def _observed_in(source: Path, named: bool) -> list[Path]:
    """A file, or the clicks and masks in a folder, which holds some where it was named."""
    if not source.is_dir():
        return [source] if named or is_mask_name(source.name) or _are_clicks(source) else []
    try:
        clicks = sorted(path for path in source.iterdir() if path.is_file() and _are_clicks(path))
    except OSError as error:
        if not named:
            return [source]  # reading it says what is wrong
        problem = f"cannot be listed ({error.strerror or error})"
        raise InputError(source, problem, "Check the folder and its permissions.") from error
    try:
        cases = find_cases(source)
    except InputError:
        if named and not clicks:
            raise
        return clicks
    return [*clicks, *cases.paths, *(problem.path for problem in cases.problems)]


def _are_clicks(path: Path) -> bool:
    return path.name.lower().endswith(LANDMARK_ENDINGS) and not path.name.startswith(".")


def complete_each(  # noqa: PLR0913 (options of a main verb)
    atlas: TrainedAtlas,
    known: Iterable[Told],
    total: int,
    draws: int,
    problems: list[Problem],
    report: Report = lambda share, text: None,
    mirror: Mirror = "no",
) -> Iterator[tuple[Completion, Told]]:
    """Complete one case after the other; what cannot be of such an organ goes to `problems`.

    `mirror` says which are mirror images of the atlas's organs.

    Memory does not grow with the number of cases, where they are read one by one.
    """
    for number, told in enumerate(known):

        def overall(share: float, text: str, number: int = number) -> None:
            report((number + share) / total, text)

        try:
            done = complete(atlas, [told.seen], draws, overall, mirror)[0]
        except InputError as error:
            problems.append(told.source.problem(error))
            continue
        yield done, told


def output_name(source: Path) -> str:
    """The name of a case's results: that of its file, of points or a mask, without the ending."""
    name = plain_name(source.name)
    return case_name(source) if name == source.name else name


def plain_name(name: str) -> str:
    """A name without the ending of a file of points."""
    for ending in LANDMARK_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
