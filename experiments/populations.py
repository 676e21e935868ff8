"""What statistics say of unseen shapes in correspondence: python -m experiments.populations MODEL --organ hippocampus.

MODEL has learned from `train` alone. Meshes of one topology, one a case of `val`, are aligned; their principal modes
are measured, and groups compared: the larger half of the organs with the smaller one, which differ, and random halves,
which do not. Results: experiments/results/populations-ORGAN.json, for docs/uses/statistics.md, and the picture there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells.data import HERE
from experiments.cells.measurement import run_measurement
from implicit_atlas.io import Mask, case_name
from implicit_atlas.pictures import Panel, surfaces
from implicit_atlas.statistics import align, compare_groups, principal_modes
from implicit_atlas.statistics.alignment import Alignment
from implicit_atlas.statistics.files import DEVIATIONS, corresponding, write_modes
from implicit_atlas.tasks.formats import Formats
from implicit_atlas.tasks.transfer import Alike, correspond_all
from implicit_atlas.trained_atlas import TrainedAtlas

RESOLUTION, MODES, SHOWN, PERMUTATIONS, LEVEL = 40, 10, 3, 1000, 0.05
GREY = (0.62, 0.75, 0.55)
REACH = 0.5  # of the largest motion: what is full red or blue


def measure(atlas: TrainedAtlas, masks: list[Mask], report: Callable[[str], object]) -> dict[str, Any]:
    """{"meshes": correspondence of each case, "curves": by modes, "groups": by how the halves were chosen}."""
    alike = Alike(atlas, local=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        meshes = list(correspond_all(alike, [mask.path for mask in masks], folder, RESOLUTION))
        for problem in alike.problems:
            report(f"left out: {problem.name}: {problem.message}")
        report(f"{len(meshes)} meshes of {meshes[0]['vertices']} vertices")
        names = [row["name"] for row in meshes]
        paths = [Formats().mesh_path(folder, name) for name in names]
        shapes, faces = corresponding(paths, folder / "vertices.npy")
        alike = align(shapes)
        curves, _ = write_modes(alike, faces, names, MODES, folder)
        organ = masks[0].path.parent.parent.name  # of ORGAN/masks
        picture = HERE.parent / "docs" / "uses" / f"statistics-{organ}.png"
        picture.parent.mkdir(exist_ok=True)
        draw_modes(alike, faces, picture)
        volume = {
            case_name(mask.path): float(mask.occupancy.sum() * mask.grid.voxel_volume_mm3) for mask in masks
        }
        groups = halves(alike, np.array([volume[name] for name in names]))
    for way, row in groups.items():
        report(f"{way}: {row}")
    return {"meshes": meshes, "curves": curves, "groups": groups}


def halves(shapes: Alignment, volumes: np.ndarray) -> dict[str, Any]:
    """Comparison of the larger with the smaller half of the organs, and of random halves."""
    ranks = np.argsort(np.argsort(volumes))
    chosen = {
        "larger and smaller half": ranks >= len(ranks) // 2,
        "random halves": np.random.default_rng(0).permutation(len(ranks)) >= len(ranks) // 2,
    }
    out = {}
    for way, second in chosen.items():
        found = compare_groups(shapes, second.astype(int), PERMUTATIONS)
        differ = round(100 * float((found.q <= LEVEL).mean()), 2)
        out[way] = {
            "sizes": found.sizes,
            "p": round(found.global_p, 4),
            "vertices that differ, percent": differ,
        }
    return out


def draw_modes(shapes: Alignment, faces: np.ndarray, path: Path) -> None:
    """The mean, and the first modes at minus and plus two deviations, coloured by how far they move outwards."""
    stats = principal_modes(shapes, SHOWN)
    mean = stats.mean_mm
    corners = mean[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    moved = [DEVIATIONS * d * mode for d, mode in zip(stats.deviations_mm, stats.modes, strict=True)]
    most_mm = REACH * max(float(np.linalg.norm(motion, axis=1).max()) for motion in moved)
    rows = []
    for sign, word in ((-1, "-2 σ"), (1, "+2 σ")):
        row = [Panel(mean, faces, f"mean of {len(shapes)}", GREY)]
        for k, motion in enumerate(moved, start=1):
            outward = sign * (motion[faces].mean(1) * normals).sum(1) / most_mm
            row.append(Panel(mean + sign * motion, faces, f"mode {k}, {word}", red_and_blue(outward)))
        rows.append(row)
    surfaces(path, rows)


def red_and_blue(values: np.ndarray) -> np.ndarray:
    """Colours of values from -1 (blue) by 0 (white) to 1 (red)."""
    share = np.clip(values, -1, 1)[:, None]
    white, red, blue = np.array([0.92, 0.92, 0.9]), np.array([0.8, 0.2, 0.15]), np.array([0.15, 0.35, 0.75])
    return white + np.abs(share) * (np.where(share > 0, red, blue) - white)


def main() -> int:
    """Measure and keep."""
    return run_measurement(
        __doc__,
        "populations",
        "populations",
        measure,
        lambda atlas: {"degrees_of_freedom": atlas.codes.shape[1], "permutations": PERMUTATIONS},
    )


if __name__ == "__main__":
    sys.exit(main())
