"""How cost grows with shapes, resolution and templates: seconds of a training step, a fit and a mesh.

Every pair of sizes is timed by turns. Networks have the product's default sizes; phantoms, untrained where only the
time counts.
Run: python benchmarks/bench_growth.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from common import print_json, seconds_by_turns

from implicit_atlas.atlas.methods import ModelConfig
from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.geometry import grid
from implicit_atlas.phantoms import make_phantoms
from implicit_atlas.shapes.shape import Shape, prepare
from implicit_atlas.support.memory import keep_freed_memory
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import default_config, gather, optimise
from implicit_atlas.training.learning import train

SHAPES, RESOLUTIONS, TEMPLATES, REPEATS = (20, 200), (64, 128, 256), (1, 5, 20), 3
STEPS, ITERATIONS, FITTED = 30, 10, (2, 20)  # so many steps that what comes before them does not count

Job = Callable[[], object]


def phantom_shapes(count: int) -> list[Shape]:
    """Copies of a few phantoms: only their number counts."""
    few = [prepare(phantom.mask) for phantom in make_phantoms("two-lobe", 10)]
    return [few[index % len(few)] for index in range(count)]


def training(shapes: list[Shape], templates: int) -> Job:
    """`STEPS` steps of a batch of 16."""
    model = ModelConfig(templates=templates)
    config = dataclasses.replace(default_config(len(shapes), "cpu"), steps=STEPS, warps=0, batch=16)
    data = gather(shapes, model, config)
    return lambda: optimise(data, model, config)


def trained(shapes: list[Shape], templates: int) -> TrainedAtlas:
    """An atlas of a few steps."""
    config = dataclasses.replace(default_config(len(shapes), "cpu"), steps=20, warps=0)
    return train(shapes, ModelConfig(templates=templates), config)


def show(what: str, sizes: tuple[int, ...], jobs: Sequence[Job], share: float, unit: str) -> None:
    """Time jobs by turns and print seconds of each size."""
    seconds = [value * share for value in seconds_by_turns(jobs, REPEATS)]
    listed = ", ".join(f"{size}: {value:.3f} s" for size, value in zip(sizes, seconds, strict=True))
    print(f"{what} ({unit}): {listed}")
    print_json(name=what, unit=unit, sizes=sizes, seconds=seconds, repeats=REPEATS)


def main() -> None:
    """Print seconds by size."""
    grid.set_threads(torch.get_num_threads())
    keep_freed_memory()
    many = phantom_shapes(max(SHAPES))
    steps = [training(many[:count], 5) for count in SHAPES]
    show("training step, by shapes", SHAPES, steps, 1 / STEPS, "a step of 16 shapes")
    steps = [training(many[:20], count) for count in TEMPLATES]
    show("training step, by templates", TEMPLATES, steps, 1 / STEPS, "a step of 16 shapes")
    atlas, config = trained(many[:10], 5), FitConfig(iterations=ITERATIONS)
    fits = [lambda count=count: atlas.fit(many[:count], config) for count in FITTED]
    show("fit, by shapes", FITTED, fits, 1 / ITERATIONS, "an iteration of all shapes")
    fit = atlas.known(many[0].name)
    meshes = [lambda side=side: fit.cube_mesh(side) for side in RESOLUTIONS]
    show("mesh, by resolution", RESOLUTIONS, meshes, 1.0, "a shape")
    masks = [phantom.mask for phantom in make_phantoms("two-lobe", 1)]
    prepared = [lambda side=side: prepare(masks[0], side) for side in RESOLUTIONS]
    show("preparing, by resolution", RESOLUTIONS, prepared, 1.0, "a mask")
    fits_of = [trained(many[:10], count).known(many[0].name) for count in TEMPLATES]
    meshes = [lambda one=one: one.cube_mesh(128) for one in fits_of]
    show("mesh, by templates", TEMPLATES, meshes, 1.0, "a shape")


if __name__ == "__main__":
    main()
