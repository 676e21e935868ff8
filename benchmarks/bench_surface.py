"""Coarse-to-fine evaluation against dense evaluation of a costly field at 128^3, to volume and to mesh.

Run: python benchmarks/bench_surface.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from common import compare, report

from implicit_atlas.geometry.surface import dense_volume, field_mesh, sparse_volume, volume_mesh

RESOLUTION = 128
REPEATS = 3


def costly_ball(width: int = 64) -> Callable[[np.ndarray], np.ndarray]:
    """A bumpy ball, at the price of a point-wise network of three hidden layers."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, width), torch.nn.ReLU()]
    for _ in range(2):
        layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1)).eval()

    def values_at(points: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(points)
        with torch.inference_mode():
            bumps = network(3 * inputs)[:, 0]
            return (0.85 - inputs.norm(dim=1) + 0.3 * bumps).numpy()

    return values_at


def main() -> None:
    """Print seconds, ratio, the share of points asked, and whether the meshes are the same."""
    field = costly_ball()
    dense, sparse = dense_volume(field, RESOLUTION), sparse_volume(field, RESOLUTION)
    dense_mesh, mesh = volume_mesh(dense.values), field_mesh(field, RESOLUTION)
    same = np.array_equal(dense_mesh.vertices, mesh.vertices) and np.array_equal(dense_mesh.faces, mesh.faces)
    print(
        f"{sparse.evaluated / dense.evaluated:.1%} of points asked; same mesh: {same}, {len(mesh.faces)} faces"
    )
    report(
        compare(
            f"field to volume at {RESOLUTION}^3",
            lambda: sparse_volume(field, RESOLUTION),
            lambda: dense_volume(field, RESOLUTION),
            repeats=REPEATS,
        )
    )
    report(
        compare(
            f"field to mesh at {RESOLUTION}^3",
            lambda: field_mesh(field, RESOLUTION),
            lambda: volume_mesh(dense_volume(field, RESOLUTION).values),
            repeats=REPEATS,
        )
    )


if __name__ == "__main__":
    main()
