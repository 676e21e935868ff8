"""JSON into dataclasses: round trip, and every way in which data may not fit."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_atlas.errors import InputError
from implicit_atlas.support.records import check_choices, dump_json, from_json, parse_json


@dataclasses.dataclass(frozen=True)
class Decoder:
    channels: tuple[int, ...]
    slope: float


@dataclasses.dataclass(frozen=True)
class Config:
    decoder: Decoder
    name: str
    kind: Literal["box", "isotropic"] = "box"
    shape: tuple[int, float] = (1, 0.5)
    seed: int | None = None
    scale: int | float = 1
    flag: bool = False
    extra: dict[str, Decoder] = dataclasses.field(default_factory=dict)
    computed: int = dataclasses.field(init=False, default=3)

    def __post_init__(self) -> None:
        if self.name == "":
            raise ValueError("name is empty")


finite = st.floats(allow_nan=False, allow_infinity=False)
decoders = st.builds(Decoder, st.lists(st.integers()).map(tuple), finite)
configs = st.builds(
    Config,
    decoder=decoders,
    name=st.text(min_size=1),
    kind=st.sampled_from(["box", "isotropic"]),
    shape=st.tuples(st.integers(), finite),
    seed=st.none() | st.integers(),
    scale=st.integers() | finite,
    flag=st.booleans(),
    extra=st.dictionaries(st.text(), decoders, max_size=2),
)


def as_data(config: Config) -> dict:
    data = dataclasses.asdict(config)
    del data["computed"]
    return data


@settings(deadline=None)
@given(configs)
def test_round_trip_keeps_values_and_types(config: Config) -> None:
    back = from_json(Config, parse_json(dump_json(as_data(config)), "c.json"), "c.json")
    assert back == config
    assert type(back.scale) is type(config.scale)


DATA = as_data(Config(Decoder((8, 4), 0.1), "liver"))


def test_integer_serves_as_a_float_and_becomes_one() -> None:
    assert type(from_json(Decoder, {"channels": [], "slope": 1}, "c.json").slope) is float


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"chanels": 1}, "the field 'chanels' is unknown"),
        ({"nam": 1}, "did you mean 'name'"),
        ({"computed": 3}, "'computed' is unknown"),
        ({"name": 3}, "'name' is 3, not a text"),
        ({"name": ""}, "name is empty"),
        ({"kind": "sphere"}, "'kind' is 'sphere', not one of 'box', 'isotropic'"),
        ({"seed": "1"}, "'seed'"),
        ({"seed": True}, "'seed'"),
        ({"flag": 1}, "'flag' is 1, not true or false"),
        ({"shape": [1]}, "has 1 values, not 2"),
        ({"shape": {"a": 1}}, "'shape' is an object, not a list"),
        ({"scale": float("inf")}, "'scale'"),
        ({"decoder": 3}, "'decoder' is 3, not an object"),
        (
            {"decoder": {"channels": [1, "x"], "slope": 1.0}},
            r"'decoder\.channels\[1\]' is 'x', not an integer",
        ),
        ({"decoder": {"channels": [1], "slope": 10**400}}, r"'decoder\.slope' is 1000"),
        ({"decoder": {"channels": [1]}}, r"'decoder\.slope' is missing"),
        ({"extra": {"a": {}}}, r"'extra\.a\.channels' is missing"),
        ({"extra": []}, "'extra' is \\[\\], not an object"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        from_json(Config, {**DATA, **change}, "c.json")
    assert caught.value.source == "c.json"


def test_missing_key_is_refused_though_the_field_has_a_default() -> None:
    with pytest.raises(InputError, match="'kind' is missing"):
        from_json(Config, {key: value for key, value in DATA.items() if key != "kind"}, "c.json")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_bad_json_is_refused(text: bytes) -> None:
    with pytest.raises(InputError, match=r"c\.json"):
        parse_json(text, "c.json")


def test_numbers_that_json_lacks_are_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        dump_json({"a": float("nan")})


def test_names_that_are_no_text_come_back() -> None:
    data = {"name": "M\udcfcller", "other": "Größe"}
    assert parse_json(dump_json(data), "c.json") == data


class Chosen:
    """As a dataclass, but with values that are checked by nobody else."""

    kind: Literal["a", "b"]
    count: int

    def __init__(self, kind: object, count: object) -> None:
        self.__dict__.update(kind=kind, count=count)


def test_what_is_no_choice_is_named_and_numbers_of_numpy_become_pythons() -> None:
    chosen = Chosen("b", np.int64(3))
    check_choices(chosen, "network")
    assert type(chosen.count) is int and chosen.count == 3
    with pytest.raises(InputError, match=r"network: cannot have kind 'c'\. Choose one of: a, b"):
        check_choices(Chosen("c", 3), "network")
