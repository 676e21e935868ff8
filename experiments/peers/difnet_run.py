"""A cell of the tables by DIF-Net: learn, fit, complete, decode and score."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.cells.completion import completion
from experiments.cells.scoring import protocol, score_fields
from experiments.peers.difnet import values_at
from experiments.peers.difnet_fitting import fit_observations, fit_shapes
from experiments.peers.difnet_training import DifNetConfig, Report, TrainedDifNet, train_difnet
from implicit_atlas.geometry.surface import sparse_volume
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import Shape

METHOD = "dif-net"


def run_difnet(
    config: DifNetConfig,
    shapes: Sequence[Shape],
    scored: tuple[Sequence[Shape], Sequence[Shape]],
    run: Path | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Scores of known and unknown shapes and of completions, as `experiments.cells.cell` keeps them.

    Known shapes are scored as their training codes stand, against `scored[0]`, which are clean where `shapes` are
    noisy; `scored[1]` are unknown. `fit_seconds` are of a shape's fit and its decoding.
    """
    trained = train_difnet(shapes, config, run, report)
    clean, unknown = scored
    resolution = shapes[0].frame.resolution
    known = score_fields(clean, decode(trained, trained.codes, resolution))
    begun = time.perf_counter()
    found = score_fields(unknown, decode(trained, fit_shapes(trained, unknown, config), resolution))
    fit_seconds = (time.perf_counter() - begun) / max(1, len(unknown))

    def complete(seen: list[Observations]) -> list[np.ndarray | None]:
        codes = fit_observations(trained, seen, config)
        return [volume > 0 for volume in decode(trained, codes, resolution)]

    parameters = sum(parameter.numel() for parameter in trained.network.parameters())
    about = protocol(METHOD, config.network.code_size, parameters, len(shapes))
    about |= {"training_steps": config.steps, "seed": config.seed, "device": config.device}
    threads = f"{torch.get_num_threads()} threads"
    return {
        "known": {"protocol": {**about, "known": True, "iterations": 0}, **known},
        "unknown": {"protocol": {**about, "known": False, "iterations": config.iterations}, **found},
        "completion": completion(unknown, complete),
        "training": {
            "seconds": trained.seconds,
            "fit_seconds": fit_seconds,
            "device": f"{config.device} ({threads})" if config.device == "cpu" else config.device,
            "configuration": dataclasses.asdict(config),
        },
    }


def decode(
    trained: TrainedDifNet, codes: Float[Tensor, "n c"], resolution: int
) -> Iterator[Float[np.ndarray, "r r r"]]:
    """Fields of codes on the lattice, one by one, positive inside; asked near the surface only."""
    for code in codes:
        yield sparse_volume(values_at(trained.network, code), resolution).values
