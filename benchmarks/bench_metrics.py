"""Surface metrics against the package surface-distance on pairs of 128^3 masks: seconds a pair, and ratio.

Run: python benchmarks/bench_metrics.py
"""

from __future__ import annotations

import numpy as np
from common import compare, report
from scipy.ndimage import gaussian_filter

from implicit_atlas import metrics

RESOLUTION = 128
REPEATS = 3
GOAL = 2.0


def blob(seed: int, roughness: float, radius: float = 0.85) -> np.ndarray:
    """A ball with a bumpy surface that fills most of the cube."""
    axis = np.linspace(-1, 1, RESOLUTION)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / radius
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(RESOLUTION,) * 3), RESOLUTION / 12)
    return 1 - distance + roughness * noise / noise.std() > 0


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
    """Print seconds, ratio and largest difference for each kind of pair."""
    # The package predates NumPy 2, which removed these names.
    for name, value in (("Inf", np.inf), ("NaN", np.nan)):
        setattr(np, name, value)
    pairs = {
        "close (a good fit)": (blob(1, 0.075), blob(1, 0.066)),
        "apart (another organ)": (blob(1, 0.075), blob(2, 0.075)),
        "far (ball in a ball)": (blob(1, 0.0), blob(1, 0.0, radius=0.2)),
    }
    for name, (truth, prediction) in pairs.items():
        ours, package = our_scores(truth, prediction), package_scores(truth, prediction)
        print(f"{name}: largest difference {np.abs(np.subtract(ours, package)).max():.1e}")
        report(
            compare(
                f"metrics at {RESOLUTION}^3, {name}",
                lambda t=truth, p=prediction: our_scores(t, p),
                lambda t=truth, p=prediction: package_scores(t, p),
                GOAL,
                REPEATS,
            )
        )


if __name__ == "__main__":
    main()
