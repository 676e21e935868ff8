"""Tables of landmarks as text: CSV files, and the .fcsv files of 3D Slicer. Parsed point by point, not yet checked."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import printable

WORDS = {1.0: "inside", 0.0: "outside", 0.5: "boundary"}
"""What is written for each occupancy."""

Point = tuple[float, float, float]

_REMEDY = "Correct the line, or export the points again."
_HEADER_REMEDY = "Name the columns in the first line: name,x,y,z in RAS mm (or r,a,s, or l,p,s)."
_AXES = ("xyz", "ras", "lps")
_DELIMITERS = ",;\t"
_OCCUPANCY = {"1": 1.0, "in": 1.0, "inside": 1.0, "0": 0.0, "out": 0.0, "outside": 0.0}
_OCCUPANCY |= {"": 0.5, "on": 0.5, "boundary": 0.5}
# As libraries of tables write them.
_OCCUPANCY |= {"1.0": 1.0, "true": 1.0, "0.0": 0.0, "false": 0.0, "nan": 0.5}
# The word ends where a letter does not follow: "in-3" and "out_2", not "inferior".
_SAID = re.compile(r"\s*(inside|in|outside|out|boundary)(?![^\W\d_])", re.IGNORECASE)
# A text that a spreadsheet would run; apostrophes before it are one more in the file than in the name.
_FORMULA = re.compile(r"'*[=+\-@]")
_CODES = {"RAS": "RAS", "LPS": "LPS", "0": "RAS", "1": "LPS"}
_SLICER_4 = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_SLICER_3 = "label,x,y,z,sel,vis"
_VERSION = "markups fiducial file version"
_NOT_DEFINED = ("0", "1")  # Slicer's numbers for a position that is undefined, or a preview


@dataclass(frozen=True)
class Mark:
    """One point of a file.

    Args:
        position_mm: where it is, RAS mm.
        label: its name.
        occupancy: 1 inside, 0 outside, 0.5 on the boundary; None where the file does not say.
    """

    position_mm: Point
    label: str
    occupancy: float | None


def one_line(text: str) -> str:
    """Return a name without line breaks, control characters, surrogates and white space around it."""
    if text.isprintable():
        return text.strip()
    broken = ("Cc", "Cs", "Zl", "Zp")
    return "".join(" " if unicodedata.category(c) in broken else c for c in text).strip()


def said(*texts: str) -> float | None:
    """Return the occupancy of the first text that begins with the word in, inside, out, outside or boundary."""
    for text in texts:
        match = _SAID.match(text)
        if match:
            return {"i": 1.0, "o": 0.0, "b": 0.5}[match[1][0].lower()]
    return None


def space_of(code: str, path: Path) -> str:
    """Return the space, "RAS" or "LPS", of its name or Slicer's older code (0 or 1).

    Raises:
        InputError: another coordinate system.
    """
    space = _CODES.get(code.strip().upper())
    if space is None:
        problem = f"has the coordinate system '{printable(code[:40])}'"
        raise InputError(path, problem, "Export the points in LPS or RAS coordinates.")
    return space


def in_ras(position_mm: Point, space: str) -> Point:
    """Turn a position between a space and RAS; the same turn leads back."""
    x, y, z = position_mm
    return (0.0 - x, 0.0 - y, z) if space == "LPS" else (x, y, z)


def parse_csv(text: str, path: Path) -> Iterator[Mark]:
    """Yield the points of a CSV text.

    Raises:
        InputError: no columns of coordinates, or a line that does not fit them.
    """
    stream = io.StringIO(text, newline="")
    number, header = next(((n, line) for n, line in enumerate(stream, 1) if line.strip(" \t,;\r\n")), (0, ""))
    delimiter, columns, letters = _layout(header, path)
    rows = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)
    for line, cells in _cells(rows, path, number + 1):
        if any(cells[len(columns) :]):
            problem = f"line {line} has {len(cells)} columns, the first has {len(columns)}"
            remedy = "Put text with commas in quotes; separate by ';' where numbers have commas."
            raise InputError(path, problem, remedy)
        row = dict(zip(columns, cells, strict=False))
        if row.get("defined") != "0":  # as Slicer exports a point that was not placed
            position = _position(row, letters, line, path, decimal_comma=delimiter != ",")
            label = row.get("label") or row.get("name") or row.get("landmark", "")
            if "inside" in columns:
                occupancy = _occupancy(row.get("inside", ""), line, path)
            else:
                occupancy = said(row.get("description", ""), row.get("desc", ""), label)
            space = "LPS" if letters == "lps" else "RAS"
            yield Mark(in_ras(position, space), _as_named(label), occupancy)


def parse_fcsv(text: str, path: Path) -> Iterator[Mark]:
    """Yield the points of an .fcsv text: RAS where it names no space, the columns of Slicer 3 where no version.

    Raises:
        InputError: an unknown space, or a line that does not fit the columns.
    """
    # Slicer 5 puts a lone carriage return into its lines on Windows; on its own it ends lines of old systems.
    lines = (text.replace("\r", "") if "\n" in text else text.replace("\r", "\n")).split("\n")
    notes = [line[1:].partition("=") for line in lines if line.startswith("#")]
    header = {name.strip().lower(): value.strip(" \t,") for name, _, value in notes}
    space = space_of(header.get("coordinatesystem", "RAS"), path)
    usual = _SLICER_4 if _VERSION in header else _SLICER_3
    columns = [name.strip().lower() for name in header.get("columns", usual).split(",")]
    if not set("xyz") <= set(columns):
        raise InputError(path, "has no columns x, y, z in its line '# columns ='", "Export the points again.")
    if columns == _SLICER_4.lower().split(","):
        columns.append("status")  # which Slicer 5 adds to the lines, and names nowhere
    for number, content in enumerate(lines, start=1):
        if content.startswith("#"):
            continue
        for line, cells in _cells(csv.reader([content]), path, number):
            row = dict(zip(columns, cells, strict=False))
            if row.get("status") not in _NOT_DEFINED:
                position = _position(row, "xyz", line, path)
                label = row.get("label", "")
                yield Mark(in_ras(position, space), label, said(row.get("desc", ""), label))


def csv_text(marks: Iterable[Mark]) -> str:
    """Return points as a CSV text: name,x,y,z in RAS mm, and inside where occupancies are known."""
    marks = list(marks)
    known = any(mark.occupancy is not None for mark in marks)
    rows = [["name", "x", "y", "z", *(["inside"] if known else [])]]
    for mark in marks:
        name = f"'{mark.label}" if _FORMULA.match(mark.label) else mark.label
        word = [] if mark.occupancy is None else [WORDS[mark.occupancy]]
        rows.append([name, *map(repr, mark.position_mm), *word])
    return _joined(rows)


def fcsv_text(marks: Iterable[Mark]) -> str:
    """Return points as an .fcsv text in LPS mm; the description says inside, outside or boundary."""
    rows = []
    for number, mark in enumerate(marks, start=1):
        place = map(repr, in_ras(mark.position_mm, "LPS"))
        word = "" if mark.occupancy is None else WORDS[mark.occupancy]
        rows.append([str(number), *place, *"0001110", mark.label, word, ""])
    return f"# {_VERSION.capitalize()} = 4.13\n# CoordinateSystem = LPS\n# columns = {_SLICER_4}\n" + _joined(
        rows
    )


def _joined(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _layout(header: str, path: Path) -> tuple[str, list[str], str]:
    """Return what separates the columns of a CSV file, their names, and the letters of its coordinates."""
    for delimiter in _DELIMITERS:
        for _, cells in _cells(csv.reader([header], delimiter=delimiter, skipinitialspace=True), path):
            columns = [cell.lower() for cell in cells]
            for letters in _AXES:
                if set(letters) <= set(columns):
                    return delimiter, columns, letters
    raise InputError(path, "has no columns x, y, z in its first line", _HEADER_REMEDY)


def _cells(rows: Iterable[list[str]], path: Path, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that is not blank."""
    number = first - 1
    try:
        for number, cells in enumerate(rows, start=first):
            if any(cell.strip() for cell in cells):
                yield number, [one_line(cell) for cell in cells]
    except csv.Error as error:
        raise InputError(path, f"line {number + 1} cannot be read as a table ({error})", _REMEDY) from error


def _position(
    row: dict[str, str], letters: str, line: int, path: Path, *, decimal_comma: bool = False
) -> Point:
    if not set(letters) <= set(row):
        problem = f"line {line} has too few columns: {', '.join(sorted(set(letters) - set(row)))} missing"
        raise InputError(path, problem, _REMEDY)
    x, y, z = (_number(row[letter], letter, line, path, decimal_comma) for letter in letters)
    return x, y, z


def _number(text: str, column: str, line: int, path: Path, decimal_comma: bool) -> float:
    try:
        if "_" in text:  # which Python takes for a separator
            raise ValueError
        return float(text.replace(",", ".") if decimal_comma else text)
    except ValueError as error:
        problem = f"line {line} has '{printable(text[:40])}' for {column}, which is no number"
        raise InputError(path, problem, _REMEDY) from error


def _occupancy(text: str, line: int, path: Path) -> float:
    occupancy = _OCCUPANCY.get(text.lower())
    if occupancy is None:
        problem = f"line {line} has '{printable(text[:40])}' for inside"
        raise InputError(path, problem, "Use 1 for inside, 0 for outside, or leave it empty on the boundary.")
    return occupancy


def _as_named(text: str) -> str:
    """Undo what keeps a spreadsheet from running a name as a formula."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
