"""Small shapes, networks and schedules that several test modules share."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from implicit_atlas.atlas.decoders import ConvConfig, MLPConfig
from implicit_atlas.atlas.methods import ModelConfig
from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.geometry import grid
from implicit_atlas.phantoms import PhantomConfig, make_phantoms
from implicit_atlas.shapes.sampling import PointConfig
from implicit_atlas.shapes.shape import Shape, prepare
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import TrainConfig
from implicit_atlas.training.learning import train

RESOLUTION = 32
CODE = 16
POINTS = PointConfig(lattice=8, band=512)
TINY = ConvConfig(channels=(16, 8), hidden=16, groups=4)
FIT = FitConfig(iterations=60, points=POINTS, batch=8)

grid.set_threads(1)  # more threads cost more than they save at these sizes


@cache
def phantom_shapes(count: int, seed: int = 0) -> tuple[Shape, ...]:
    """Prepared phantoms of one family; the first ones are the same whatever the count."""
    phantoms = make_phantoms("two-lobe", count, seed, PhantomConfig(voxels=24))
    return tuple(prepare(phantom.mask, RESOLUTION) for phantom in phantoms)


def tiny_model(method: str = "implicit-atlas+reg", **options: Any) -> ModelConfig:
    """A network of a few thousand weights."""
    mlp = MLPConfig(width=32, layers=4, skip=2)
    sizes = {"code_size": CODE, "templates": 2, "modes": 9, "mlp": mlp}
    return ModelConfig(method, **sizes | options, conv=TINY, template=TINY, deformation=TINY)


def tiny_training(**options: Any) -> TrainConfig:
    """A schedule that takes some hundredths of a second a step."""
    return TrainConfig(**{"steps": 20, "batch": 4, "points": POINTS, "learning_rate": 5e-3} | options)


@cache
def tiny_atlas() -> TrainedAtlas:
    """An atlas of six phantoms that has learned them roughly: two templates, one of two and one of four shapes."""
    return train(phantom_shapes(6), tiny_model(), tiny_training(steps=300))


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two masks, from 0 to 1."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random weights everywhere, also where fresh ones are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in network.named_buffers():
            if name.endswith("modes.normals"):
                buffer.copy_(F.normalize(torch.randn(buffer.shape, generator=generator), dim=1))
    return network
