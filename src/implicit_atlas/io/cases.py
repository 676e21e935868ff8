"""The cases of a folder: which files are masks, under which names, and which cannot be told apart."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import FORMAT_REMEDY, case_name, is_mask_name, unknown_format

_SHOWN_FOLDERS = 5


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
class Cases:
    """What was found.

    Args:
        paths: the mask files.
        problems: files that are set aside because two share one case name.
        passed_over: files of other formats in the folders that were searched; hidden ones do not count.
    """

    paths: tuple[Path, ...]
    problems: tuple[Problem, ...]
    passed_over: tuple[Path, ...] = ()


def find_cases(source: str | Path | Iterable[str | Path]) -> Cases:
    """Find the masks in a folder, a file, or a list of both: in the order of the list, of a folder in that of names.

    Folders are not searched below their first level; hidden files and unknown formats in them are passed
    over. Files of one case name (liver.nii.gz and liver.stl) are all set aside, because nothing says which is
    meant. No file is opened.

    Raises:
        InputError: a path that does not exist, a named file of unknown format, or nothing found.
    """
    given = [source] if isinstance(source, (str, Path)) else list(source)
    found: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for path in map(Path, given):
        masks, rest = _in_folder(path) if path.is_dir() else ([_named_file(path)], [])
        found.update(dict.fromkeys(masks))
        others.update(dict.fromkeys(rest))
    if not found:
        raise InputError("masks", "none were named", "Give a folder of masks, or mask files.")
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in found:
        by_name[case_name(path)].append(path)
    paths = tuple(same[0] for same in by_name.values() if len(same) == 1)
    problems = tuple(_duplicate(path, same) for same in by_name.values() if len(same) > 1 for path in same)
    return Cases(paths, problems, tuple(sorted(others)))


def list_cases(source: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return the masks in a folder, a file, or a list of both, every case name once.

    Raises:
        InputError: as `find_cases`, and for two files of one case name.
    """
    cases = find_cases(source)
    if cases.problems:
        first = cases.problems[0]
        raise InputError(first.path, "has the case name of another file", "Rename or remove one of the two.")
    return list(cases.paths)


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The mask files of a folder, broken links among them, so that reading names them; and its other files."""
    try:
        with os.scandir(folder) as entries:
            listed = [(entry.name, _is_dir(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        problem = f"cannot be listed ({error.strerror or error})"
        raise InputError(folder, problem, "Check the folder and its permissions.") from error
    files = [folder / name for name, is_dir in listed if not is_dir]
    masks = sorted((p for p in files if is_mask_name(p.name)), key=lambda path: (case_name(path), str(path)))
    if not masks:
        raise _no_masks(folder, sorted(name for name, is_dir in listed if is_dir))
    return masks, [path for path in files if not is_mask_name(path.name)]


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _no_masks(folder: Path, subfolders: list[str]) -> InputError:
    remedy = FORMAT_REMEDY
    if subfolders:
        shown = ", ".join(subfolders[:_SHOWN_FOLDERS]) + (", ..." if len(subfolders) > _SHOWN_FOLDERS else "")
        remedy = f"Name the folder that holds the masks (it has the folders {shown})."
    return InputError(folder, "holds no mask files", remedy)


def _named_file(path: Path) -> Path:
    """Return a file that the user named; one that cannot exist or has an unknown format is refused."""
    if not os.path.lexists(path):
        raise InputError(path, "does not exist", "Check the path.")
    if not is_mask_name(path.name.lstrip(".")):
        raise unknown_format(path)
    return path


def _duplicate(path: Path, same: list[Path]) -> Problem:
    others = ", ".join(str(other) for other in same if other != path)
    remedy = "Rename or remove one of them."
    if any(other.parent != path.parent for other in same):
        remedy = "Results are named as the files: link them under names of their own (sub-01_mask.nii.gz)."
    error = InputError(path, f"has the same case name as {others}", remedy)
    return Problem(case_name(path), path, str(error))
