"""The cases of a folder: which files are masks, under which names, and which cannot be told apart."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import FORMAT_REMEDY, case_name, is_mask_name, unknown_format

_SHOWN_FOLDERS = 5
_ANY_DEPTH = "**"
LONGEST, SHOWN = 180, 40  # bytes of a name that folders are part of; characters of these in a longer one


@dataclass(frozen=True)
class Problem:
    """A case that cannot be used, while the others go on.

    Args:
        name: the case's name.
        path: its file.
        message: what is wrong and what to do.
        absent: it is a readable label map that has no voxel of the organ.
    """

    name: str
    path: Path
    message: str
    absent: bool = False


@dataclass(frozen=True)
class CaseFile:
    """A file and the name of its case, which no other file that was listed with it has."""

    name: str
    path: Path

    @classmethod
    def of(cls, source: MaskFile) -> CaseFile:
        """A file by itself, under its own name."""
        return source if isinstance(source, CaseFile) else cls(case_name(Path(source)), Path(source))

    def problem(self, message: object, absent: bool = False) -> Problem:
        """What is wrong with it."""
        return Problem(self.name, self.path, str(message), absent)


MaskFile = str | Path | CaseFile
"""A mask's file; a `CaseFile` where it was listed with others."""

MaskSource = str | Path | Iterable[MaskFile]
"""A folder of masks, a pattern of files or folders, a mask file, or several of them."""


@dataclass(frozen=True)
class Cases:
    """What was found.

    Args:
        files: of masks.
        problems: files that are set aside because two share one case name.
        passed_over: files of other formats in the folders that were searched; hidden ones do not count.
    """

    files: tuple[CaseFile, ...]
    problems: tuple[Problem, ...]
    passed_over: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The mask files, without the names that tell those of one name apart."""
        return tuple(file.path for file in self.files)


def find_cases(source: MaskSource) -> Cases:
    """Find the masks in a folder, a file, or a list of both: in the order of the list, of a folder in that of names.

    Folders are not searched below their first level; hidden files and unknown formats in them are passed
    over. A pattern (`cases/*/liver.nii.gz`, `**` for any depth) stands for the files and folders that it matches.
    Files of one name in several folders get the parts of their paths that differ in front (`s01_liver`); of one name
    in one folder (liver.nii.gz and liver.stl) all are set aside, because nothing says which is meant. So a name may
    change with what is listed beside it. No file is opened.

    Raises:
        InputError: a path that does not exist, a named file of unknown format, or nothing found.
    """
    given = [source] if isinstance(source, (str, Path)) else list(source)
    found: dict[Path, str | None] = {}
    others: dict[Path, None] = {}
    problems: list[Problem] = []
    for one in given:
        if isinstance(one, CaseFile):
            found[one.path] = one.name
            continue
        masks, rest, unread = _listed(Path(one))
        problems += unread
        for path in masks:
            found.setdefault(path, None)
        others.update(dict.fromkeys(rest))
    if not found:
        raise InputError("masks", "none were named", "Give a folder of masks, or mask files.")
    names = distinct_names([path for path, name in found.items() if name is None])
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path, name in found.items():
        by_name[name or names[path]].append(path)
    files = tuple(CaseFile(name, same[0]) for name, same in by_name.items() if len(same) == 1)
    problems += [
        _duplicate(CaseFile(name, path), same)
        for name, same in by_name.items()
        if len(same) > 1
        for path in same
    ]
    return Cases(files, tuple(problems), tuple(sorted(others)))


def distinct_names(paths: Iterable[Path], plain: Callable[[Path], str] = case_name) -> dict[Path, str]:
    """Names of files: plain ones; those of equal names get the parts of their folders that differ in front."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[plain(path)].append(path)
    names: dict[Path, str] = {}
    for name, same in groups.items():
        own = _differing([Path(os.path.normpath(path.absolute())).parent.parts for path in same])
        names |= {path: _joined(parts, name) for path, parts in zip(same, own, strict=True)}
    return names


def _joined(parts: Sequence[str], name: str) -> str:
    """A file's name with parts of its path in front, as a name that a file can have."""
    plain = [re.sub(r'[\\/:*?"<>|]', "", part).lstrip(".") for part in parts]
    joined = "_".join((*filter(None, plain), name))
    if not parts or len(os.fsencode(joined)) <= LONGEST:
        return joined
    return f"{joined[:SHOWN]}_{hashlib.sha256(os.fsencode(joined)).hexdigest()[:8]}_{name}"


def _differing(folders: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Folders without the parts that all begin with, and without those that all end with."""
    for end in (1, -1):
        folders = [parts[::end] for parts in folders]
        shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))
        folders = [parts[shared:][::end] for parts in folders]
    return list(folders)


def list_cases(source: MaskSource) -> list[Path]:
    """Return the masks in a folder, a file, or a list of both, every case name once.

    Raises:
        InputError: as `find_cases`, and for two files of one case name.
    """
    cases = find_cases(source)
    alike = [file.path for file in cases.files if file.name != case_name(file.path)]
    alike += [problem.path for problem in cases.problems]
    if alike:
        raise InputError(alike[0], "has the case name of another file", "Rename or remove one of the two.")
    return list(cases.paths)


def _listed(path: Path) -> tuple[list[Path], list[Path], list[Problem]]:
    """The mask files that a path stands for, other files beside them, and folders that cannot be read."""
    if path.is_dir():
        masks, others, folders = _in_folder(path)
        if not masks:
            raise _no_masks(path, folders)
        return masks, others, []
    matched = matches(path)
    if matched == [path]:
        return [_named_file(path)], [], []
    masks, others, problems = [], [], []
    for one in matched:
        if one.is_dir():  # one of many: without masks it is passed over
            try:
                own, rest, _ = _in_folder(one)
            except InputError as error:
                problems.append(CaseFile(one.name, one).problem(error))
                continue
            masks += own
            others += rest
        else:
            (masks if is_mask_name(one.name) else others).append(one)
    if not masks:
        raise InputError(path, "matches no mask files", FORMAT_REMEDY)
    return masks, others, problems


def matches(path: Path) -> list[Path]:
    """The files and folders that a pattern stands for, in order; a path that is none, or exists, is its own.

    Raises:
        InputError: a pattern that matches nothing.
    """
    if os.path.lexists(path) or not glob.has_magic(str(path)):
        return [path]
    start, *_ = fixed_part(path)
    wild = path.relative_to(start) if start != Path() else path
    found = sorted(set(_matched(start, wild.parts)), key=str)
    if not found:
        raise InputError(path, "is no file, and matches none as a pattern", "Correct it.")
    return found


def _matched(folder: Path, wild: Sequence[str]) -> Iterator[Path]:
    """What lies in a folder by the parts of a pattern."""
    if _ANY_DEPTH not in wild:
        yield from (folder / one for one in glob.glob(str(Path(*wild)), root_dir=folder))  # noqa: PTH207 (any)
        return
    depth = wild.index(_ANY_DEPTH)
    rest = wild[depth + 1 :] or ("*",)
    for top in _matched(folder, wild[:depth]) if depth else [folder]:
        for below in _folders_below(top):
            yield from _matched(below, rest)


def _folders_below(top: Path) -> Iterator[Path]:
    """A folder and those in it, by whatever depth, each once: links may lead back up. Hidden ones are passed over."""
    seen: set[str] = set()
    waiting = deque([top] if top.is_dir() else [])
    while waiting:
        folder = waiting.popleft()  # of the ways to a folder the shortest comes first
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        yield folder
        try:
            with os.scandir(folder) as entries:
                inner = sorted(
                    entry.name for entry in entries if _is_dir(entry) and not entry.name.startswith(".")
                )
        except OSError:  # it cannot be listed: nothing in it is found
            continue
        waiting += [folder / name for name in inner]


def fixed_part(pattern: Path) -> list[Path]:
    """The longest part of a pattern that exists, whose brackets are no wildcards, and what is above it."""
    return [part for part in pattern.parents if os.path.lexists(part)] or [Path()]


def _in_folder(folder: Path) -> tuple[list[Path], list[Path], list[str]]:
    """The mask files of a folder, broken links among them, so that reading names them; its other files; its folders."""
    try:
        with os.scandir(folder) as entries:
            listed = [(entry.name, _is_dir(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        problem = f"cannot be listed ({error.strerror or error})"
        raise InputError(folder, problem, "Check the folder and its permissions.") from error
    files = [folder / name for name, is_dir in listed if not is_dir]
    masks = sorted((p for p in files if is_mask_name(p.name)), key=lambda path: (case_name(path), str(path)))
    folders = sorted(name for name, is_dir in listed if is_dir)
    return masks, [path for path in files if not is_mask_name(path.name)], folders


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _no_masks(folder: Path, subfolders: list[str]) -> InputError:
    remedy = FORMAT_REMEDY
    if subfolders:
        shown = ", ".join(subfolders[:_SHOWN_FOLDERS]) + (", ..." if len(subfolders) > _SHOWN_FOLDERS else "")
        remedy = (
            f"Name the folder that holds the masks (it has the folders {shown}), or give a pattern in quotes: "
            f"'{folder}/*/NAME'."
        )
    return InputError(folder, "holds no mask files", remedy)


def _named_file(path: Path) -> Path:
    """Return a file that the user named; one that cannot exist or has an unknown format is refused."""
    if not os.path.lexists(path):
        raise InputError(path, "does not exist", "Check the path.")
    if not is_mask_name(path.name.lstrip(".")):
        raise unknown_format(path)
    return path


def _duplicate(case: CaseFile, same: list[Path]) -> Problem:
    others = ", ".join(str(other) for other in same if other != case.path)
    return case.problem(
        InputError(case.path, f"has the same case name as {others}", "Rename or remove one of them.")
    )
