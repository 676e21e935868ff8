"""A shape that is decoded alone, forth and back as in a fit: small maps taken twice against torch's choice for one.

Of one small map, torch takes a convolution that is several times slower than that of two.
Run: python benchmarks/bench_alone.py
"""

from __future__ import annotations

import torch
from common import compare, report

import implicit_atlas
from implicit_atlas.atlas import decoders
from implicit_atlas.atlas.field import Atlas
from implicit_atlas.geometry import grid
from implicit_atlas.support.memory import keep_freed_memory

THREADS, REPEATS, GOAL = 2, 20, 2.0


def main() -> None:
    """Print the ratio, and how far the gradients agree."""
    grid.set_threads(THREADS)
    keep_freed_memory()
    network = implicit_atlas.load("hippocampus").network
    assert isinstance(network, Atlas)
    code = torch.zeros((1, network.deformation.first.in_features), requires_grad=True)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    as_it_is = decoders.SMALL_MAPS

    def product() -> torch.Tensor:
        maps = network.deformation.expand(code)
        return torch.autograd.grad(maps.square().sum(), code)[0]

    def reference() -> torch.Tensor:
        decoders.SMALL_MAPS = 0
        try:
            return product()
        finally:
            decoders.SMALL_MAPS = as_it_is

    ours, theirs = product(), reference()
    print(f"gradients differ by {float((ours - theirs).abs().max() / theirs.abs().max()):.1e}")
    report(compare("deformation of a shape alone, with its gradient", product, reference, GOAL, REPEATS))


if __name__ == "__main__":
    main()
