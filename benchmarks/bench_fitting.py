"""Fits of unseen shapes: the atlas by default against an auto-decoder with DeepSDF's settings.

Both learn from the same shapes for the same time. The reference is `mlp` of the tables, 8 layers of 512 numbers that
read a code of 256 and a point; DeepSDF (Park et al., CVPR 2019) fits a code in 800 iterations of 8000 points, by
cross entropy here as for the others, and from the best of the starts that ours has, too. Scores
are against the true mask on the box grid.
Run: python benchmarks/bench_fitting.py [MASKS], of a folder of masks instead of synthetic organs
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import print_json

from implicit_atlas import load_shapes
from implicit_atlas.atlas.methods import DEFAULT_METHOD, ModelConfig
from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.geometry import grid
from implicit_atlas.metrics import dsc
from implicit_atlas.phantoms import make_phantoms
from implicit_atlas.shapes.sampling import PointConfig
from implicit_atlas.shapes.shape import Shape, prepare
from implicit_atlas.support.memory import keep_freed_memory
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import default_config
from implicit_atlas.training.learning import best_device, train

KNOWN, UNKNOWN, MINUTES, GOAL = 10, 2, 6.0, 20.0
DEEPSDF = FitConfig(
    iterations=800,
    learning_rate=5e-3,
    points=PointConfig(lattice=16, band=3904),
    patience=800,
    robustness=0.0,
    contenders=1,
    strays=0.0,
)


def learned(method: str, shapes: list[Shape]) -> TrainedAtlas:
    """A method's model after `MINUTES`."""
    config = dataclasses.replace(default_config(len(shapes), best_device(), MINUTES, method=method), warps=0)
    return train(shapes, ModelConfig(method=method), config)


def fitted(atlas: TrainedAtlas, shapes: list[Shape], config: FitConfig) -> tuple[float, float]:
    """Seconds a shape, and mean DSC in percent; kernels are compiled before."""
    atlas.fit(shapes[:1], dataclasses.replace(config, iterations=1))[0].occupancy()
    start = time.perf_counter()
    fits = atlas.fit(shapes, config)
    seconds = (time.perf_counter() - start) / len(shapes)
    scores = [
        dsc(fit.occupancy(s.frame.resolution), s.occupancy) for fit, s in zip(fits, shapes, strict=True)
    ]
    return seconds, 100 * float(np.mean(scores))


def main() -> None:
    """Print both, and the ratio of their times."""
    grid.set_threads(torch.get_num_threads())
    keep_freed_memory()
    if len(sys.argv) > 1:
        shapes = load_shapes(Path(sys.argv[1]))[: KNOWN + UNKNOWN]
    else:
        shapes = [prepare(phantom.mask) for phantom in make_phantoms("two-lobe", KNOWN + UNKNOWN)]
    known, unknown = list(shapes[:KNOWN]), list(shapes[KNOWN:])
    ours, dsc_ours = fitted(learned(DEFAULT_METHOD, known), unknown, FitConfig())
    theirs, dsc_theirs = fitted(learned("mlp", known), unknown, DEEPSDF)
    print(
        f"a fit: product {ours:.1f} s, DSC {dsc_ours:.2f} %; DeepSDF's settings {theirs:.1f} s, "
        f"DSC {dsc_theirs:.2f} %; ratio {theirs / ours:.0f} (goal {GOAL:g})"
    )
    values = {"product_s": ours, "product_dsc": dsc_ours, "reference_s": theirs, "reference_dsc": dsc_theirs}
    print_json(name="fit of an unseen shape", **values, ratio=theirs / ours, goal=GOAL, unseen=len(unknown))


if __name__ == "__main__":
    main()
