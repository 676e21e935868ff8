"""One atlas of organs of both sides: python -m experiments.both_sides --steps 1000.

From the five few-shot kidneys (names end in _L and _R), by the product's defaults: as they are, and with the right ones
mirrored, as `implicit-atlas train MASKS --only ... --mirror right.txt` does it. All unseen ones are fitted, by the
second atlas the right ones mirrored. Models that are in --models already are taken from there.
Results: experiments/results/both-sides-kidney.json, for docs/uses/sides.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.cells.cell import RESULTS, RUNS
from experiments.cells.data import DEFAULT_DATA, load_split
from implicit_atlas import load, train
from implicit_atlas.fitting.code_fit import FEW_AT_ONCE, FitConfig
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.files import write_atomic
from implicit_atlas.tasks.evaluate import evaluate
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import default_config
from implicit_atlas.training.learning import best_device

ORGAN = "kidney"
WAYS = {"as they are": False, "the right ones mirrored": True}


def turned(shapes: Sequence[Shape], mirrored: bool) -> list[Shape]:
    """Shapes, the right ones mirrored or not."""
    return [shape.mirrored() if mirrored and shape.name.endswith("_R") else shape for shape in shapes]


def model_of(path: Path, shapes: Sequence[Shape], steps: int) -> TrainedAtlas:
    """An atlas of shapes, as the command `train` makes it; that of an earlier call, where there is one."""
    if path.exists():
        return load(str(path))
    atlas = train(shapes, config=default_config(len(shapes), best_device(), steps=steps))
    path.parent.mkdir(parents=True, exist_ok=True)
    atlas.save(path)
    return atlas


def measure(models: Path, data: Path, steps: int) -> dict[str, dict[str, Any]]:
    """Mean scores of unseen organs, and how many there are, by the way that shapes are given."""
    split, out = load_split(ORGAN, data), {}
    for way, mirrored in WAYS.items():
        name = "mirrored" if mirrored else "as-they-are"
        atlas = model_of(models / f"{name}.atlas", turned(split.training("few_shot"), mirrored), steps)
        found = evaluate(atlas, turned(split.unknown, mirrored), FitConfig(batch=FEW_AT_ONCE))
        out[way] = {**found.mean(), "cases": len(found.cases), "failed": len(found.problems)}
        out[way]["protocol"] = found.protocol.line()
        print(f"{way}: {out[way]}", flush=True)
    return out


@exit_status
def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA / ORGAN, help="folder with masks/ and splits.json"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--models", type=Path, default=RUNS / "both-sides")
    options = parser.parse_args()
    begun = time.perf_counter()
    rows = measure(options.models, options.data, options.steps)
    about = {"organ": ORGAN, "steps": options.steps, "seconds": round(time.perf_counter() - begun, 1)}
    text = json.dumps({"about": about, "both_sides": rows}, indent=1) + "\n"
    write_atomic(RESULTS / f"both-sides-{ORGAN}.json", text.encode())


if __name__ == "__main__":
    sys.exit(main())
