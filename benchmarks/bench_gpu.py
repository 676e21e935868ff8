"""Training, fits and decoding on a GPU, and what its arithmetic and memory allow.

Hippocampi of the Decathlon are trained with default options and few steps; the paper's accuracy of unknown shapes is
93.99 / 77.47. Its 221 training shapes are more than the data at hand: the time of a step does not depend on their
number, that of their warped copies does. What stands beside the product reads maps by `grid.query_reference`.
Run: python benchmarks/bench_gpu.py --data FOLDER, with masks and splits.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from common import print_json
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from implicit_atlas import load_shapes
from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.methods import ModelConfig
from implicit_atlas.geometry import grid
from implicit_atlas.io import case_name
from implicit_atlas.shapes.sampling import FEWER_POINTS
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.tasks.evaluate import evaluate
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import default_config, gather, optimise
from implicit_atlas.training.learning import train

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data" / "hippocampus"
STEPS, WARPS = 400, 200
TRAINING_GOAL_S, FITS_GOAL_S, DECODING_GOAL_MS = 60.0, 3.0, 3.0
RESOLUTION, BATCH, REPEATS, TIMED_STEPS = 128, 8, 10, 100
MATRIX, COPIED = 8192, 2**30


@dataclass(frozen=True)
class Split:
    """Shapes to learn from, and others."""

    known: tuple[Shape, ...]
    unknown: tuple[Shape, ...]


def read_split(folder: Path) -> Split:
    """Shapes of a folder with masks and splits.json."""
    shapes = {shape.name: shape for shape in load_shapes(folder / "masks")}
    names = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    known, unknown = (
        tuple(shapes[case_name(Path(name))] for name in names[part]) for part in ("train", "val")
    )
    return Split(known, unknown)


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median seconds of a call, the device's work included, after two that do not count."""
    times = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return median(times[2:])


def kept(name: str, **values: Any) -> None:
    """Print and keep a result with the device's name."""
    print_json(name=f"GPU: {name}", gpu=torch.cuda.get_device_name(), **values)


@contextmanager
def reference() -> Iterator[None]:
    """Maps are read by torch's operations."""
    with mock.patch.object(grid, "query_maps", grid.query_reference):
        yield


def rates() -> tuple[float, float]:
    """Operations of a large product of bfloat16 matrices, and bytes of a large copy, a second."""
    a, b = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    numbers = torch.randn(COPIED, device="cuda")
    copy = torch.empty_like(numbers)
    flops, bandwidth = (
        2 * MATRIX**3 / seconds(lambda: a @ b),
        2 * 4 * COPIED / seconds(lambda: copy.copy_(numbers)),
    )
    kept("rates", tflop_per_s=flops / 1e12, gigabytes_per_s=bandwidth / 1e9)
    return flops, bandwidth


def check() -> None:
    """The kernels against torch's operations, on the device, in value and gradients."""
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    owner, found = torch.tensor([0, 2, 1, 1], device="cuda"), []
    parts = [random(3, 17, 17, 17, 32), random(4, 3000, 3) * 0.6, random(3, 32), random(3)]
    for query in (grid.query_maps, grid.query_reference):
        maps, points, weight, bias = (part.clone().requires_grad_() for part in parts)
        values = query(maps, owner, points, weight, bias)
        (values * torch.linspace(-1, 1, values.numel(), device="cuda").view_as(values)).sum().backward()
        found.append([values.detach(), *(part.grad for part in (maps, points, weight, bias))])
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True)]
    kept("kernels against torch, relative error of value and gradients", errors=errors)
    assert max(errors) < 1e-4, errors


def step(split: Split, rate: tuple[float, float]) -> None:
    """Milliseconds of a training step with the points of the tables, and with those that a GPU gets by default."""
    default = default_config(len(split.known), "cuda")
    data = gather(split.known, ModelConfig(), dataclasses.replace(default, warps=0), 1)
    for points in (FEWER_POINTS, default.points):
        took = {}
        for name, context in (("product", nullcontext()), ("reference", reference())):
            config = dataclasses.replace(default, points=points, warps=0)
            with context:
                optimise(data, ModelConfig(), dataclasses.replace(config, steps=10))
                few = optimise(data, ModelConfig(), dataclasses.replace(config, steps=10)).seconds
                many = optimise(
                    data, ModelConfig(), dataclasses.replace(config, steps=10 + TIMED_STEPS)
                ).seconds
            took[name] = 1000 * (many - few) / TIMED_STEPS
        with FlopCounterMode(display=False) as arithmetic:
            optimise(data, ModelConfig(), dataclasses.replace(config, steps=1))
        flop = arithmetic.get_total_flops()
        number = points.lattice**3 + points.band
        kept(
            f"training step, {default.batch} shapes of {number} points",
            step_ms=took["product"],
            reference_ms=took["reference"],
            gflop=flop / 1e9,
            arithmetic_ms=1000 * flop / rate[0],
            precision=config.precision,
        )


def training(split: Split, steps: int) -> TrainedAtlas:
    """Train with default options but for the schedule, and score unknown shapes with the product's fit."""
    config = default_config(len(split.known), "cuda")
    config = dataclasses.replace(config, steps=steps, points=FEWER_POINTS, warps=WARPS)
    begun, reports = time.perf_counter(), []
    atlas = train(
        split.known, config=config, progress=lambda share, _: share and reports.append(time.perf_counter())
    )
    took = time.perf_counter() - begun
    mean = evaluate(atlas.to("cuda"), split.unknown).mean()
    kept(
        f"training, {steps} steps",
        shapes=len(split.known),
        warps=config.warps,
        steps=steps,
        seconds=took,
        until_tenth_step_s=reports[0] - begun,
        goal_s=TRAINING_GOAL_S,
        unknown_dsc=mean["dsc"],
        unknown_nsd=mean["nsd"],
        precision=config.precision,
    )
    return atlas


def fits(atlas: TrainedAtlas, shapes: Sequence[Shape]) -> None:
    """Seconds of the fits of all unknown shapes together, as they are by default."""
    took = seconds(lambda: atlas.fit(shapes), 3)
    kept(f"fits of {len(shapes)} shapes together", fits_s=took, goal_s=FITS_GOAL_S)


def decoding(atlas: TrainedAtlas, rate: tuple[float, float]) -> None:
    """Milliseconds of a shape, from its code to the occupancy of every node of the lattice."""
    network = atlas.network
    assert isinstance(network, Atlas)
    codes = torch.from_numpy(atlas.codes[:BATCH]).cuda()
    points = grid.lattice(RESOLUTION, "cuda").view(1, -1, 3).expand(BATCH, -1, -1)
    templates = network.expand_templates()

    @torch.no_grad()
    def decode() -> Tensor:
        return network.query(network.expand(codes, None, templates), points).logits > 0

    ours = decode()
    with reference():
        same = float((decode() == ours).double().mean())
        theirs_s = seconds(decode)
    ours_s = seconds(decode)
    # Points are read and answers written; maps stay in the cache.
    memory = points.numel() * 4 * 2 / BATCH + RESOLUTION**3 * (4 + 1)
    kept(
        f"decoding {RESOLUTION}^3, {BATCH} shapes together",
        decoding_ms=1000 * ours_s / BATCH,
        reference_ms=1000 * theirs_s / BATCH,
        goal_ms=DECODING_GOAL_MS,
        memory_ms=1000 * memory / rate[1],
        agree=same,
    )


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args()
    if not torch.cuda.is_available() or not options.data.is_dir():
        print(f"no CUDA device, or no {options.data}: nothing is measured")
        return
    split = read_split(options.data)
    check()
    rate = rates()
    step(split, rate)
    atlas = training(split, STEPS)
    fits(atlas, split.unknown)
    decoding(atlas, rate)


if __name__ == "__main__":
    main()
