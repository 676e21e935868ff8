"""What repair of annotations reaches: python -m experiments.repairs MODEL --organ hippocampus.

MODEL has learned from `train` alone. Clean masks of `val` are changed on purpose (`experiments.cells.corrupt`, and
holes and islands here), repaired, and compared with the clean ones, beside what one would use instead: a Gaussian of
one voxel, a median of 3³ voxels, and the mean of both. Results: experiments/results/repairs-ORGAN.json, for
docs/uses.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, uniform_filter

from experiments.cells.corrupt import PAD_MM, corrupt
from experiments.cells.measurement import TOLERANCE_MM, run_measurement
from implicit_atlas.io import Mask, Problem, case_name, write_mask
from implicit_atlas.metrics import score
from implicit_atlas.repair.annotations import CODE_WEIGHT, KEEP_VOXELS, repair
from implicit_atlas.trained_atlas import TrainedAtlas

PIECES = {"pieces-1": 1, "pieces-2": 3, "pieces-3": 6}  # holes, and as many islands
HOLE_MM, ISLAND_MM = 3.0, 2.0  # radii
KINDS = (*(f"{kind}-{k}" for kind in ("label", "slices", "border") for k in (1, 2, 3)), *PIECES)
THIN_MM = 2.5  # the organ is thin where no ball of this radius fits

Occupancy = np.ndarray


def holes_and_islands(clean: Occupancy, spacing_mm: np.ndarray, count: int, name: str) -> Occupancy:
    """The organ with balls taken out of it, and balls beside it, 3 to 6 voxels away."""
    rng = np.random.default_rng(list(name.encode()))
    where_mm = np.indices(clean.shape).reshape(3, -1).T * spacing_mm
    inner = np.argwhere(clean)
    around = np.argwhere(binary_dilation(clean, iterations=6) & ~binary_dilation(clean, iterations=3))
    out = clean.copy()
    for _ in range(count):
        for places, radius_mm, filled in ((inner, HOLE_MM, False), (around, ISLAND_MM, True)):
            centre_mm = places[rng.integers(len(places))] * spacing_mm
            ball = np.square(where_mm - centre_mm).sum(1) <= radius_mm**2
            out[ball.reshape(out.shape)] = filled
    return out


def changed(mask: Mask, kind: str) -> Occupancy:
    """A clean mask as a poor annotation would give it."""
    spacing_mm = mask.grid.spacing_mm
    pad = [(int(np.ceil(PAD_MM / size)),) * 2 for size in spacing_mm]
    clean, name = np.pad(mask.occupancy, pad), case_name(mask.path)
    poor = (
        holes_and_islands(clean, spacing_mm, PIECES[kind], name)
        if kind in PIECES
        else corrupt(clean, spacing_mm, kind, name)
    )
    return poor[tuple(slice(n, -n) for n, _ in pad)]


def smoothed(occupancy: Occupancy) -> dict[str, Occupancy]:
    """What one would use instead."""
    values = occupancy.astype(np.float32)
    blurred = gaussian_filter(values, 1.0)
    share = uniform_filter(values, 3)  # more than half of 27: the median of 0 and 1
    return {"gaussian": blurred > 0.5, "median": share > 0.5, "mean of both": blurred + share > 1}


def thin_part(mask: Mask) -> Occupancy:
    """Voxels of the organ that lie in no ball of `THIN_MM` within it."""
    spacing = mask.grid.spacing_mm
    depth = np.asarray(distance_transform_edt(np.pad(mask.occupancy, 1), sampling=spacing))
    core = depth >= THIN_MM
    if not core.any():
        return mask.occupancy
    opened = np.asarray(distance_transform_edt(~core, sampling=spacing)) < THIN_MM
    return mask.occupancy & ~opened[1:-1, 1:-1, 1:-1]


def measure(
    atlas: TrainedAtlas,
    masks: list[Mask],
    report: Callable[[str], object],
    kinds: Sequence[str] = ("clean", *KINDS),
) -> dict[str, Any]:
    """{kind: {method: [DSC, NSD, ASSD mm, share of the thin part kept]}}, means over the cases, in percent."""
    out: dict[str, Any] = {}
    thin = [thin_part(mask) for mask in masks]
    for kind in kinds:
        poor = [mask.occupancy if kind == "clean" else changed(mask, kind) for mask in masks]
        rows = [{"as it is": one, **smoothed(one)} for one in poor]
        for row, found in zip(rows, _repaired(atlas, masks, poor), strict=True):
            row["repaired"] = found
        out[kind] = {
            method: np.mean(
                [_scores(m, t, row[method]) for m, t, row in zip(masks, thin, rows, strict=True)], axis=0
            )
            .round(3)
            .tolist()
            for method in rows[0]
        }
        report(f"{kind}: {out[kind]}")
    return out


def _repaired(atlas: TrainedAtlas, masks: list[Mask], poor: list[Occupancy]) -> list[Occupancy]:
    """Repaired masks; one that cannot be repaired is taken as it is."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{case_name(mask.path)}.nii.gz" for mask in masks]
        for path, mask, one in zip(paths, masks, poor, strict=True):
            write_mask(path, one, mask.grid)
        problems: list[Problem] = []
        done = {
            found.fit.name: found.occupancy for found in repair(atlas, paths, (1,), None, problems.append)
        }
        for problem in problems:
            print(f"not repaired: {problem.name}: {problem.message}", flush=True)
        return [done.get(case_name(path), one) for path, one in zip(paths, poor, strict=True)]


def _scores(mask: Mask, thin: Occupancy, found: Occupancy) -> list[float]:
    scores = score(mask.occupancy, found, mask.grid.spacing_mm.tolist(), TOLERANCE_MM)
    kept = float(found[thin].mean()) if thin.any() else 1.0
    return [100 * scores.dsc, 100 * scores.nsd, scores.assd, 100 * kept]


def main() -> int:
    """Measure, and keep what was found."""
    about = {"thin_mm": THIN_MM, "keep_voxels": KEEP_VOXELS, "code_weight": CODE_WEIGHT}
    return run_measurement(
        __doc__,
        "repairs",
        "repairs",
        measure,
        lambda atlas: {**about, "degrees_of_freedom": atlas.codes.shape[1]},
        ("clean", *KINDS),
    )


if __name__ == "__main__":
    sys.exit(main())
