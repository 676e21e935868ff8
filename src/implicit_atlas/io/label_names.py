"""Labels as a user names them: ids ("1,2"), or names that the data itself declares ("liver").

Names come from a `dataset.json` beside or above the masks (Medical Segmentation Decathlon and nnU-Net) and
from the segments of .seg.nrrd files, which must agree on a name that is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from implicit_atlas.errors import InputError
from implicit_atlas.io.cases import fixed_part, matches
from implicit_atlas.io.labels import check_label_ids
from implicit_atlas.io.payload import open_input
from implicit_atlas.io.text_headers import nrrd_fields

_MAX_JSON_BYTES = 64 * 2**20
_SEGMENT = re.compile(r"segment(\d+)_(name|labelvalue)")
_NAME_REMEDY = "Use label ids, for example 1,2."
_DATASET = "dataset.json"

Declarations = dict[Path, dict[str, tuple[int, ...]]]
"""Of each file that declares labels the ids of names, these in lower case."""


def parse_labels(text: str, source: Path | Sequence[Path]) -> tuple[int, ...]:
    """Return the label ids that a text such as "1,2" or "left kidney" stands for.

    Args:
        text: ids or names, separated by commas; names are compared without regard to case.
        source: the folder, pattern, file or files of masks, where the names are looked up.

    Raises:
        InputError: an id below 1, a name that the data does not declare (the message says which it does), or one that
            stands for other ids in another file.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise InputError("labels", f"'{text}' names no label", _NAME_REMEDY)
    labels: dict[int, None] = {}
    declared: Declarations | None = None
    for word in words:
        if re.fullmatch(r"[+-]?\d{1,18}", word):
            labels[int(word)] = None
            continue
        declared = _declarations(source) if declared is None else declared
        labels.update(dict.fromkeys(_ids_of(word, declared, source)))
    check_label_ids(tuple(labels))
    return tuple(labels)


def declared_labels(source: Path | Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Return the label ids of every name that the data declares, names in lower case; those of the first file with it.

    Raises:
        InputError: a dataset.json or .seg.nrrd that cannot be read.
    """
    out: dict[str, tuple[int, ...]] = {}
    for names in _declarations(source).values():
        out = {**names, **out}
    return out


def _ids_of(word: str, declared: Declarations, source: Path | Sequence[Path]) -> tuple[int, ...]:
    """The ids of a name, if no two files contradict one another: 3D Slicer numbers the segments of each file anew."""
    name = word.lower()
    having = next((path for path, names in declared.items() if name in names), None)
    if having is None:
        known = sorted({name for names in declared.values() for name in names})
        told = f"; it declares {', '.join(known)}" if known else " in a dataset.json or .seg.nrrd"
        where = source if isinstance(source, Path) else source[0]
        raise InputError(where, f"declares no label '{word}'{told}", _NAME_REMEDY)
    ids = declared[having][name]
    for path, names in declared.items():
        # It has other labels here, or these are another organ's of a file without it.
        own = {name: names[name]} if name in names else names
        for one, theirs in own.items():
            clashes = theirs != ids if one == name else not set(theirs).isdisjoint(ids)
            if clashes:
                problem = f"says otherwise what labels are: {one} is {_shown(theirs)} in it"
                remedy = "Give the segments of all files the same label values."
                raise InputError(path, f"{problem}, and {name} is {_shown(ids)} in {having}", remedy)
    return ids


def _shown(ids: tuple[int, ...]) -> str:
    return ",".join(map(str, ids))


def _declarations(source: Path | Sequence[Path]) -> Declarations:
    """What each dataset.json beside or above the data, or else each of its .seg.nrrd files, declares.

    Of several .seg.nrrd files those that cannot be read are passed over here: they are no cases either.
    """
    out: Declarations = {}
    damaged: list[InputError] = []
    sources = [source] if isinstance(source, Path) else source
    declaring = (
        path
        for one in sources
        for found in matches(one)
        for path in _declaring(found, () if found == one else fixed_part(one))
    )
    for path in dict.fromkeys(declaring):
        if path.name == _DATASET:
            out[path] = _json_names(path)
            continue
        try:
            out[path] = _segment_names(path)
        except InputError as error:
            damaged.append(error)
    if damaged and not out:
        raise damaged[0]
    return out


def _declaring(found: Path, above: Sequence[Path]) -> list[Path]:
    """The files that say what labels of a file or folder are."""
    if _is_segmentation(found):
        return [found]
    folder = found if found.is_dir() else found.parent
    for candidate in (one / _DATASET for one in (folder, folder.parent, *above)):
        if candidate.is_file():
            return [candidate]
    beside = sorted(folder.glob("*")) if found.is_dir() else []
    return [path for path in beside if _is_segmentation(path) and not path.name.startswith(".")]


def _is_segmentation(path: Path) -> bool:
    return path.name.lower().endswith(".seg.nrrd")


def _segment_names(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the names and values of a .seg.nrrd's segments."""
    parts: dict[str, dict[str, str]] = {}
    for key, value in nrrd_fields(path).items():
        match = _SEGMENT.fullmatch(key)
        if match:
            parts.setdefault(match[1], {})[match[2]] = value
    return _merged(
        (part["name"], (int(part["labelvalue"]),))
        for part in parts.values()
        if "name" in part and _is_id(part.get("labelvalue", ""))
    )


def _json_names(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the labels of a dataset.json, which has them by id (MSD) or by name (nnU-Net)."""
    with open_input(path) as stream:
        content = stream.read(_MAX_JSON_BYTES)
    try:
        labels = json.loads(content)["labels"]
        pairs = [_named_ids(str(key), value) for key, value in labels.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        problem = f"declares labels in a way that cannot be read ({error})"
        raise InputError(path, problem, _NAME_REMEDY) from error
    return _merged((name, ids) for name, ids in pairs if ids != (0,))


def _named_ids(key: str, value: Any) -> tuple[str, tuple[int, ...]]:
    if _is_id(key):
        return str(value), (int(key),)
    return key, tuple(int(label) for label in value) if isinstance(value, list) else (int(value),)


def _merged(pairs: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """The ids of each name, in lower case; those of equal names together, and no name without an id."""
    out: dict[str, tuple[int, ...]] = {}
    for name, ids in pairs:
        if ids:
            out[name.lower()] = tuple(dict.fromkeys((*out.get(name.lower(), ()), *ids)))
    return out


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal()
