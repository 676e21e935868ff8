"""Labels as a user names them: ids ("1,2"), or names that the data itself declares ("liver").

Names come from a `dataset.json` beside or above the masks (Medical Segmentation Decathlon and nnU-Net) and
from the segments of a .seg.nrrd.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
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


def parse_labels(text: str, source: Path) -> tuple[int, ...]:
    """Return the label ids that a text such as "1,2" or "left kidney" stands for.

    Args:
        text: ids or names, separated by commas; names are compared without regard to case.
        source: the folder or file of masks, where the names are looked up.

    Raises:
        InputError: an id below 1, or a name that the data does not declare (the message says which it does).
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise InputError("labels", f"'{text}' names no label", _NAME_REMEDY)
    labels: dict[int, None] = {}
    names: dict[str, tuple[int, ...]] | None = None
    for word in words:
        if re.fullmatch(r"[+-]?\d{1,18}", word):
            labels[int(word)] = None
            continue
        names = declared_labels(source) if names is None else names
        if word.lower() not in names:
            known = (
                f"; it declares {', '.join(sorted(names))}" if names else " in a dataset.json or .seg.nrrd"
            )
            raise InputError(source, f"declares no label '{word}'{known}", _NAME_REMEDY)
        labels.update(dict.fromkeys(names[word.lower()]))
    check_label_ids(tuple(labels))
    return tuple(labels)


def declared_labels(source: Path) -> dict[str, tuple[int, ...]]:
    """Return the label ids of every name that the data declares, names in lower case.

    Raises:
        InputError: a dataset.json or .seg.nrrd that cannot be read.
    """
    first = matches(source)[0]
    if first.name.lower().endswith(".seg.nrrd"):
        return _segment_names(first)
    folder = first if first.is_dir() else first.parent
    above = [folder, folder.parent, *(() if first == source else fixed_part(source))]
    for candidate in (one / "dataset.json" for one in above):
        if candidate.is_file():
            return _json_names(candidate)
    segmentations = sorted(folder.glob("*.seg.nrrd")) if first.is_dir() else []
    return _segment_names(segmentations[0]) if segmentations else {}


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
