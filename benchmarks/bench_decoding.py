"""A code to a mesh at 128³: coarse-to-fine on folded maps against dense queries in the paper's literal order.

The network has the product's default sizes and is trained for a minute, so that its surface is that of an organ.
Run: python benchmarks/bench_decoding.py
"""

from __future__ import annotations

import numpy as np
import torch
from common import compare, report
from reference import LiteralAtlas

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.geometry import grid
from implicit_atlas.geometry.surface import CubeMesh, volume_mesh
from implicit_atlas.phantoms import make_phantoms
from implicit_atlas.shapes.sampling import FEWER_POINTS
from implicit_atlas.shapes.shape import prepare
from implicit_atlas.training import TrainConfig
from implicit_atlas.training.config import fast_precision
from implicit_atlas.training.learning import train

RESOLUTION, SHAPES, STEPS, THREADS, REPEATS, GOAL = 128, 8, 60, 2, 5, 8.0


def main() -> None:
    """Print the ratio, the share of points asked and how far the meshes agree."""
    grid.set_threads(THREADS)
    shapes = [prepare(phantom.mask) for phantom in make_phantoms("two-lobe", SHAPES)]
    config = TrainConfig(steps=STEPS, batch=SHAPES, points=FEWER_POINTS, precision=fast_precision("cpu"))
    atlas = train(shapes, config=config)
    fit = atlas.known(shapes[0].name)
    assert isinstance(atlas.network, Atlas)
    literal, code = LiteralAtlas(atlas.network).eval(), torch.from_numpy(fit.found.code)
    lattice = grid.lattice(RESOLUTION)

    def product() -> CubeMesh:
        return fit.cube_mesh(RESOLUTION)

    def reference() -> CubeMesh:
        return volume_mesh(grid.as_numpy(literal.dense(code, lattice)))

    ours, theirs = product(), reference()
    truth = shapes[0].occupancy
    found = fit.occupancy(RESOLUTION)
    same = np.mean(found == (grid.as_numpy(literal.dense(code, lattice)) > 0))
    print(
        f"{len(ours.faces)} and {len(theirs.faces)} faces, {same:.4%} of voxels agree, "
        f"{ours.evaluated / RESOLUTION**3:.1%} of points asked, "
        f"DSC to the organ {200 * (found & truth).sum() / (found.sum() + truth.sum()):.1f} %"
    )
    report(compare(f"code to mesh at {RESOLUTION}^3", product, reference, GOAL, REPEATS))


if __name__ == "__main__":
    main()
