"""How far a training step and an iteration of a fit are from what arithmetic and memory of the machine allow.

Arithmetic: products and sums of convolutions and matrices, counted by torch, over the rate of a large product of
matrices. Memory: what torch's operations read and write, as if caches kept nothing between them, over the rate of a
large copy. Both rates are taken by turns with the work, in the same threads. Reading maps at points is done by kernels
of our own, which torch does not count but for what they return.
Run: python benchmarks/bench_floors.py
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from bench_training import BATCH, forward_of, phantom_shapes, samples_of, training_step
from common import print_json, seconds_by_turns
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.methods import ModelConfig, build
from implicit_atlas.geometry import grid
from implicit_atlas.support.memory import keep_freed_memory

THREADS, REPEATS = 2, 5
MATRIX, COPIED = 2048, 2**26  # side of the product, and numbers that are copied: larger than any cache


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **kwargs or {})
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, Tensor)]
            self.bytes += sum(t.nbytes for t in tensors if not t.is_sparse)
        return found


def counted(work: Callable[[], object]) -> tuple[int, int]:
    """Floating-point operations and bytes of one call."""
    with FlopCounterMode(display=False) as arithmetic:
        work()
    with Traffic() as memory:
        work()
    return arithmetic.get_total_flops(), memory.bytes


def floors(name: str, work: Callable[[], object]) -> None:
    """Print and keep how long the work takes, and how long its arithmetic and its traffic alone would."""
    operations, moved = counted(work)
    matrix, numbers = torch.randn(MATRIX, MATRIX), torch.zeros(COPIED)
    copy = torch.empty_like(numbers)
    took, product, copying = seconds_by_turns(
        [work, lambda: matrix @ matrix, lambda: copy.copy_(numbers)], REPEATS
    )
    flops, bandwidth = 2 * MATRIX**3 / product, 2 * 4 * COPIED / copying
    arithmetic, memory = operations / flops, moved / bandwidth
    print(
        f"{name}: {took:.3f} s; {operations / 1e9:.1f} GFLOP at {flops / 1e9:.0f} GFLOP/s {arithmetic:.3f} s, "
        f"{moved / 1e9:.2f} GB at {bandwidth / 1e9:.1f} GB/s {memory:.3f} s"
    )
    print_json(
        name=f"floors of {name}",
        work=name,
        work_s=took,
        gflop=operations / 1e9,
        gflop_per_s=flops / 1e9,
        arithmetic_s=arithmetic,
        gigabytes=moved / 1e9,
        gigabytes_per_s=bandwidth / 1e9,
        memory_s=memory,
        repeats=REPEATS,
    )


def main() -> None:
    """Print the floors of a step and of an iteration."""
    grid.set_threads(THREADS)
    keep_freed_memory()
    samples = samples_of(phantom_shapes(BATCH))
    torch.manual_seed(0)
    atlas = build(ModelConfig())
    assert isinstance(atlas, Atlas)

    floors(
        f"a training step of {BATCH} shapes",
        training_step(atlas.train(), forward_of(atlas), samples, nullcontext()),
    )
    atlas.eval().requires_grad_(False)
    codes = torch.randn(BATCH, ModelConfig().code_size).requires_grad_()
    template = torch.zeros(BATCH, dtype=torch.long)
    features = atlas.expand_templates()

    def iteration() -> None:
        logits = atlas.query(atlas.expand(codes, template, features), samples.points).logits
        torch.nn.functional.binary_cross_entropy_with_logits(logits, samples.occupancy).backward()

    floors(f"an iteration of a fit of {BATCH} shapes", iteration)


if __name__ == "__main__":
    main()
