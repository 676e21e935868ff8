"""Preparing masks against scipy.ndimage.zoom(order=3) in one run: seconds a shape, ratio, and voxels that agree.

Run: python benchmarks/bench_prepare.py [--cases 6] [--json FILE]

Reads hippocampi and livers of ../shared/data where they are, and balls of the same sizes where not. One
process. scipy gets the box as float32, which is its faster type.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from implicit_atlas.geometry.frame import bounding_box
from implicit_atlas.geometry.resample import resample_cubic
from implicit_atlas.io import Mask, list_cases, read_mask
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.shape import prepare

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
BALL_SHAPES = {"hippocampus": (35, 51, 35), "liver": (310, 250, 143)}
RESOLUTION = 128
REPEATS = 3


@dataclass(frozen=True)
class Timing:
    """One mask: seconds of each way, and the share of voxels on which they agree."""

    case: str
    box: tuple[int, ...]
    scipy_seconds: float
    resample_seconds: float
    prepare_seconds: float
    agreement: float

    @property
    def ratio(self) -> float:
        """How many times faster the whole of `prepare` is than scipy's zoom alone."""
        return self.scipy_seconds / self.prepare_seconds


def masks_of(organ: str, cases: int) -> list[Mask]:
    """Masks spread over the organ's folder, or a ball."""
    folder = DATA / organ / "masks"
    if folder.is_dir():
        paths = list_cases(folder)
        return [read_mask(paths[i]) for i in np.linspace(0, len(paths) - 1, cases).astype(int)]
    shape = BALL_SHAPES[organ]
    axes = np.ix_(*[np.linspace(-1.05, 1.05, n) for n in shape])
    ball = axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2 < 1
    return [Mask(ball, Grid(shape, np.eye(4)), Path(f"{organ}-ball.nii"), (), np.dtype(np.uint8))]


def best_seconds(call: Callable[[], object]) -> float:
    """Best of a few runs."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def timing_of(mask: Mask) -> Timing:
    """Time one mask both ways."""
    box = mask.grid.to_canonical(mask.occupancy)[bounding_box(mask.occupancy, mask.grid)]
    zoom = [RESOLUTION / n for n in box.shape]
    reference = ndimage.zoom(box.astype(np.float64), zoom, order=3) > 0.5
    return Timing(
        mask.path.name,
        box.shape,
        best_seconds(lambda: ndimage.zoom(box.astype(np.float32), zoom, order=3) > 0.5),
        best_seconds(lambda: resample_cubic(box, RESOLUTION) > 0.5),
        best_seconds(lambda: prepare(mask, RESOLUTION, content_hash="")),
        float((prepare(mask, RESOLUTION).occupancy == reference).mean()),
    )


def main() -> None:
    """Time the organs and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=6, help="masks of each organ")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    results: dict[str, object] = {"resolution": RESOLUTION, "best_of": REPEATS}
    for organ in BALL_SHAPES:
        timings = [timing_of(mask) for mask in masks_of(organ, options.cases)]
        for timing in timings:
            box = "x".join(map(str, timing.box))
            print(
                f"{timing.case:28s} box {box:12s} scipy {timing.scipy_seconds:6.3f} s   "
                f"resample {timing.resample_seconds:6.4f} s   prepare {timing.prepare_seconds:6.4f} s   "
                f"{timing.ratio:5.1f}x faster   agree {100 * timing.agreement:.5f} %"
            )
        ratios = [timing.ratio for timing in timings]
        results[organ] = {
            "least_ratio": min(ratios),
            "mean_ratio": float(np.mean(ratios)),
            "least_agreement": min(timing.agreement for timing in timings),
            "cases": len(timings),
        }
        print(
            f"{organ}: {min(ratios):.1f}x to {max(ratios):.1f}x faster, {np.mean(ratios):.1f}x on average\n"
        )
    text = json.dumps(results, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
