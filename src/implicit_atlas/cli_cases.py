"""What the commands share: choosing cases, writing tables, and saying which cases could not be used."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from implicit_atlas.errors import InputError

FEW_AT_ONCE = 8  # cases that are fitted together on a CPU
RESULTS = (".nii.gz", ".mrk.json")  # endings of what is written for a case, beside tables


def keep_files(output: Path | None, sources: Iterable[Path | None]) -> None:
    """Refuse a file to write that is one of the files (or in one of the folders) that the command reads.

    Raises:
        InputError: it is.
    """
    if output is None or not output.exists():
        return
    for source in sources:
        read = [] if source is None else list(source.iterdir()) if source.is_dir() else [source]
        if any(path.exists() and path.samefile(output) for path in read):
            raise InputError(
                output, "is read by this command: the result would replace it", "Give another file."
            )


def labels_of(text: str, source: Path) -> tuple[int, ...]:
    """Label ids of what was typed; none for an empty text."""
    from implicit_atlas.io import parse_labels

    return parse_labels(text, source) if text else ()


def load_atlas(path: Path) -> Any:
    """A model, of a folder or by its name, on the fastest device of this machine."""
    from implicit_atlas import load
    from implicit_atlas.learning import best_device

    return load(str(path)).to(best_device())


def fit_config(iterations: int, local: bool) -> Any:
    """How to fit: at most so many iterations, with a local residual or without."""
    from implicit_atlas.code_fit import FitConfig
    from implicit_atlas.learning import best_device
    from implicit_atlas.local import LocalConfig

    # On a CPU many at once are no faster, and results of few are written sooner.
    batch = FitConfig.batch if best_device() != "cpu" else FEW_AT_ONCE
    return FitConfig(iterations=iterations, local=LocalConfig() if local else None, batch=batch)


def mask_paths(sources: list[Path], problems: list[Any]) -> list[Path]:
    """Mask files of files and folders; cases that cannot be used are added to `problems`."""
    from implicit_atlas.io import find_cases

    found = find_cases(sources)
    problems += found.problems
    return list(found.paths)


def keep_sources(output: Path, sources: Iterable[Path]) -> None:
    """Refuse a folder in which a result would be written over a file that the command reads.

    Raises:
        InputError: there is such a file.
    """
    from implicit_atlas.tasks_files import output_name

    for source in sources:
        for ending in RESULTS:
            target = output / f"{output_name(source)}{ending}"
            if target.exists() and source.exists() and target.samefile(source):
                raise InputError(
                    source, f"a result in {output} would replace it", "Give another folder to -o."
                )


def sources_of(folder: Path, problems: list[Any]) -> list[Any]:
    """Shapes of a store, or mask files of a folder."""
    from implicit_atlas.store import is_store, open_store

    return list(open_store(folder)) if is_store(folder) else mask_paths([folder], problems)


def _name(source: Any) -> str:
    from implicit_atlas.io import case_name

    return case_name(source) if isinstance(source, Path) else source.name


def list_file(only: str) -> tuple[Path, str]:
    """The file of a list of cases, and the key of the list in it, where it is JSON."""
    file, colon, key = only.rpartition(":")
    return (Path(file), key) if colon and file.endswith(".json") else (Path(only), "")


def wanted_names(only: str) -> set[str]:
    """Names in a text file, one a line, or of a list in a JSON file (FILE.json:KEY); endings do not count."""
    from implicit_atlas.io import case_name
    from implicit_atlas.io.formats import is_mask_name

    file, key = list_file(only)
    try:
        text = file.read_text(encoding="utf-8")
        lists = json.loads(text) if key else {"": text.splitlines()}
        if key not in lists:
            there = ", ".join(lists) or "none"
            raise InputError(file, f"has no list {key!r}", f"Choose one of its lists: {there}.")
        names = lists[key]
        files = [Path(name.strip()).name for name in names if name.strip()]
        # Names of cases may hold dots, too.
        return {case_name(Path(file)) if is_mask_name(file) else file for file in files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            only,
            f"cannot be read ({error})",
            "Give a text file with one case name a line, or FILE.json:KEY for a list of names in a JSON file.",
        ) from error


def chosen(sources: list[Any], only: str | None) -> list[Any]:
    """The mask files or shapes that a file names."""
    if only is None:
        return sources
    wanted = wanted_names(only)
    _refuse_missing(wanted - {_name(source) for source in sources}, only)
    return [source for source in sources if _name(source) in wanted]


def _refuse_missing(missing: set[str], only: str) -> None:
    if missing:
        raise InputError(
            only, f"names cases that are not there: {', '.join(sorted(missing)[:5])}", "Correct the list."
        )


def write_json(path: Path | None, values: dict[str, Any]) -> None:
    """Write values where a file was asked for."""
    from implicit_atlas.files import write_atomic
    from implicit_atlas.io.output import make_folder

    if path is not None:
        make_folder(path.parent)
        write_atomic(path, _bytes(json.dumps(values, indent=1, ensure_ascii=False) + "\n"))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table with a line of names; an empty one is not written."""
    from implicit_atlas.files import write_atomic

    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows([{key: _safe(value) for key, value in row.items()} for row in rows])
    write_atomic(path, _bytes(text.getvalue()))


def _bytes(text: str) -> bytes:
    """UTF-8; bytes of a file's name that are none are escaped."""
    return text.encode(errors="backslashreplace")


def add_to_csv(path: Path, rows: list[dict[str, Any]], key: str = "name") -> None:
    """Write a table with rows of cases, and keep what an earlier call wrote of other cases into the same folder."""
    before: list[dict[str, Any]] = []
    if path.exists() and rows:
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                before = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error):
            before = []  # not a table of ours
    names = {str(_safe(row[key])) for row in rows}
    kept = [row for row in before if set(row) == set(rows[0]) and row[key] not in names]
    write_csv(path, kept + rows)


def _safe(value: Any) -> Any:
    """A cell; a text that begins like a formula would be run by a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@") else value


def finish(problems: Any, total: int) -> None:
    """List the cases that could not be used; the exit status says so."""
    from implicit_atlas.io import printable

    for problem in problems:
        print(f"not used: {printable(problem.name)}: {printable(problem.message)}", file=sys.stderr)
    if problems:
        others = "; the others are done" if len(problems) < total else ""
        print(f"error: {len(problems)} of {total} cases could not be used{others}", file=sys.stderr)
        raise typer.Exit(1)
