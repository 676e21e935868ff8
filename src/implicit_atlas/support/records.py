"""JSON from outside into frozen dataclasses: keys known, types checked, nothing filled in silently."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import numbers
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union

from implicit_atlas.errors import InputError

REMEDY = "Correct the file, or write it again with this version of implicit-atlas."
_ARTICLES = {bool: "true or false", int: "an integer", float: "a finite number", str: "a text"}
T = TypeVar("T")


def from_json(cls: type[T], data: object, source: str | Path, remedy: str = REMEDY) -> T:
    """Build a frozen dataclass, and those nested in it, from parsed JSON.

    The inverse of `dataclasses.asdict`. Fields may be bool, int, float, str, None, Literal, unions, tuples,
    dict[str, ...] and dataclasses. Every field must be there: a default that has changed since the file was
    written must not change what the file means. An integer serves as a float, nothing else is converted.

    Args:
        cls: the dataclass to build.
        data: what `parse_json` returned, or a part of it.
        source: the file, for the message.
        remedy: what the user can do when the data does not fit.

    Raises:
        InputError: an unknown or missing key, a value of another type, or a value that the class refuses.
    """
    try:
        return _record(cls, data, "")
    except _MismatchError as error:
        raise InputError(source, str(error), remedy) from error


def parse_json(data: bytes, source: str | Path, remedy: str = REMEDY) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no key twice, no NaN or Infinity.

    Raises:
        InputError: the bytes are not such an object.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(source, f"is not valid JSON ({error})", remedy) from error
    if not isinstance(value, dict):
        raise InputError(source, "is not a JSON object", remedy)
    return value


def dump_json(data: Mapping[str, Any]) -> bytes:
    """JSON text as UTF-8 that `parse_json` reads back; ValueError for NaN and infinite numbers."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        return (text + "\n").encode("utf-8")
    except UnicodeEncodeError:  # names of files need not be UTF-8
        return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode("ascii")


def check_choices(record: Any, source: str) -> None:
    """Refuse values that are none of a Literal's; whole numbers of NumPy, which JSON does not know, become Python's.

    Raises:
        InputError: naming the field.
    """
    for name, kind in typing.get_type_hints(type(record)).items():
        value = getattr(record, name)
        choices = typing.get_args(kind)
        if typing.get_origin(kind) is Literal and value not in choices:
            remedy = f"Choose one of: {', '.join(map(str, choices))}."
            raise InputError(source, f"cannot have {name} {value!r}", remedy)
        if kind is int and isinstance(value, numbers.Integral):
            object.__setattr__(record, name, int(value))


class _MismatchError(ValueError):
    """A value that does not fit its field; the message names the field."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _record(cls: type[T], data: object, where: str) -> T:
    if not isinstance(data, Mapping):
        raise _MismatchError(f"{_field(where)} is {_short(data)}, not an object")
    fields = {field.name for field in dataclasses.fields(typing.cast(Any, cls)) if field.init}
    for key in data:
        if key not in fields:
            close = difflib.get_close_matches(str(key), sorted(fields), n=1)
            hint = f", did you mean {close[0]!r}" if close else ""
            raise _MismatchError(f"{_field(_join(where, key))} is unknown{hint}")
    missing = sorted(fields - set(data))
    if missing:
        raise _MismatchError(f"{_field(_join(where, missing[0]))} is missing")
    hints = typing.get_type_hints(cls)
    values = {name: _convert(hints[name], data[name], _join(where, name)) for name in fields}
    try:
        return cls(**values)
    except (ValueError, InputError) as error:
        raise _MismatchError(f"{_field(where)} is refused: {error}") from error


def _convert(kind: Any, value: object, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any or kind is object:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(typing.cast(type, kind), value, where)
    if origin in (Union, types.UnionType):
        return _union(typing.get_args(kind), value, where)
    if origin is Literal:
        return _literal(typing.get_args(kind), value, where)
    if origin is tuple:
        return _tuple(typing.get_args(kind), value, where)
    if origin in (dict, Mapping):
        return _mapping(typing.get_args(kind)[1], value, where)
    return _scalar(kind, value, where)


def _union(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    # The exact type first: 1 in an `int | float` field stays an integer.
    failures = []
    for kind in sorted(kinds, key=lambda kind: kind is not type(value)):
        try:
            return _convert(kind, value, where)
        except _MismatchError as error:
            failures.append(str(error))
    raise _MismatchError("; ".join(failures))


def _literal(options: tuple[Any, ...], value: object, where: str) -> Any:
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    raise _MismatchError(f"{_field(where)} is {_short(value)}, not one of {', '.join(map(repr, options))}")


def _tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _MismatchError(f"{_field(where)} is {_short(value)}, not a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _MismatchError(f"{_field(where)} has {len(value)} values, not {len(kinds)}")
    return tuple(
        _convert(kind, item, f"{where}[{index}]")
        for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _mapping(kind: Any, value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _MismatchError(f"{_field(where)} is {_short(value)}, not an object")
    return {key: _convert(kind, item, _join(where, key)) for key, item in value.items()}


def _scalar(kind: Any, value: object, where: str) -> Any:
    if kind in (None, type(None)):
        fits = value is None
    elif kind is float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    elif kind in _ARTICLES:
        fits = type(value) is kind
    else:
        raise TypeError(f"{_field(where)} has the type {kind!r}, which JSON cannot fill")
    if not fits:
        raise _MismatchError(f"{_field(where)} is {_short(value)}, not {_ARTICLES.get(kind, 'null')}")
    return _finite(typing.cast(float, value), where) if kind is float else value


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _MismatchError(f"{_field(where)} is {_short(value)}, not {_ARTICLES[float]}")
    return number


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _field(where: str) -> str:
    return f"the field {where!r}" if where else "the content"


def _short(value: object) -> str:
    text = "an object" if isinstance(value, Mapping) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
