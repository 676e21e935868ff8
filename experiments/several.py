"""Several organs in one go, measured: python -m experiments.several MODELS --organ hippocampus.

MODELS is what `implicit-atlas organs train` made of some label maps of `train`, with `--organ anterior=1 --organ
posterior=2`: two parts that touch. Those of `val` are fitted, each part by its own atlas, and merged into one map.
Results: experiments/results/organs-hippocampus.json, for docs/uses/organs.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import implicit_atlas
from experiments.cells.cell import RESULTS
from experiments.cells.data import DEFAULT_DATA
from experiments.cells.measurement import TOLERANCE_MM, about_run, unseen
from implicit_atlas.io import Problem, case_name, read_labels
from implicit_atlas.metrics import score
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.files import write_atomic
from implicit_atlas.tasks.organs import reconstruct_organs
from implicit_atlas.trained_atlas import TrainedAtlas


def measure(
    atlases: dict[str, TrainedAtlas], paths: list[Path], problems: list[Problem]
) -> list[dict[str, Any]]:
    """[DSC, NSD] of each part by case, in percent, and how many voxels two of them claimed."""
    rows, sources = [], {case_name(path): path for path in paths}
    for case in reconstruct_organs(atlases, paths, on_problem=problems.append):
        truth, row = read_labels(sources[case.name]).values, {"name": case.name, "contested": case.contested}
        for name, atlas in atlases.items():
            there, found = np.isin(truth, atlas.config.labels), case.labels == atlas.config.labels[0]
            scores = score(there, found, case.grid.spacing_mm.tolist(), TOLERANCE_MM)
            row[name] = [round(100 * scores.dsc, 3), round(100 * scores.nsd, 3)]
        rows.append(row)
    return rows


@exit_status
def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--organ", default="hippocampus")
    parser.add_argument("--data", type=Path, help="folder with masks/ and splits.json")
    options = parser.parse_args()
    problems: list[Problem] = []
    atlases = {path.stem: implicit_atlas.load(str(path)) for path in sorted(options.models.glob("*.atlas"))}
    masks = unseen(options.data or DEFAULT_DATA / options.organ, 1)
    begun = time.perf_counter()
    rows = measure(atlases, [mask.path for mask in masks], problems)
    about = about_run(next(iter(atlases.values())), options.organ, masks)
    about |= {"seconds": round(time.perf_counter() - begun, 1), "problems": len(problems)}
    text = json.dumps({"about": about, "organs": rows}, indent=1) + "\n"
    write_atomic(RESULTS / f"organs-{options.organ}.json", text.encode())


if __name__ == "__main__":
    sys.exit(main())
