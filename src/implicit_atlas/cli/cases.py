"""What the commands read: models, masks, and lists that choose cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from implicit_atlas.errors import InputError

SHOWN = 5  # names in a message


def labels_of(text: str, source: Path | Sequence[Path]) -> tuple[int, ...]:
    """Label ids of what was typed; none for an empty text."""
    from implicit_atlas.io import parse_labels

    return parse_labels(text, source) if text else ()


def load_atlas(path: Path) -> Any:
    """A model, of a folder or by its name, on the fastest device of this machine."""
    from implicit_atlas import load
    from implicit_atlas.training.learning import best_device

    return load(str(path)).to(best_device())


def fit_config(iterations: int | None, local: bool) -> Any:
    """How to fit: at most so many iterations, where they are given, with a local residual or without."""
    from implicit_atlas.fitting.code_fit import FitConfig, at_once
    from implicit_atlas.fitting.local import LocalConfig
    from implicit_atlas.training.learning import best_device

    batch = at_once(best_device())
    return FitConfig(iterations=iterations, local=LocalConfig() if local else None, batch=batch)


def mask_files(sources: list[Path], problems: list[Any]) -> list[Any]:
    """Mask files of files, folders and patterns; cases that cannot be used are added to `problems`."""
    from implicit_atlas.io import find_cases

    found = find_cases(sources)
    problems += found.problems
    return list(found.files)


def sources_of(folder: Path, labels: tuple[int, ...], problems: list[Any]) -> list[Any]:
    """Shapes of a store, which must be of these labels where any are given, or mask files of a folder."""
    from implicit_atlas.shapes.store import is_store, load_shapes

    return load_shapes(folder, labels) if is_store(folder) else mask_files([folder], problems)


def list_file(only: str) -> tuple[Path, str]:
    """The file of a list of cases, and the key of the list in it, where it is JSON."""
    file, colon, key = only.rpartition(":")
    return (Path(file), key) if colon and file.endswith(".json") else (Path(only), "")


def wanted_names(only: str, sources: Sequence[Any] = ()) -> set[str]:
    """Names in a text file, one a line, or of a list in a JSON file (FILE.json:KEY); endings do not count.

    Paths (`s01/liver.nii.gz`) stand for the names of the sources that lie there, where none has the file's own name.
    """
    file, key = list_file(only)
    try:
        text = file.read_text(encoding="utf-8-sig")
        lists = json.loads(text) if key else {"": text.splitlines()}
        if key not in lists:
            there = ", ".join(lists) or "none"
            raise InputError(file, f"has no list {key!r}", f"Choose one of its lists: {there}.")
        names = lists[key]
        return {_name_among(sources, Path(name.strip())) for name in names if name.strip()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            only,
            f"cannot be read ({error})",
            "Give a text file with one case name a line, or FILE.json:KEY for a list of names in a JSON file.",
        ) from error


def _name_among(sources: Sequence[Any], entry: Path) -> str:
    """The name of a case that a list has as a name, file or path."""
    from implicit_atlas.io import CaseFile, case_name
    from implicit_atlas.io.formats import is_mask_name

    name = case_name(entry) if is_mask_name(entry.name) else entry.name  # names of cases may hold dots, too
    if len(entry.parts) > 1 and all(source.name != name for source in sources):
        for source in sources:
            place = source.path if isinstance(source, CaseFile) else Path(source.source)
            if place.parts[-len(entry.parts) :] == entry.parts:
                return source.name
    return name


def chosen(sources: list[Any], only: str | None, all_there: bool = True) -> list[Any]:
    """The mask files or shapes that a file names.

    Raises:
        InputError: it names none of them, or, where all should be there, others, too.
    """
    if only is None:
        return sources
    wanted = wanted_names(only, sources)
    found = [source for source in sources if source.name in wanted]
    if all_there:
        _refuse_missing(wanted - {source.name for source in found}, {one.name for one in sources}, only)
    if not found:
        raise InputError(only, "names none of the cases", "Correct the list.")
    return found


def mirrored(shapes: Sequence[Any], wanted: set[str], source: str, there: set[str]) -> list[Any]:
    """Shapes, those of some names mirrored, and how many are said.

    Other names may be of cases that were left out, or lie elsewhere: what is not `there` is named, as it may be a slip.

    Raises:
        InputError: no shape has one of the names.
    """
    count = len(wanted & {shape.name for shape in shapes})
    if not count:
        raise InputError(source, "names none of the cases", "Correct the list.")
    print(f"{source}: {count} of {len(shapes)} shapes are mirrored; it has {len(wanted)} names")
    missing = sorted(wanted - there)
    if missing:
        print(f"WARNING: {source}: names cases that are not there: {', '.join(missing[:SHOWN])}")
    return [shape.mirrored() if shape.name in wanted else shape for shape in shapes]


def check_in_any(stores: Sequence[Path], only: str) -> None:
    """Refuse a list that names cases which no store has.

    Raises:
        InputError: naming them.
    """
    from implicit_atlas.shapes.manifest import read_manifest

    there = {entry.name for store in stores for entry in read_manifest(store).shapes}
    _refuse_missing(wanted_names(only) - there, there, only)


def _refuse_missing(missing: set[str], there: set[str], only: str) -> None:
    if missing:
        problem = f"names cases that are not there: {', '.join(sorted(missing)[:SHOWN])}"
        remedy = f"Name them as `check` does, as {min(there)}." if there else "Correct the list."
        raise InputError(only, problem, remedy)
