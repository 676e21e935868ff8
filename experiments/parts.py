"""Parts carried from labelled cases to unseen ones: python -m experiments.parts MODEL, on hippocampi of the Decathlon.

Their masks say which voxels are anterior (1) and which posterior (2). The parts of 1, 3 and 5 training cases are
carried to every unseen case through the template, beside two simpler ways: by the place in the organ's box (an affine
map), and by that place in the one labelled case that is most alike. Results are kept in
experiments/results/parts-hippocampus.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import implicit_atlas
from experiments.cells.cell import RESULTS
from experiments.cells.data import DEFAULT_DATA
from implicit_atlas.correspondence.through_template import Labelled, transfer_labels
from implicit_atlas.geometry.surface import CubeMesh
from implicit_atlas.io import case_name, find_cases, read_labels
from implicit_atlas.metrics import dsc
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.files import write_atomic
from implicit_atlas.tasks.reconstruct import Reconstruction
from implicit_atlas.tasks.transfer import Alike, parts_of
from implicit_atlas.trained_atlas import TrainedAtlas

COUNTS = (1, 3, 5)
PARTS = {1: "anterior", 2: "posterior"}


@dataclass(frozen=True, eq=False)
class Described:
    """Of a case's voxels: their places in the organ's box and in the template, with their true parts."""

    found: Reconstruction
    box: Labelled
    template: Labelled


def described(atlas: TrainedAtlas, found: Reconstruction, template: CubeMesh) -> Described:
    """The voxels of a labelled case."""
    mask = found.case.mask
    voxels = np.argwhere(mask.occupancy)
    parts = read_labels(mask.path).values[tuple(voxels.T)]
    box = found.fit.placed().voxel_to_cube(voxels.astype(np.float64))
    return Described(found, Labelled(box, parts), parts_of(atlas, found, template))


def carried(alike: Alike, known: list[Reconstruction], unseen: list[Reconstruction]) -> dict[str, Any]:
    """DSC in percent of the parts of every unseen case, for each number of labelled cases and each way."""
    sources, targets = (
        [described(alike.atlas, one, alike.template) for one in cases] for cases in (known, unseen)
    )
    out = {}
    for count in COUNTS:
        few, rows = sources[:count], []
        for one in targets:
            truth, shape = one.box.labels, one.found.case.shape.occupancy
            alike = max(few, key=lambda source, shape=shape: dsc(source.found.case.shape.occupancy, shape))
            ways = {
                "template": transfer_labels([source.template for source in few], one.template.places),
                "affine": transfer_labels([source.box for source in few], one.box.places),
                "nearest shape": transfer_labels([alike.box], one.box.places),
            }
            row: dict[str, Any] = {"name": one.found.fit.name}
            for way, parts in ways.items():
                row[way] = [round(100 * _overlap(truth == part, parts == part), 3) for part in PARTS]
            rows.append(row)
        out[str(count)] = rows
    return out


def _overlap(truth: np.ndarray, found: np.ndarray) -> float:
    total = truth.sum() + found.sum()
    return float(2 * (truth & found).sum() / total) if total else 1.0


@exit_status
def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="atlas that has learned from `train`")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA / "hippocampus")
    parser.add_argument("--local", action="store_true", help="fit a local residual, too")
    options = parser.parse_args()
    atlas = implicit_atlas.load(str(options.model))
    alike = Alike(atlas, local=options.local)
    split = json.loads((options.data / "splits.json").read_text(encoding="utf-8"))
    paths = {case_name(path): path for path in find_cases(options.data / "masks").paths}
    known, unseen = (
        list(alike.fits([paths[case_name(Path(n))] for n in names]))
        for names in (split["few_shot"], split["val"])
    )
    found = carried(alike, known, unseen)
    about = {
        "cases": len(unseen),
        "local": options.local,
        "steps": atlas.provenance["steps"],
        "training_shapes": len(atlas.config.names),
        "problems": [str(problem.message) for problem in alike.problems],
    }
    name = f"parts-hippocampus{'-local' if options.local else ''}.json"
    write_atomic(RESULTS / name, (json.dumps({"about": about, "parts": found}, indent=1) + "\n").encode())
    for count, rows in found.items():
        for way in ("template", "affine", "nearest shape"):
            mean = np.mean([row[way] for row in rows], axis=0)
            print(
                f"{count} labelled, {way}: "
                + ", ".join(f"{PARTS[p]} {v:.2f}" for p, v in zip(PARTS, mean, strict=True))
            )


if __name__ == "__main__":
    sys.exit(main())
