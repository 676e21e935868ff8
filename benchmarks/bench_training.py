"""One training step against the paper-literal path, and the peak memory of training 221 shapes.

Both networks have the product's default sizes and the same weights, points, losses and optimisers.
Run: python benchmarks/bench_training.py
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from common import compare, print_json, report
from reference import LiteralAtlas
from torch import Tensor, nn

from implicit_atlas.atlas.field import Atlas, Prediction
from implicit_atlas.atlas.losses import LossWeights, total_loss
from implicit_atlas.atlas.methods import ModelConfig, build
from implicit_atlas.geometry import grid
from implicit_atlas.phantoms import FAMILIES, make_phantoms
from implicit_atlas.shapes.sampling import FEWER_POINTS, Samples, ShapeSet
from implicit_atlas.shapes.shape import Shape, prepare
from implicit_atlas.support.memory import keep_freed_memory
from implicit_atlas.training import TrainConfig, default_config, gather, optimise
from implicit_atlas.training.config import fast_precision
from implicit_atlas.training.loop import loss_terms
from implicit_atlas.training.loop import optimizers as optimizers_of

BATCH, THREADS, REPEATS, GOAL = 16, 2, 5, 4.0
SHAPES, MEMORY_STEPS, MEMORY_GOAL_GB, WORKERS = 221, 3, 4.0, 2
Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def phantom_shapes(count: int) -> list[Shape]:
    """Phantoms at the default resolution, all families in turn."""
    each = -(-count // len(FAMILIES))
    phantoms = [phantom for family in FAMILIES for phantom in make_phantoms(family, each)]
    return [prepare(phantom.mask) for phantom in phantoms[:count]]


def samples_of(shapes: list[Shape]) -> Samples:
    """One batch of points with labels; both paths learn from the same."""
    packed = torch.stack([torch.from_numpy(shape.packed) for shape in shapes]).numpy()
    target = ShapeSet(packed, shapes[0].frame.resolution)
    return target.sample(torch.arange(BATCH), FEWER_POINTS, torch.Generator().manual_seed(0))


def forward_of(atlas: Atlas) -> Forward:
    """Logits and displacement of the product's network."""

    def forward(codes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        found = atlas(codes, points)
        assert found.displacement is not None
        return found.logits, found.displacement

    return forward


def training_step(
    network: nn.Module, forward: Forward, samples: Samples, precision: AbstractContextManager
) -> Callable[[], float]:
    """Forward, backward and update of the weights and of the batch's codes, each path by its own optimisers."""
    codes = nn.Embedding(BATCH, ModelConfig().code_size, sparse=True)
    torch.nn.init.normal_(codes.weight, generator=torch.Generator().manual_seed(0))
    if isinstance(network, Atlas):
        optimizers = optimizers_of(network, codes, TrainConfig())
    else:
        adam = torch.optim.Adam(network.parameters(), lr=1e-4)
        optimizers = [adam, torch.optim.SparseAdam(list(codes.parameters()), lr=1e-3)]
    weights, ids = LossWeights(), torch.arange(BATCH)

    def step() -> float:
        rows = codes(ids)
        with precision:
            logits, displacement = forward(rows, samples.points)
        prediction = Prediction(logits.float(), displacement.float())
        loss = total_loss(loss_terms(rows, prediction, samples, weights), weights)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return step


def compare_steps(name: str, precision: AbstractContextManager, samples: Samples) -> None:
    """Time the product in an arithmetic against the reference in single precision."""
    torch.manual_seed(0)
    atlas = build(ModelConfig())
    assert isinstance(atlas, Atlas)
    literal = LiteralAtlas(atlas)

    ours = training_step(atlas.train(), forward_of(atlas), samples, precision)
    theirs = training_step(literal, literal, samples, nullcontext())
    print(f"first losses: product {ours():.5f}, reference {theirs():.5f}")
    report(compare(name, ours, theirs, GOAL, REPEATS))


def train_for_memory() -> None:
    """Train a few steps with default options on as many shapes as the paper's largest set; print the peak in GB."""
    some = phantom_shapes(13)
    shapes = [some[index % len(some)] for index in range(SHAPES)]
    config = dataclasses.replace(default_config(SHAPES, "cpu"), steps=MEMORY_STEPS)  # with all copies
    done, most = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.1):
            most[0] = max(most[0], _resident())

    watching = threading.Thread(target=watch)
    watching.start()
    optimise(gather(shapes, ModelConfig(), config, WORKERS), ModelConfig(), config)
    done.set()
    watching.join()
    print(most[0] / 1e6)


def _resident() -> int:
    """Kilobytes of memory that this process and its workers hold now (Linux)."""
    own = Path("/proc/self")
    workers = " ".join(path.read_text() for path in own.glob("task/*/children")).split()
    total = 0
    for folder in (own, *(Path("/proc") / worker for worker in workers)):
        with contextlib.suppress(OSError):  # it has just ended
            lines = (folder / "status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total


def measure_memory() -> None:
    """Run `train_for_memory` in a process of its own."""
    command = [sys.executable, __file__, "--memory"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak_gb = float(printed.split()[-1])
    print(
        f"training {SHAPES} shapes, peak memory: {peak_gb:.2f} GB with workers (goal below {MEMORY_GOAL_GB:g})"
    )
    print_json(name="training memory", shapes=SHAPES, peak_gb=peak_gb, goal_gb=MEMORY_GOAL_GB)


def main() -> None:
    """Print the ratios and the peak memory."""
    grid.set_threads(THREADS)
    keep_freed_memory()  # as the commands do; here it serves both paths
    samples = samples_of(phantom_shapes(BATCH))
    compare_steps("training step", nullcontext(), samples)
    if fast_precision("cpu") == "bf16-mixed":
        compare_steps(
            "training step, product in bfloat16", torch.autocast("cpu", dtype=torch.bfloat16), samples
        )
    measure_memory()


if __name__ == "__main__":
    if sys.argv[1:] == ["--memory"]:
        train_for_memory()
    else:
        main()
