"""A warped copy of an occupancy at 128³: the fused kernel against grid_sample.

Run: python benchmarks/bench_warps.py
"""

from __future__ import annotations

import numpy as np
import torch
from common import compare, report
from reference import warp_occupancy_literal

from implicit_atlas.geometry import grid
from implicit_atlas.geometry.kernels import warp_occupancy
from implicit_atlas.phantoms import make_phantoms
from implicit_atlas.shapes.shape import prepare
from implicit_atlas.training.augment import REACH, WarpConfig, random_warp

RESOLUTION, THREADS = 128, 1


def main() -> None:
    """Print the ratio and how many voxels differ."""
    grid.set_threads(THREADS)
    occupancy = prepare(make_phantoms("two-lobe", 1)[0].mask).occupancy
    displacement, matrix = random_warp(WarpConfig(), np.random.default_rng(0))
    axes = np.repeat(np.linspace(-1, 1, RESOLUTION, dtype=np.float32)[:, None], 3, axis=1)
    out = np.empty((RESOLUTION,) * 3, bool)
    volume = torch.from_numpy(occupancy.astype(np.float32))
    lattice, square, lines = (torch.from_numpy(array) for array in (displacement, matrix, axes))

    def product() -> np.ndarray:
        padded = np.pad(occupancy.astype(np.uint8), 1)
        warp_occupancy(padded, displacement, np.float32(REACH), matrix, axes, out)
        return out

    def reference() -> np.ndarray:
        return warp_occupancy_literal(volume, lattice, REACH, square, lines).numpy()

    print(f"{(product() != reference()).sum()} of {RESOLUTION**3} voxels differ")
    report(compare(f"warp of an occupancy at {RESOLUTION}^3", product, reference))


if __name__ == "__main__":
    main()
