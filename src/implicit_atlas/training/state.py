"""Whose a saved state is: a training goes on only from its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from implicit_atlas.atlas.methods import ModelConfig
from implicit_atlas.errors import InputError
from implicit_atlas.support.tensors import RunState, load_state
from implicit_atlas.training.config import TrainConfig

REMEDY = "Train with the same data and options, or give another output to start anew."


def content_hash(packed: Sequence[UInt8[np.ndarray, " bytes"]]) -> str:
    """Digest of the shapes that are learned, by their packed bits in order."""
    return hashlib.sha256(b"".join(row.tobytes() for row in packed)).hexdigest()


def identity(model: ModelConfig, config: TrainConfig, content: str) -> dict[str, Any]:
    """What must agree between a state and the run that goes on from it, as JSON values."""
    values = {
        "model": dataclasses.asdict(model),
        "configuration": dataclasses.asdict(config),
        "data": content,
    }
    return json.loads(json.dumps(values))  # as they come back: tuples are lists


def own_state(file: Path, wanted: Mapping[str, Any]) -> RunState:
    """The state in a file.

    Args:
        file: that `save_state` wrote.
        wanted: `identity` of the run that goes on.

    Raises:
        InputError: it cannot be read, or belongs to another run.
    """
    state = load_state(file)
    for key, value in wanted.items():
        if state.meta.get(key) != value:
            raise InputError(file, _other(key, state.meta.get(key), value), REMEDY)
    return state


def _other(key: str, before: object, now: object) -> str:
    """In which of its options a run differs from the one that a state belongs to."""
    named = ""
    if isinstance(before, dict) and isinstance(now, dict):
        named = "; ".join(
            _change(name, before.get(name), now[name]) for name in now if before.get(name) != now[name]
        )
    return f"belongs to a run with another {key}" + (f" ({named})" if named else "")


def _change(name: str, before: object, now: object) -> str:
    """An option that differs; groups of options are named alone."""
    if isinstance(before, (dict, list)) or isinstance(now, (dict, list)):
        return name
    return f"{name}: {before} then, {now} now"
