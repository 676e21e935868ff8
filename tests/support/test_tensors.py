"""Tensor files: exact round trip, lying headers, and the state of a run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from implicit_atlas.errors import InputError, TrainingError
from implicit_atlas.support import tensors as module
from implicit_atlas.support.files import PARTIAL_PATTERN
from implicit_atlas.support.tensors import encode_tensors, load_state, read_tensors, save_state, specs_of

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]


def claim(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def write_raw(path: Path, header: Any, payload: bytes = b"\0" * 8, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + payload)
    return path


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [*DTYPES, torch.bool])
    def test_values_shapes_and_dtypes(self, tmp_path: Path, dtype: torch.dtype) -> None:
        tensors = {"a": torch.arange(6).reshape(2, 3).to(dtype), "empty": torch.zeros(0, 3, dtype=dtype)}
        tensors["scalar"] = torch.ones((), dtype=dtype)
        (tmp_path / "t").write_bytes(encode_tensors(tensors))
        back = read_tensors(tmp_path / "t", specs_of(tensors))
        assert specs_of(back) == specs_of(tensors)
        assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())

    def test_views_ties_and_memory_formats(self, tmp_path: Path) -> None:
        base = torch.randn(2, 3, 4, 4)
        tensors = {"base": base, "tied": base, "view": base[:, 1:], "turned": base.transpose(1, 2)}
        tensors["last"] = base.to(memory_format=torch.channels_last)
        tensors["learned"] = torch.nn.Parameter(base[0])
        (tmp_path / "t").write_bytes(encode_tensors(tensors))
        back = read_tensors(tmp_path / "t")
        assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())

    def test_result_may_be_written_to(self, tmp_path: Path) -> None:
        (tmp_path / "t").write_bytes(encode_tensors({"a": torch.zeros(3)}))
        assert read_tensors(tmp_path / "t")["a"].add_(1).sum() == 3

    def test_complex_is_refused(self) -> None:
        with pytest.raises(ValueError, match="complex64"):
            encode_tensors({"a": torch.zeros(1, dtype=torch.complex64)})

    def test_more_tensors_than_are_read_are_not_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_TENSORS", 1)
        with pytest.raises(ValueError, match="more than one file"):
            encode_tensors({"a": torch.zeros(1), "b": torch.zeros(1)})


class TestHeader:
    @pytest.mark.parametrize(
        ("header", "problem"),
        [
            ({"a": claim(offsets=(0, 16))}, "does not fill"),
            ({"a": claim(shape=(3,))}, "does not fill"),
            ({"a": claim(shape=(-2,), offsets=(8, 0))}, "not a count"),
            ({"a": claim(shape=(2.0,))}, "not a count"),
            ({"a": claim(shape=(1 << 62,), offsets=(0, 1 << 64))}, "not a count"),
            ({"a": claim(shape=(4,), offsets=(0, 16))}, "claims 16"),
            ({"a": claim(), "b": claim()}, "overlaps"),
            ({"a": claim(shape=(1,), offsets=(4, 8))}, "gap"),
            ({"a": claim(shape=(1,), offsets=(0, 4))}, "trailing bytes"),
            ({}, "trailing bytes"),
            ({"a": claim(dtype="F4")}, "dtype"),
            ({"a": claim(dtype="C64", shape=(1,))}, "dtype"),
            ({"a": {**claim(), "dtype": ["F32"]}}, "wrong claim"),
            ({"a": {**claim(), "more": 1}}, "wrong claim"),
            ({"a": {**claim(), "shape": 2}}, "wrong claim"),
            ({"a": claim(offsets=(0, 4, 8))}, "wrong claim"),
            ({"a": 3}, "wrong claim"),
            ({"__metadata__": {"a": 1}, "a": claim()}, "metadata"),
            ({"__metadata__": [], "a": claim()}, "metadata"),
            (b"[]", "JSON object"),
            (b'{"a": 1, "a": 2}', "twice"),
            (b"\xff", "JSON"),
            (b"[" * 50_000, "JSON"),
        ],
    )
    def test_lies_are_refused(self, tmp_path: Path, header: Any, problem: str) -> None:
        with pytest.raises(InputError, match=problem):
            read_tensors(write_raw(tmp_path / "t", header))

    @pytest.mark.parametrize("length", [9, 1 << 40, (1 << 64) - 1])
    def test_header_longer_than_the_file_is_refused(self, tmp_path: Path, length: int) -> None:
        with pytest.raises(InputError, match="is cut"):
            read_tensors(write_raw(tmp_path / "t", b"", b"", length))

    def test_huge_header_is_refused_unread(self, tmp_path: Path) -> None:
        path = write_raw(tmp_path / "t", b"{", b"", 1 << 30)
        with path.open("r+b") as stream:
            stream.truncate(2 << 30)  # sparse: no disk is used
        with pytest.raises(InputError, match="has a header of"):
            read_tensors(path)

    def test_too_many_tensors_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_TENSORS", 5)
        header = {str(index): claim(shape=(0,), offsets=(0, 0)) for index in range(6)}
        with pytest.raises(InputError, match="claims 6 tensors"):
            read_tensors(write_raw(tmp_path / "t", header, b""))

    def test_huge_payload_of_another_model_is_refused_unread(self, tmp_path: Path) -> None:
        size = 1 << 34
        path = write_raw(tmp_path / "t", {"a": claim(shape=(size // 4,), offsets=(0, size))}, b"")
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size + size)
        with pytest.raises(InputError, match="model needs"):
            read_tensors(path, {"a": ((4,), torch.float32)})

    @pytest.mark.parametrize("length", range(0, 140, 7))
    def test_every_cut_is_found(self, tmp_path: Path, length: int) -> None:
        data = encode_tensors({"a": torch.zeros(4), "b": torch.zeros(3)})
        assert len(data) > 140
        (tmp_path / "t").write_bytes(data[:length])
        with pytest.raises(InputError):
            read_tensors(tmp_path / "t")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is missing"):
            read_tensors(tmp_path / "no.safetensors")


META = {
    "epoch": 3,
    "seed": 7,
    "best": 0.1 + 0.2,
    "names": ["größe", 'a "sha256":"0'],
    "schedule": {"lr": 1e-3},
}


class TestState:
    def test_round_trip_is_exact(self, tmp_path: Path) -> None:
        tensors = {"codes": torch.randn(5, 4), "moments": torch.randn(3, dtype=torch.float64)}
        tensors["random_state"] = torch.get_rng_state()
        save_state(tmp_path / "run.safetensors", tensors, META)
        state = load_state(tmp_path / "run.safetensors")
        assert state.meta == META
        assert all(torch.equal(state.tensors[name], tensor) for name, tensor in tensors.items())

    def test_every_bit_flip_and_cut_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "run.safetensors"
        save_state(path, {"a": torch.zeros(50), "b": torch.zeros(50, dtype=torch.uint8)}, META)
        original = path.read_bytes()
        choice = random.Random(0)
        for _ in range(200):
            data = bytearray(original)
            data[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
            path.write_bytes(data)
            with pytest.raises(InputError, match=r"run\.safetensors"):
                load_state(path)
        path.write_bytes(original[:-1])
        with pytest.raises(InputError, match=r"run\.safetensors"):
            load_state(path)

    def test_other_safetensors_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "t").write_bytes(encode_tensors({"a": torch.zeros(1)}))
        with pytest.raises(InputError, match="version"):
            load_state(tmp_path / "t")

    def test_newer_version_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "STATE_VERSION", 2)
        save_state(tmp_path / "t", {"a": torch.zeros(1)}, {})
        monkeypatch.undo()
        with pytest.raises(InputError, match="version '2'"):
            load_state(tmp_path / "t")

    def test_state_that_is_not_finite_does_not_replace_a_good_one(self, tmp_path: Path) -> None:
        save_state(tmp_path / "t", {"a": torch.ones(1)}, {})
        with pytest.raises(TrainingError, match="'a'"):
            save_state(tmp_path / "t", {"a": torch.tensor([float("nan")])}, {})
        with pytest.raises(ValueError, match="JSON"):
            save_state(tmp_path / "t", {"a": torch.zeros(1)}, {"loss": float("inf")})
        assert load_state(tmp_path / "t").tensors["a"] == 1

    def test_leftovers_of_killed_saves_of_the_same_file_are_removed(self, tmp_path: Path) -> None:
        for number, name in enumerate(("run", "run", "other")):
            (tmp_path / f".{number}.partial").mkdir()
            (tmp_path / f".{number}.partial" / name).write_bytes(b"half")
        save_state(tmp_path / "run", {"a": torch.zeros(1)}, {})
        assert [entry.name for entry in tmp_path.glob(PARTIAL_PATTERN)] == [".2.partial"]
