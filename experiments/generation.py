"""How good random shapes are: python -m experiments.generation MODEL --organ hippocampus.

MODEL has learned from `train` alone, and so has the shape model that it is compared with: principal components of the
same shapes' signed distances, all that there are of them up to the length of a code. All shapes are compared in the
cube, without their sizes. Results: experiments/results/generation-ORGAN.json, for docs/uses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import label

from experiments.cells.measurement import known_shapes, run_measurement
from experiments.peers.classical import linear_model
from implicit_atlas.generation import generate
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.geometry.surface import volume_mesh
from implicit_atlas.io import Mask
from implicit_atlas.shapes.shape import Shape, prepare
from implicit_atlas.trained_atlas import TrainedAtlas

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


def volumes(volumes_mm3: Sequence[float]) -> dict[str, float]:
    """How large shapes are in a scan: their mean volume in ml, and its deviation in percent of it."""
    of = np.asarray(volumes_mm3) / 1000
    return {
        "volume ml": round(float(of.mean()), 3),
        "volume ± %": round(float(100 * of.std(ddof=1) / of.mean()), 2),
    }


def volume_mm3(occupancy: np.ndarray, frame: Frame) -> float:
    """Of a shape in the cube of a frame."""
    return float(occupancy.sum() * np.prod(frame.lattice_spacing_mm))


def measure(atlas: TrainedAtlas, masks: list[Mask], report: Callable[[str], object]) -> dict[str, Any]:
    """Numbers by the way that shapes are made, in the atlas's frame."""
    margin = atlas.config.margin
    known = known_shapes(atlas, masks[0].path.parent, margin)
    return compare(atlas, known, [prepare(mask, margin=margin) for mask in masks], report)


def compare(
    atlas: TrainedAtlas, known: Sequence[Shape], unknown: Sequence[Shape], report: Callable[[str], object]
) -> dict[str, Any]:
    """Numbers by the way that shapes are made; "real" are unseen ones."""
    packed, others = (np.stack([shape.packed for shape in shapes]) for shapes in (known, unknown))
    real = described([shape.occupancy for shape in unknown], packed, others)
    del real["nearest to unseen shapes"]  # they are the unseen shapes
    out = {"real": real | volumes([volume_mm3(shape.occupancy, shape.frame) for shape in unknown])}
    for temperature in TEMPERATURES:
        fits = generate(atlas, COUNT, temperature=temperature)
        made = [fit.occupancy() for fit in fits]
        in_mm = [volume_mm3(shape, fit.placed()) for shape, fit in zip(made, fits, strict=True)]
        out[f"ours, temperature {temperature}"] = described(made, packed, others) | volumes(in_mm)
        made, count = of_components(known, atlas.codes.shape[1], temperature)
        out[f"{count} principal components, temperature {temperature}"] = described(made, packed, others)
        report(f"temperature {temperature}: done")
    return out


def main() -> int:
    """Measure and keep."""
    return run_measurement(__doc__, "generation", "generation", measure, lambda atlas: {"made": COUNT})


if __name__ == "__main__":
    sys.exit(main())
