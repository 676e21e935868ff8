"""ImplicitAtlas: learned deformable multi-template implicit shape models of anatomy.

from implicit_atlas import load_shapes, train

shapes = load_shapes("masks/")        # a folder of organ masks
atlas = train(shapes[:30], max_minutes=20)
fits = atlas.fit(shapes[30:])         # one optimisation for all
fits[0].mask()                        # on the grid of the file that it came from
fits[0].mesh()                        # in millimetres
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicit_atlas.support.cores import cores, usable

__version__ = version("implicit-atlas")

# Threads that wait for one another give up their core soon (GNU OpenMP, read when torch is imported). By default they
# hold it for milliseconds: alone that gains nothing, beside other busy processes it takes several times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Of OpenMP's and OpenBLAS's threads a container's quota of time may pay for a few only.
if cores() < usable():
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
# Numba would set the number of threads to that of the cores, also for torch, whatever was asked for.
if os.environ.get("OMP_NUM_THREADS", "").isdigit() and "numba" not in sys.modules:
    _threads = max(1, min(int(os.environ["OMP_NUM_THREADS"]), os.cpu_count() or 1))
    os.environ.setdefault("NUMBA_NUM_THREADS", str(_threads))

if TYPE_CHECKING:
    from implicit_atlas.atlas.methods import ModelConfig
    from implicit_atlas.errors import AtlasError, FitError, InputError, TrainingError
    from implicit_atlas.fitting.code_fit import FitConfig
    from implicit_atlas.fitting.fit import Fit
    from implicit_atlas.fitting.sparse import SparseConfig
    from implicit_atlas.shapes.sampling import Observations
    from implicit_atlas.shapes.shape import Shape
    from implicit_atlas.shapes.store import load_shapes, shape_from_array
    from implicit_atlas.trained_atlas import TrainedAtlas
    from implicit_atlas.training import TrainConfig
    from implicit_atlas.training.learning import train

_HOMES = {
    "AtlasError": "errors",
    "Fit": "fitting.fit",
    "FitConfig": "fitting.code_fit",
    "FitError": "errors",
    "InputError": "errors",
    "ModelConfig": "atlas.methods",
    "Observations": "shapes.sampling",
    "Shape": "shapes.shape",
    "SparseConfig": "fitting.sparse",
    "TrainConfig": "training",
    "TrainedAtlas": "trained_atlas",
    "TrainingError": "errors",
    "load_shapes": "shapes.store",
    "shape_from_array": "shapes.store",
    "train": "training.learning",
}

__all__ = [  # noqa: RUF022
    "load_shapes",
    "shape_from_array",
    "train",
    "load",
    "TrainedAtlas",
    "Fit",
    "Shape",
    "Observations",
    "ModelConfig",
    "TrainConfig",
    "FitConfig",
    "SparseConfig",
    "AtlasError",
    "InputError",
    "FitError",
    "TrainingError",
]


def load(path: str | Path) -> TrainedAtlas:
    """Read a trained atlas, on the CPU.

    Args:
        path: a model folder (`*.atlas`), or the name of a model that comes with the package ("hippocampus").

    Raises:
        InputError: there is none, or it is altered.
    """
    from implicit_atlas.shipped import find_model
    from implicit_atlas.trained_atlas import TrainedAtlas

    return TrainedAtlas.load(find_model(str(path)))


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line answers fast (torch takes seconds)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'implicit_atlas' has no attribute {name!r}")
    return getattr(importlib.import_module(f"implicit_atlas.{_HOMES[name]}"), name)
