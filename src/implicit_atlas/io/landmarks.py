"""Lists of landmarks or clicks: the Landmarks type, read from and written to CSV, .mrk.json and .fcsv files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from implicit_atlas.errors import InputError
from implicit_atlas.io.formats import printable
from implicit_atlas.io.landmark_tables import (
    WORDS,
    Mark,
    csv_text,
    fcsv_text,
    in_ras,
    one_line,
    parse_csv,
    parse_fcsv,
    said,
    space_of,
)
from implicit_atlas.io.output import make_folder
from implicit_atlas.io.payload import DAMAGED_REMEDY, open_input, stored_bytes
from implicit_atlas.support.files import write_atomic

MAX_BYTES = 50_000_000
"""Largest file that is read."""

MAX_POINTS = 1_000_000
"""Most points that are read."""

MAX_COORDINATE_MM = 1e5
"""Largest coordinate that is taken for one of a scan."""

LANDMARK_ENDINGS = (".csv", ".mrk.json", ".fcsv")
_MARKUPS_REMEDY = "Save the points again in 3D Slicer as a point list (.mrk.json)."
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
_TYPES = ("Fiducial", "Curve", "ClosedCurve", "Line", "Angle", "Plane")
_UNITS_MM = {"mm": 1.0, "um": 1e-3}
_RAS_AXES_IN_LPS = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Points with names.

    Args:
        points_mm: where they are, RAS mm.
        labels: the name of each, on one line; empty where the file has none.
        occupancy: 1 inside, 0 outside, 0.5 on the boundary; None where the file says nothing.
        path: the file that they are from.
    """

    points_mm: Float[np.ndarray, "n 3"]
    labels: tuple[str, ...]
    occupancy: Float[np.ndarray, " n"] | None
    path: Path


def read_landmarks(path: str | Path) -> Landmarks:
    """Read a list of points by its suffix; points without a position are left out.

    - `.csv`: the first line names the columns: x, y, z are RAS mm as in all CSV files of this project; r, a, s
      and l, p, s say their space themselves. `label`, `name` or `landmark`, and `inside` (1, in or inside; 0, out
      or outside; empty, on or boundary) may be there. Commas, semicolons (with decimal commas, too) or tabs separate.
    - `.mrk.json`: markups of 3D Slicer, one after another; LPS unless they say RAS. A point is inside, outside or
      on the boundary if its description, or else its label, or else the name of its markup, begins with the word
      in, inside, out, outside or boundary. If only some points say so, the others are on the boundary.
    - `.fcsv`: the older lists of 3D Slicer; RAS unless they say LPS. Description and label count as above.

    Raises:
        InputError: anything that makes the file unusable.
    """
    path = Path(path)
    parse = {".csv": parse_csv, ".mrk.json": _parse_markups, ".fcsv": parse_fcsv}[_suffix(path)]
    try:
        marks = list(islice(parse(_text(path), path), MAX_POINTS + 1))
        return _checked(marks, path)
    except MemoryError as error:
        raise InputError(path, "does not fit into memory", "Keep only the points that matter.") from error


def write_landmarks(path: str | Path, landmarks: Landmarks) -> None:
    """Write points by the suffix: .csv (RAS), .mrk.json or .fcsv (both LPS, as 3D Slicer does).

    Names are kept on one line. In the last two a name that begins as "in" or "out" is read as saying so if there
    are no occupancies.

    Args:
        path: the file; its folder is made if it is missing.
        landmarks: at least one point.

    Raises:
        InputError: another suffix, points that would not be read again, or the file cannot be written.
    """
    path = Path(path)
    write = {".csv": csv_text, ".mrk.json": _markups_text, ".fcsv": fcsv_text}[_suffix(path)]
    count = len(landmarks.points_mm)
    occupancy = [None] * count if landmarks.occupancy is None else landmarks.occupancy.tolist()
    if len(landmarks.labels) != count or len(occupancy) != count or not {*occupancy} <= {None, *WORDS}:
        problem = (
            f"is not written: {count} points need as many names, and an occupancy of 0, 0.5 or 1 each or none"
        )
        raise InputError(path, problem, "Correct the names and occupancies.")
    columns = zip(landmarks.points_mm.astype(np.float64).tolist(), landmarks.labels, occupancy, strict=True)
    marks = [Mark((x, y, z), one_line(label), inside) for (x, y, z), label, inside in columns]
    _checked(marks, path)
    make_folder(path.parent)
    write_atomic(path, write(marks).encode())


def _suffix(path: Path) -> str:
    for suffix in LANDMARK_ENDINGS:
        if path.name.lower().endswith(suffix):
            return suffix
    problem = f"'{printable(path.suffix)}' is no format of landmarks"
    raise InputError(path, problem, "Use .csv, .mrk.json or .fcsv.")


def _text(path: Path) -> str:
    """Return a file's text, having held its size against the limit before it is read."""
    with open_input(path) as stream:
        size = stored_bytes(stream)
        content = stream.read(MAX_BYTES) if size <= MAX_BYTES else b""
    if size > MAX_BYTES:
        problem = (
            f"has {size / 1e6:.0f} MB, too many for a list of landmarks ({MAX_BYTES / 1e6:.0f} MB at most)"
        )
        raise InputError(path, problem, "Keep only the points that matter.")
    if not content.strip():
        raise InputError(path, "is empty", DAMAGED_REMEDY)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, "is not text in UTF-8", "Save it as UTF-8 text.") from error
    if "\0" in text:
        raise InputError(path, "is binary, or text in UTF-16", "Save it as UTF-8 text.")
    return text


def _checked(marks: list[Mark], path: Path) -> Landmarks:
    """Return points together, having refused those that cannot be meant."""
    if not marks:
        raise InputError(
            path, "has no points", "Place points (a completion needs four), and save the list again."
        )
    if len(marks) > MAX_POINTS:
        problem = f"has more than {MAX_POINTS} points"
        raise InputError(path, problem, "Keep only the points that matter.")
    points = np.array([mark.position_mm for mark in marks], np.float64)
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        problem = f"has {len(bad)} points with coordinates that are NaN or infinite, the first is number {bad[0] + 1}"
        raise InputError(path, problem, "Remove these points, or place them.")
    largest_mm = float(np.abs(points).max())
    if largest_mm > MAX_COORDINATE_MM:
        problem = f"has coordinates up to {largest_mm:.3g} mm"
        raise InputError(path, problem, "Give the points in mm of the scan's world space.")
    labels = tuple(mark.label for mark in marks)
    said_here = [0.5 if mark.occupancy is None else mark.occupancy for mark in marks]
    known = any(mark.occupancy is not None for mark in marks)
    return Landmarks(points, labels, np.array(said_here, np.float64) if known else None, path)


def _parse_markups(text: str, path: Path) -> Iterator[Mark]:
    """Yield the points of a .mrk.json text (Slicer's markups schema 1.0.3), all markups one after another."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not valid JSON ({str(error)[:100]})", _MARKUPS_REMEDY) from error
    for markup in _list(_object(document, "the file", path).get("markups"), "markups", path):
        yield from _marks_of(_object(markup, "a markup", path), path)


def _marks_of(markup: dict[str, Any], path: Path) -> Iterator[Mark]:
    if markup.get("type", "Fiducial") not in _TYPES:
        problem = f"has a markup that is none of {', '.join(_TYPES)}"
        raise InputError(path, problem, _MARKUPS_REMEDY)
    code = markup.get("coordinateSystem", "LPS")
    space = space_of(str(code) if isinstance(code, str | int) else type(code).__name__, path)
    scale = _scale(markup.get("coordinateUnits", "mm"), path)
    name = _string(markup, "name", path)
    for entry in _list(markup.get("controlPoints", []), "controlPoints", path):
        point = _object(entry, "a control point", path)
        if point.get("positionStatus", "defined") != "defined" or "position" not in point:
            continue
        label = _string(point, "label", path)
        x, y, z = in_ras(_vector(point["position"], path), space)
        occupancy = said(_string(point, "description", path), label, name)
        yield Mark((x * scale, y * scale, z * scale), one_line(label), occupancy)


def _object(value: object, what: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(path, f"is no markups file: {what} is no JSON object", _MARKUPS_REMEDY)
    return value


def _list(value: object, what: str, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(path, f"is no markups file: '{what}' is no list", _MARKUPS_REMEDY)
    return value


def _string(holder: dict[str, Any], key: str, path: Path) -> str:
    value = holder.get(key, "")
    if not isinstance(value, str):
        raise InputError(path, f"has a '{key}' that is no text", _MARKUPS_REMEDY)
    return value


def _scale(units: object, path: Path) -> float:
    """Return the mm of a unit, which the schema writes as "mm" or as ["mm", "UCUM", "millimeter"]."""
    unit = units[0] if isinstance(units, list) and units else units
    if not isinstance(unit, str) or unit not in _UNITS_MM:
        raise InputError(path, "has coordinates in a unit that is not mm or um", "Save the points in mm.")
    return _UNITS_MM[unit]


def _vector(value: object, path: Path) -> tuple[float, float, float]:
    if isinstance(value, list) and len(value) == 3 and all(type(part) in (int, float) for part in value):
        try:
            return float(value[0]), float(value[1]), float(value[2])
        except OverflowError:
            pass
    raise InputError(path, "has a point whose position is not three numbers", _MARKUPS_REMEDY)


def _markups_text(marks: list[Mark]) -> str:
    points = [
        {
            "id": str(number),
            "label": mark.label,
            "description": "" if mark.occupancy is None else WORDS[mark.occupancy],
            "associatedNodeID": "",
            "position": list(in_ras(mark.position_mm, "LPS")),
            "orientation": _RAS_AXES_IN_LPS,
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, mark in enumerate(marks, start=1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
    }
    return json.dumps({"@schema": _SCHEMA, "markups": [markup]}, indent=1, ensure_ascii=False) + "\n"
