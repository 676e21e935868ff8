"""Coarse-to-fine evaluation against dense evaluation of a costly field at 128^3, to volume and to mesh.

Run: python benchmarks/bench_surface.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from implicit_atlas.surface import dense_volume, field_mesh, sparse_volume, volume_mesh

RESOLUTION = 128
REPEATS = 3
Result = TypeVar("Result")


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


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Result and the best seconds of a few calls."""
    seconds = []
    for _ in range(REPEATS - 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    result = call()
    return result, min(*seconds, time.perf_counter() - start)


def main() -> None:
    """Print seconds, ratio and the share of points asked."""
    field = costly_ball()
    dense, dense_seconds = timed(lambda: dense_volume(field, RESOLUTION))
    sparse, sparse_seconds = timed(lambda: sparse_volume(field, RESOLUTION))
    dense_mesh, meshing_seconds = timed(lambda: volume_mesh(dense.values))
    mesh, mesh_seconds = timed(lambda: field_mesh(field, RESOLUTION))
    same = np.array_equal(dense_mesh.vertices, mesh.vertices) and np.array_equal(dense_mesh.faces, mesh.faces)
    print(
        f"{RESOLUTION}^3, {torch.get_num_threads()} threads; asked {sparse.evaluated / dense.evaluated:.1%}"
    )
    print(f"{'':10}{'dense s':>10}{'sparse s':>10}{'ratio':>8}")
    print(f"{'volume':10}{dense_seconds:10.3f}{sparse_seconds:10.3f}{dense_seconds / sparse_seconds:8.1f}")
    total = dense_seconds + meshing_seconds
    print(f"{'mesh':10}{total:10.3f}{mesh_seconds:10.3f}{total / mesh_seconds:8.1f}")
    print(f"same mesh: {same}, {len(mesh.faces)} faces")


if __name__ == "__main__":
    main()
