"""What the commands write: where results may go, tables, and which cases could not be used."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from implicit_atlas.errors import InputError
from implicit_atlas.tasks.formats import DEFAULT, Formats, results_in_any_format

NOT_USED = "not_used.csv"
TABLES = (
    *("reconstructions.csv", "completions.csv", "repairs.csv", "shapes.csv", "correspondence.csv"),
    *("landmarks.csv", "labels.csv", "organs.csv", "modes.csv", "scores.csv", NOT_USED),
    "template.ply",
)

# Tables of masks that are named as their cases, and the columns with these names.
MASKS = {
    **dict.fromkeys(("reconstructions.csv", "completions.csv", "repairs.csv", "organs.csv"), "name"),
    "labels.csv": "case",
}

PATIENCE = 60.0  # seconds to wait for another call that writes a table in the same folder

Row = dict[str, Any]


def keep_files(output: Path | None, sources: Iterable[Path | None]) -> None:
    """Refuse a file to write that is one of the files (or in one of the folders) that the command reads.

    Raises:
        InputError: it is.
    """
    from implicit_atlas.io.cases import matches

    if output is None or not output.exists():
        return
    named = [path for source in sources if source is not None for path in matches(source)]
    read = [path for one in named for path in (one.iterdir() if one.is_dir() else [one])]
    keep_sources([output], read, "Give another file.")


def keep_sources(
    results: Iterable[Path], sources: Iterable[Path], remedy: str = "Give another folder to -o."
) -> None:
    """Refuse results of which one would replace a file that is read, be it of another case.

    Raises:
        InputError: naming that file.
    """
    there = {_identity(path): path for path in results}
    for source in sources:
        identity = _identity(source)
        if identity is not None and identity in there:
            raise InputError(source, f"the result {there[identity]} would replace it", remedy)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others; None of one that is not there, or cannot be, as its name is too long."""
    try:
        at = path.stat()
    except OSError:
        return None
    return at.st_dev, at.st_ino


def results_folder(output: Path, sources: Sequence[Any] = (), formats: Formats = DEFAULT) -> None:
    """Make the folder of results where nothing that is read, and no model or store, would be mixed with them.

    Args:
        output: the folder.
        sources: files and folders that are read; files that were listed, under the names of their cases.
        formats: of the results.

    Raises:
        InputError: a result would replace a file of `sources`, or the folder is one of them, a model or a store.
    """
    from implicit_atlas.atlas.checkpoint import is_model
    from implicit_atlas.io import CaseFile
    from implicit_atlas.io.cases import matches
    from implicit_atlas.io.output import make_folder
    from implicit_atlas.shapes.store import is_store
    from implicit_atlas.tasks.observations import output_name

    another = "Give another folder to -o."
    read = [one for one in sources if isinstance(one, CaseFile)]
    named = [path for one in sources if not isinstance(one, CaseFile) for path in matches(one)]
    listed = {file.path for file in read}
    read += [CaseFile(output_name(path), path) for path in named if path not in listed]
    results = [path for file in read for path in formats.results(output, file.name)]
    keep_sources([*results, *(output / name for name in TABLES)], [file.path for file in read])
    for file in read:
        for folder in {path.parent for path in formats.results(output, "")}:
            if file.path.is_dir() and _is_same(folder, file.path):
                raise InputError(
                    file.path, "is read: results would be taken for cases the next time", another
                )
    if is_model(output) or is_store(output):
        raise InputError(output, "is a model or a store, which results would be mixed with", another)
    make_folder(output)


def _is_same(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and a.samefile(b)


def write_json(path: Path | None, values: dict[str, Any]) -> None:
    """Write values where a file was asked for."""
    from implicit_atlas.io.output import make_folder
    from implicit_atlas.support.files import write_atomic

    if path is not None:
        make_folder(path.parent)
        write_atomic(path, _bytes(json.dumps(values, indent=1, ensure_ascii=False) + "\n"))


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write a table with a line of names; an empty one is not written."""
    from implicit_atlas.support.files import write_atomic

    if not rows:
        return
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, fieldnames=columns, restval="")
    writer.writeheader()
    writer.writerows([{key: _safe(value) for key, value in row.items()} for row in rows])
    write_atomic(path, _bytes(text.getvalue()))


def _bytes(text: str) -> bytes:
    """UTF-8; bytes of a file's name that are none are escaped."""
    return text.encode(errors="backslashreplace")


def add_to_csv(path: Path, rows: list[Row], key: str = "name", gone: str = "") -> None:
    """Write a table with rows of cases, and keep what another call wrote of other cases into the same folder.

    Calls may run beside one another. A file of that name that is no such table is kept beside it. Tables of other
    commands lose the cases whose masks these rows' have replaced.

    Args:
        path: of the table.
        rows: of cases.
        key: the column with their names.
        gone: earlier rows whose names begin like this are dropped.
    """
    if not rows and not (gone and path.exists()):
        return
    names = {str(_safe(row[key])) for row in rows}
    with _in_turn(path.parent):
        before = [row for row in _kept_rows(path, {key}) if row[key] not in names]
        write_csv(path, [row for row in before if not (gone and row[key].startswith(gone))] + rows)
        for other in MASKS.keys() - {path.name} if path.name in MASKS else ():
            _drop_rows(path.parent / other, MASKS[other], names)


def _drop_rows(path: Path, key: str, names: set[str]) -> None:
    """Drop rows of cases whose masks another command has replaced; a table without rows goes."""
    before = _rows(path)
    # A table without doubts is the user's own.
    rows = [row for row in before if row.get(key) not in names or "doubt" not in row]
    if rows != before:
        write_csv(path, rows) if rows else path.unlink()


@contextmanager
def table(path: Path, key: str = "name", gone: str = "") -> Iterator[list[Row]]:
    """Rows for `add_to_csv` in the end, also where the work is stopped or fails: no result without its row."""
    rows: list[Row] = []
    try:
        yield rows
    finally:
        add_to_csv(path, rows, key, gone)


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Hold a folder while a table is changed; on disks that know no locks, go on: no row of a finished job is lost."""
    from implicit_atlas.support.files import lock_folder

    with ExitStack() as stack:
        with suppress(InputError):
            stack.enter_context(lock_folder(folder, PATIENCE))
        yield


def remove_results(output: Path, name: str, read: Iterable[Path] = ()) -> None:
    """Remove what earlier calls wrote of cases of a name, which may hold wildcards.

    Raises:
        InputError: one of them is read now.
    """
    earlier = [path for result in results_in_any_format(Path(), name) for path in output.glob(str(result))]
    keep_sources(earlier, read)
    for path in earlier:
        path.unlink()


def _kept_rows(path: Path, columns: set[str]) -> list[Row]:
    """Rows of a table of ours; a file without these columns is no such table, and is put aside."""
    before = _rows(path)
    ours = before and all(all(row.get(name) for name in columns) for row in before)
    if path.exists() and not ours:
        path.replace(path.with_name(f"{path.name}.before"))
        return []
    return before


def _rows(path: Path) -> list[Row]:
    """Rows of a table; none where there is no table of ours."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _safe(value: Any) -> Any:
    """A cell; a text that begins like a formula, and is no number, would be run by a spreadsheet."""
    if not isinstance(value, str) or value[:1] not in tuple("=+-@"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def say_doubts(output: Path, rows: Sequence[Mapping[str, Any]], what: str, key: str = "name") -> None:
    """Name the results that are not to be trusted, and say how many there are of all."""
    from implicit_atlas.io import printable

    doubtful = [row for row in rows if row["doubt"]]
    for row in doubtful:
        print(f"DOUBTFUL {printable(str(row[key]))}: {row['doubt']}")
    print(f"{output}: {len(rows)} {what}, {len(doubtful)} of them doubtful")


def finish(problems: Sequence[Any], total: int, output: Path | None = None, done: Iterable[str] = ()) -> None:
    """List the cases that could not be used; the exit status says so.

    Args:
        problems: of cases, as `implicit_atlas.io.Problem`.
        total: number of cases.
        output: folder of results: they are listed there, too.
        done: names of cases that are done, and no longer listed there.

    Raises:
        typer.Exit: there are some.
    """
    from implicit_atlas.io import printable

    if output is not None:
        _list_problems(output / NOT_USED, problems, set(done))
    for problem in problems:
        # Most messages begin with the file.
        first = Path(problem.message.partition(": ")[0]).name
        named = re.match(rf"{re.escape(problem.name)}(\W|$)", first)
        text = problem.message if named else f"{problem.name}: {problem.message}"
        print(f"not used: {printable(text)}", file=sys.stderr)
    if problems:
        # Several organs of one label map may fail.
        count = min(len(problems), total)
        others = "; the others are done" if count < total else ""
        print(f"error: {count} of {total} cases could not be used{others}", file=sys.stderr)
        raise typer.Exit(1)


def _list_problems(path: Path, problems: Sequence[Any], done: set[str]) -> None:
    """Add to the list of cases that could not be used; a list that has become empty goes."""
    rows: list[Row] = [
        {"name": p.name, "file": str(p.path), "reason": p.message + _still_there(path.parent, p.name)}
        for p in problems
    ]
    over = {str(_safe(name)) for name in (*done, *(row["name"] for row in rows))}
    if not rows and not path.exists():
        return
    with _in_turn(path.parent):
        before = [row for row in _kept_rows(path, {"name", "file", "reason"}) if row["name"] not in over]
        if before or rows:
            write_csv(path, before + rows)
        else:
            path.unlink(missing_ok=True)


def _still_there(folder: Path, name: str) -> str:
    """What to say of results that an earlier call wrote of a case that cannot be used now."""
    there = any(path.exists() for path in results_in_any_format(folder, name))
    return " Results of an earlier call are still there." if there else ""
