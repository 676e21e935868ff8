"""From shapes to a trained atlas: the verb `train`."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.folder import AtlasConfig
from implicit_atlas.atlas.linear import FEATURE_RESOLUTION, fit_ridge
from implicit_atlas.atlas.methods import ModelConfig
from implicit_atlas.atlas.prior import CodePrior, fit_prior
from implicit_atlas.errors import InputError
from implicit_atlas.io.output import make_folder
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.support.cores import cores
from implicit_atlas.support.files import lock_folder
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import (
    Progress,
    TrainConfig,
    Trained,
    TrainingData,
    content_hash,
    default_config,
    gather,
    identity,
    optimise,
    own_state,
)
from implicit_atlas.training.config import FEW, Device

STATE = "state.safetensors"


def best_device() -> Device:
    """The fastest device of this machine that is known to work: "cuda" or "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def train(  # noqa: PLR0913 (keyword options of the library's main verb)
    shapes: Sequence[Shape],
    model: ModelConfig | None = None,
    config: TrainConfig | None = None,
    *,
    max_minutes: float | None = None,
    labels: Sequence[int] = (),
    run: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainedAtlas:
    """Learn an atlas from shapes.

    Args:
        shapes: what `load_shapes` returned; one kind of frame, one resolution. Of several of one name, the later ones
            are numbered (`name-2`).
        model: the network; the paper's method with both penalties by default.
        config: the schedule; by default fitted to the number of shapes and to the device.
        max_minutes: fit the schedule into this time, of `config`, too.
        labels: label ids that make the organ; by default those of the shapes.
        run: folder of the run's state and log, for `resume`; nothing is kept without it.
        resume: go on from the state in `run`, where there is one.
        progress: told the share that is done.

    Raises:
        InputError: shapes that do not fit together, a run folder in use or of another run, no time.
        TrainingError: the loss became NaN or infinite; the last good state is kept.
    """
    labels, shapes = _check(shapes, tuple(labels)), _told_apart(shapes)
    model = model or ModelConfig()
    if config is None:
        config = default_config(len(shapes), best_device(), max_minutes, method=model.method)
    elif max_minutes is not None:
        config = dataclasses.replace(config, max_minutes=max_minutes)
    state = None if run is None else Path(run) / STATE
    if resume and state is not None and state.exists():  # before the minutes that warps take
        own_state(state, identity(model, config, content_hash([shape.packed for shape in shapes])))
    begun = time.perf_counter()
    data = gather(shapes, model, config, cores(), lambda text: progress and progress(0.0, text))
    spent = time.perf_counter() - begun
    if run is None:
        trained = optimise(data, model, config, progress=progress, spent_seconds=spent)
    else:
        folder = Path(run)
        make_folder(folder)
        with lock_folder(folder):
            if not resume:
                (folder / "log.jsonl").unlink(missing_ok=True)
            trained = optimise(data, model, config, folder / STATE, resume, progress, spent)
    return _atlas(shapes, labels, model, config, data, trained)


def _check(shapes: Sequence[Shape], labels: tuple[int, ...]) -> tuple[int, ...]:
    """Labels of the organ, of shapes that can be learned together."""
    if isinstance(shapes, Shape):
        raise InputError("training set", "is one shape", "Give a list of them.")
    if not shapes:
        raise InputError("training set", "holds no shape", "Give at least one mask.")
    if len({(shape.frame.resolution, shape.frame.kind, shape.frame.margin) for shape in shapes}) > 1:
        problem = "mixes frames of several kinds, margins or resolutions"
        raise InputError("training set", problem, "Prepare all shapes in one way.")
    organs = {shape.labels for shape in shapes}
    if labels and organs == {()}:  # of surfaces, or of arrays
        return labels
    if len(organs) > 1 or (labels and organs != {labels}):
        several = ", ".join(map(str, sorted(organs)))
        problem = f"holds shapes of labels {several}, to be learned as {labels or 'one organ'}"
        raise InputError(
            "training set", problem, "Load all with the same labels: load_shapes(masks, labels)."
        )
    return organs.pop()


def _told_apart(shapes: Sequence[Shape]) -> list[Shape]:
    """Shapes of which several of one name are numbered, as those of arrays may be: codes are found by names."""
    used, out = set(), []
    for shape in shapes:
        names = (shape.name if k == 1 else f"{shape.name}-{k}" for k in count(1))
        name = next(name for name in names if name not in used)
        used.add(name)
        out.append(shape if name == shape.name else dataclasses.replace(shape, name=name))
    return out


def _atlas(
    shapes: Sequence[Shape],
    labels: tuple[int, ...],
    model: ModelConfig,
    config: TrainConfig,
    data: TrainingData,
    trained: Trained,
) -> TrainedAtlas:
    first = shapes[0].frame
    resolution, kind, margin = first.resolution, first.kind, first.margin
    names = tuple(shape.name for shape in shapes)
    encoder = fit_ridge(data.features, trained.codes, FEATURE_RESOLUTION)
    sizes = tuple(_size_mm(shape) for shape in shapes)
    about = AtlasConfig(model, resolution, kind, margin, labels, names, sizes)
    codes = np.ascontiguousarray(trained.codes[: data.real])
    prior = _prior(trained, data)
    return TrainedAtlas(about, trained.network, codes, encoder, prior, _provenance(shapes, config, trained))  # pyright: ignore


@torch.no_grad()
def _prior(trained: Trained, data: TrainingData) -> CodePrior:
    """How codes are distributed: those of the real shapes; of few shapes, those of their warps, too.

    The factor is rounded as it is stored.
    """
    codes = trained.codes[: data.real if data.real >= FEW else None]
    owner, count = None, 1
    if isinstance(trained.network, Atlas):
        owner, count = (
            trained.network.selector(torch.from_numpy(codes)).argmax(-1).numpy(),
            trained.network.templates,
        )
    prior = fit_prior(codes, owner, count)
    return dataclasses.replace(prior, factor=prior.factor.half().float())


def _size_mm(shape: Shape) -> tuple[float, float, float]:
    x, y, z = (round(float(step) * shape.frame.resolution, 3) for step in shape.frame.lattice_spacing_mm)
    return x, y, z


def _provenance(shapes: Sequence[Shape], config: TrainConfig, trained: Trained) -> dict[str, Any]:
    """Where an atlas comes from, as JSON values."""
    return {
        "training": dataclasses.asdict(config),
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "device": f"{config.device} ({platform.machine()}, {torch.get_num_threads()} threads)",
        "torch": torch.__version__,
        "version": version("implicit-atlas"),
        "curves": trained.curves,
        "mirrored": [shape.name for shape in shapes if shape.frame.mirrored],
        "content_sha256": {shape.name: shape.content_hash for shape in shapes},
    }
