"""Small shapes, networks and schedules that several test modules share."""

from __future__ import annotations

from functools import cache

import torch

from implicit_atlas.atlas import TrainedAtlas
from implicit_atlas.decoders import ConvConfig, MLPConfig
from implicit_atlas.fitting import FitConfig
from implicit_atlas.learning import train
from implicit_atlas.methods import ModelConfig
from implicit_atlas.phantoms import PhantomConfig, make_phantoms
from implicit_atlas.sampling import PointConfig
from implicit_atlas.shapes import Shape, prepare
from implicit_atlas.training import TrainConfig

RESOLUTION = 32
CODE = 16
POINTS = PointConfig(lattice=8, band=512)
TINY = ConvConfig(channels=(16, 8, 8), hidden=16, groups=4)
FIT = FitConfig(iterations=60, points=POINTS, batch=8)


@cache
def phantom_shapes(count: int, family: str = "bulb", seed: int = 0) -> tuple[Shape, ...]:
    """Prepared phantoms of one family."""
    phantoms = make_phantoms(family, count, seed, PhantomConfig(voxels=24))
    return tuple(prepare(phantom.mask, RESOLUTION) for phantom in phantoms)


def tiny_model(method: str = "implicit-atlas+reg") -> ModelConfig:
    """A network of a few thousand weights."""
    mlp = MLPConfig(width=32, layers=4, skip=2)
    return ModelConfig(method, CODE, 2, conv=TINY, deformation=TINY, mlp=mlp)


def tiny_training(**options) -> TrainConfig:
    """A schedule of well under a second a hundred steps."""
    options = {"steps": 200, "batch": 4, "points": POINTS, "learning_rate": 5e-3} | options
    return TrainConfig(**options)


@cache
def tiny_atlas() -> TrainedAtlas:
    """An atlas of six phantoms."""
    torch.manual_seed(0)
    return train(phantom_shapes(6), tiny_model(), tiny_training(steps=300))
