"""Surface metrics against the package surface-distance on pairs of 128^3 masks: seconds a pair, and ratio.

Run: python benchmarks/bench_metrics.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from implicit_atlas import metrics

RESOLUTION = 128
REPEATS = 3


def blob(seed: int, roughness: float, radius: float = 0.85) -> np.ndarray:
    """A ball with a bumpy surface that fills most of the cube."""
    axis = np.linspace(-1, 1, RESOLUTION)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / radius
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(RESOLUTION,) * 3), RESOLUTION / 12)
    return 1 - distance + roughness * noise / noise.std() > 0


def seconds(call: Callable[[], object]) -> float:
    """Best of a few runs."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def package_scores(truth: np.ndarray, prediction: np.ndarray) -> tuple[float, float, float]:
    """NSD at 1 voxel, HD95 and ASSD by the package."""
    from surface_distance import metrics as package

    distances = package.compute_surface_distances(truth, prediction, (1.0, 1.0, 1.0))
    return (
        package.compute_surface_dice_at_tolerance(distances, 1.0),
        package.compute_robust_hausdorff(distances, 95),
        float(np.mean(package.compute_average_surface_distance(distances))),
    )


def our_scores(truth: np.ndarray, prediction: np.ndarray) -> tuple[float, float, float]:
    """NSD at 1 voxel, HD95 and ASSD by this library."""
    distances = metrics.surface_distances(truth, prediction, (1.0, 1.0, 1.0))
    return metrics.nsd(distances, 1.0), metrics.hd95(distances), metrics.assd(distances)


def main() -> None:
    """Print one line for each kind of pair."""
    # The package predates NumPy 2, which removed these names.
    for name, value in (("Inf", np.inf), ("NaN", np.nan)):
        setattr(np, name, value)
    pairs = {
        "close (a good fit)": (blob(1, 0.075), blob(1, 0.066)),
        "apart (another organ)": (blob(1, 0.075), blob(2, 0.075)),
        "far (ball in a ball)": (blob(1, 0.0), blob(1, 0.0, radius=0.2)),
    }
    print(f"{'pair at 128^3':24}{'package s':>12}{'ours s':>12}{'ratio':>8}{'largest difference':>22}")
    for name, (truth, prediction) in pairs.items():
        package = seconds(lambda t=truth, p=prediction: package_scores(t, p))
        ours = seconds(lambda t=truth, p=prediction: our_scores(t, p))
        difference = np.abs(
            np.subtract(package_scores(truth, prediction), our_scores(truth, prediction))
        ).max()
        print(f"{name:24}{package:12.3f}{ours:12.3f}{package / ours:8.1f}{difference:22.1e}")


if __name__ == "__main__":
    main()
