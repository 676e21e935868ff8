"""Named tensors to and from safetensors, with every claim of the file checked before its payload is used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from implicit_atlas.errors import InputError, TrainingError
from implicit_atlas.support.files import PARTIAL_PATTERN, write_atomic
from implicit_atlas.support.records import parse_json

TensorSpec = tuple[tuple[int, ...], torch.dtype]
"""Shape and dtype that a tensor must have."""

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 20_000
STATE_VERSION = 1
REMEDY = "Copy the file again from where it came, or train again: it is not what was written."

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NO_DIGEST = "0" * 64


@dataclasses.dataclass(frozen=True)
class Header:
    """What the header of a safetensors file claims, found consistent with the file's size."""

    specs: dict[str, TensorSpec]
    metadata: dict[str, str]


@dataclasses.dataclass(frozen=True)
class RunState:
    """The state of a training run: tensors and everything else as JSON values."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def specs_of(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Shapes and dtypes of named tensors, for example of a `state_dict()` on the meta device."""
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def encode_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Named tensors as the bytes of a safetensors file; the tensors are not changed.

    Raises:
        TrainingError: a tensor holds NaN or infinite values; such a model must not replace a good one.
        ValueError: more names or metadata than `read_tensors` accepts, or a dtype that it does not know.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES.values():
            raise ValueError(f"{name}: the dtype {tensor.dtype} is not stored")
        if not _is_finite(tensor):
            raise TrainingError(f"the tensor {name!r} holds NaN or infinite values and is not saved")
    # Clones, because safetensors refuses tensors that share memory (tied weights, views of one buffer).
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    data = safetensors.torch.save(plain, metadata)
    if len(tensors) > MAX_TENSORS or int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise ValueError(f"{len(tensors)} tensors with this metadata are more than one file may hold")
    return data


def read_tensors(
    path: str | Path,
    expected: Mapping[str, TensorSpec] | None = None,
    sha256: str | None = None,
    remedy: str = REMEDY,
) -> dict[str, Tensor]:
    """Read a safetensors file: header, size and names first, then the payload, its hash and its values.

    Args:
        path: the file.
        expected: the exact names with their shapes and dtypes; None accepts any.
        sha256: hex digest that the whole file must have; None accepts any.
        remedy: what the user can do about a bad file.

    Raises:
        InputError: the file is missing, damaged, not what is expected, or holds NaN or infinite values.
    """
    return _read(Path(path), expected, sha256, remedy)[0]


def save_state(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write the state of a run as one atomic file that carries its own SHA-256.

    Args:
        path: the file; only one process at a time may write it.
        tensors: finite tensors of any device.
        meta: JSON values (finite numbers, texts, lists, objects); tuples come back as lists.

    Raises:
        TrainingError: a tensor is not finite; the earlier file is kept.
        InputError: the file cannot be written; the earlier file is kept.
    """
    content = {"version": str(STATE_VERSION), "meta": json.dumps(meta, allow_nan=False), "sha256": _NO_DIGEST}
    data = encode_tensors(tensors, content)
    target = Path(path)
    for partial in target.parent.glob(PARTIAL_PATTERN):  # of saves that were killed
        if (partial / target.name).exists():
            shutil.rmtree(partial, ignore_errors=True)
    write_atomic(target, _replace_digest(data, _NO_DIGEST, hashlib.sha256(data).hexdigest()))


def load_state(path: str | Path) -> RunState:
    """Read what `save_state` wrote, bit for bit.

    Raises:
        InputError: the file is missing, cut, altered, or of a newer version.
    """
    source = Path(path)
    remedy = "Restore the file from a copy, or start the training again."
    tensors, header, data = _read(source, None, None, remedy)
    version, digest = header.metadata.get("version", ""), header.metadata.get("sha256", "")
    if version != str(STATE_VERSION):
        problem = f"holds a run state of version {version!r}, this program reads {STATE_VERSION}"
        raise InputError(source, problem, "Resume with the version of implicit-atlas that wrote it.")
    if hashlib.sha256(_replace_digest(data, digest, _NO_DIGEST)).hexdigest() != digest:
        raise InputError(source, "was altered after it was written (its SHA-256 differs)", remedy)
    return RunState(tensors, parse_json(header.metadata.get("meta", "").encode(), source, remedy))


def _replace_digest(data: bytes, old: str, new: str) -> bytes:
    # Quotes inside other metadata are escaped, so this text stands once, in the header.
    return data.replace(f'"sha256":"{old}"'.encode(), f'"sha256":"{new}"'.encode(), 1)


def _read(
    path: Path, expected: Mapping[str, TensorSpec] | None, sha256: str | None, remedy: str
) -> tuple[dict[str, Tensor], Header, bytes]:
    try:
        if not path.is_file():
            raise InputError(path, "is missing", remedy)
        with path.open("rb") as stream:
            head, header = _read_header(stream, path, remedy)
            if expected is not None:
                _compare(header.specs, expected, path, remedy)
            data = head + stream.read()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}", remedy) from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(path, "was altered after it was written (its SHA-256 differs)", remedy)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(path, f"is not a valid safetensors file ({error})", remedy) from error
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise InputError(path, f"the tensor {name!r} holds NaN or infinite values", remedy)
    return tensors, header, data


def _read_header(stream: BinaryIO, path: Path, remedy: str) -> tuple[bytes, Header]:
    size = os.fstat(stream.fileno()).st_size
    length_bytes = stream.read(8)
    length = int.from_bytes(length_bytes, "little")
    if len(length_bytes) < 8 or length > size - 8:
        raise InputError(path, "is cut: its header is not complete", remedy)
    if length > MAX_HEADER_BYTES:
        raise InputError(path, f"has a header of {length} bytes, at most {MAX_HEADER_BYTES} are read", remedy)
    text = stream.read(length)
    content = parse_json(text, path, remedy)
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(path, "has metadata that is not text", remedy)
    if len(content) > MAX_TENSORS:
        raise InputError(path, f"claims {len(content)} tensors, at most {MAX_TENSORS} are read", remedy)
    return length_bytes + text, Header(_check_spans(content, size - 8 - length, path, remedy), metadata)


def _check_spans(content: dict[str, Any], payload: int, path: Path, remedy: str) -> dict[str, TensorSpec]:
    """Specs of the claimed tensors, which must fill the payload without gap, overlap or rest."""
    specs, spans = {}, []
    for name, claim in content.items():
        try:
            specs[name], begin, end = _parse_claim(claim)
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(
                path, f"makes a wrong claim about the tensor {name!r} ({error})", remedy
            ) from error
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            problem = "overlaps another one" if begin < position else "leaves a gap before it"
            raise InputError(path, f"the tensor {name!r} {problem}", remedy)
        position = end
    if position != payload:
        problem = f"holds {payload} bytes of tensors, its header claims {position}"
        raise InputError(path, f"is cut or has trailing bytes: it {problem}", remedy)
    return specs


def _parse_claim(claim: Any) -> tuple[TensorSpec, int, int]:
    if not isinstance(claim, dict) or set(claim) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("not a dtype, a shape and offsets")
    dtype = _DTYPES.get(claim["dtype"])
    if dtype is None:
        raise ValueError(f"the dtype {claim['dtype']!r} is not known")
    shape, (begin, end) = tuple(claim["shape"]), claim["data_offsets"]
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (*shape, begin, end)):
        raise ValueError("a size or offset is not a count")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"shape {list(shape)} does not fill {end - begin} bytes")
    return (shape, dtype), begin, end


def _compare(
    specs: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec], path: Path, remedy: str
) -> None:
    extra, missing = sorted(set(specs) - set(expected)), sorted(set(expected) - set(specs))
    if extra or missing:
        parts = [
            f"{len(names)} {word} ({names[0]!r}, ...)"
            for names, word in ((extra, "too many"), (missing, "missing"))
            if names
        ]
        raise InputError(path, f"does not hold the tensors of this model: {', '.join(parts)}", remedy)
    for name, spec in expected.items():
        if specs[name] != (tuple(spec[0]), spec[1]):
            problem = f"the tensor {name!r} is {_describe(specs[name])}, the model needs {_describe(spec)}"
            raise InputError(path, problem, remedy)


def _describe(spec: TensorSpec) -> str:
    return f"{str(spec[1]).removeprefix('torch.')} of shape {list(spec[0])}"


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
