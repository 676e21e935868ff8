"""How good random shapes are: python -m experiments.generation MODEL --organ hippocampus.

MODEL has learned from `train` alone, and so has the shape model that it is compared with: principal components of the
same shapes' signed distances, all that there are of them up to the length of a code. All shapes are compared in the
cube, without their sizes. Results: experiments/results/generation-ORGAN.json, for docs/uses.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import label

import implicit_atlas
from experiments.applications import about_run
from experiments.cell import RESULTS
from experiments.classical import linear_model
from experiments.data import load_split
from implicit_atlas.atlas import TrainedAtlas
from implicit_atlas.console import exit_status
from implicit_atlas.errors import InputError
from implicit_atlas.files import write_atomic
from implicit_atlas.generation import generate
from implicit_atlas.shapes import Shape
from implicit_atlas.surface import volume_mesh

COUNT = 100
TEMPERATURES = (1.0, 0.8)


def pairwise_dsc(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """DSC of each pair of shapes, in percent; shapes are rows of packed bits."""
    one, other = (np.bitwise_count(rows).sum(1, dtype=np.int64) for rows in (first, second))
    both = np.stack([np.bitwise_count(second & row).sum(1, dtype=np.int64) for row in first])
    return 200 * both / (one[:, None] + other)


def of_components(
    shapes: Sequence[Shape], components: int, temperature: float
) -> tuple[list[np.ndarray], int]:
    """Random shapes of a model of principal components, and how many components it has."""
    model, side = linear_model(shapes, components), shapes[0].frame.resolution
    rng = np.random.default_rng(0)
    fields = []
    for _ in range(COUNT):
        z = rng.standard_normal(len(model.deviation)) * temperature
        field = model.mean + (z * model.deviation).astype(np.float32) @ model.basis
        fields.append((field > 0).reshape((side,) * 3))
    return fields, len(model.deviation)


def excess_area(occupancy: np.ndarray) -> float:
    """Surface of a shape over that of a ball of its volume: the rougher, the larger."""
    mesh = volume_mesh(occupancy.astype(np.float32), 0.5)
    corners = mesh.vertices[mesh.faces] * len(occupancy) / 2
    area = (
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()
        / 2
    )
    return float(area / (36 * np.pi * occupancy.sum() ** 2) ** (1 / 3))


def described(made: Sequence[np.ndarray], known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
    """Numbers of one way to make shapes.

    Args:
        made: occupancies.
        known: packed training shapes.
        unknown: packed unseen shapes.
    """
    packed = np.stack([np.packbits(occupancy) for occupancy in made])
    among = pairwise_dsc(packed, packed)[~np.eye(len(packed), dtype=bool)]
    numbers = {
        "nearest training shape": pairwise_dsc(packed, known).max(1).mean(),
        "nearest to unseen shapes": pairwise_dsc(unknown, packed).max(1).mean(),
        "among themselves": among.mean(),
        "excess area": np.mean([excess_area(occupancy) for occupancy in made]),
        "one piece": 100 * np.mean([label(occupancy)[1] == 1 for occupancy in made]),
    }
    return {name: round(float(value), 3) for name, value in numbers.items()}


def measure(atlas: TrainedAtlas, known: Sequence[Shape], unknown: Sequence[Shape]) -> dict[str, Any]:
    """Numbers by the way that shapes are made; "real" are unseen ones.

    Raises:
        InputError: the atlas has another frame than the shapes.
    """
    frame, about = known[0].frame, atlas.config
    if (frame.resolution, frame.margin, frame.kind) != (about.resolution, about.margin, about.frame):
        problem = f"has a frame of {about.resolution} voxels and a margin of {about.margin}"
        raise InputError("the atlas", problem, "Give one of a cell of Table 2: runs/*/model.atlas.")
    packed, others = (np.stack([shape.packed for shape in shapes]) for shapes in (known, unknown))
    out: dict[str, Any] = {"real": described([shape.occupancy for shape in unknown], packed, others)}
    del out["real"]["nearest to unseen shapes"]  # they are the unseen shapes
    for temperature in TEMPERATURES:
        made = [fit.occupancy() for fit in generate(atlas, COUNT, temperature=temperature)]
        out[f"ours, temperature {temperature}"] = described(made, packed, others)
        made, count = of_components(known, atlas.codes.shape[1], temperature)
        out[f"{count} principal components, temperature {temperature}"] = described(made, packed, others)
    return out


@exit_status
def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--organ", default="hippocampus")
    parser.add_argument("--data", type=Path, help="folder with masks/ and splits.json")
    options = parser.parse_args()
    atlas, split = implicit_atlas.load(str(options.model)), load_split(options.organ, options.data)
    begun = time.perf_counter()
    found = measure(atlas, split.known, split.unknown)
    about = about_run(atlas, options.organ, split.unknown) | {"made": COUNT}
    about["seconds"] = round(time.perf_counter() - begun, 1)
    path = RESULTS / f"generation-{options.organ}.json"
    write_atomic(path, (json.dumps({"about": about, "generation": found}, indent=1) + "\n").encode())
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(main())
