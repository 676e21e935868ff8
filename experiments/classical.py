"""Rows that learn no network; they tell what learning adds (PCA, cosine transform, nearest shape).

All work on signed distances of the 128³ lattice, in voxels, cut off at LIMIT_VOX on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.fft import dctn, idctn

from implicit_atlas.distance import squared_distance
from implicit_atlas.metrics import NSD_DEFINITION, dsc, score
from implicit_atlas.shapes import Shape, restore, restore_lattice

LIMIT_VOX = 12.0

Volume = Float[np.ndarray, "r r r"]
Rebuild = Callable[[Bool[np.ndarray, "r r r"]], Volume]


@dataclass(frozen=True)
class Rebuilder:
    """A way to rebuild a shape: a signed field, positive inside, from an occupancy; and its degrees of freedom."""

    rebuild: Rebuild
    degrees_of_freedom: int


def signed_distance(occupancy: Bool[np.ndarray, "r r r"]) -> Volume:
    """Signed distance in voxels, positive inside, zero midway between voxels, cut off."""
    inner, outer = (np.sqrt(squared_distance(side)) for side in (occupancy, ~occupancy))
    signed = np.where(occupancy, inner - 0.5, 0.5 - outer)
    return np.clip(signed, -LIMIT_VOX, LIMIT_VOX).astype(np.float32)


def pca(shapes: Sequence[Shape], components: int) -> Rebuilder:
    """Mean and principal components of the training shapes' signed distances, coefficients by projection."""
    fields = np.stack([signed_distance(shape.occupancy).ravel() for shape in shapes])
    mean = fields.mean(0)
    fields -= mean
    values, vectors = np.linalg.eigh(fields @ fields.T)
    kept = min(components, len(shapes) - 1)
    order = np.argsort(values)[::-1][:kept]
    basis = (vectors[:, order] / np.sqrt(np.maximum(values[order], 1e-9))).T.astype(np.float32) @ fields

    def rebuild(occupancy: Bool[np.ndarray, "r r r"]) -> Volume:
        field = signed_distance(occupancy)
        return (mean + ((field.ravel() - mean) @ basis.T) @ basis).reshape(field.shape)

    return Rebuilder(rebuild, kept)


def cosines(coefficients: int) -> Rebuilder:
    """The lowest frequencies of the cosine transform of a shape's signed distance; nothing is learned."""

    @cache
    def lowest_of(resolution: int) -> np.ndarray:
        side = np.arange(resolution)
        frequency = side[:, None, None] ** 2 + side[:, None] ** 2 + side**2
        return np.argsort(frequency, axis=None, kind="stable")[:coefficients]

    def rebuild(occupancy: Bool[np.ndarray, "r r r"]) -> Volume:
        spectrum = dctn(signed_distance(occupancy), norm="ortho")
        lowest, kept = lowest_of(len(occupancy)), np.zeros(spectrum.size, spectrum.dtype)
        kept[lowest] = spectrum.ravel()[lowest]
        return idctn(kept.reshape(spectrum.shape), norm="ortho")

    return Rebuilder(rebuild, coefficients)


def nearest(shapes: Sequence[Shape]) -> Rebuilder:
    """The training shape of the largest DSC."""
    known = [shape.occupancy for shape in shapes]

    def rebuild(occupancy: Bool[np.ndarray, "r r r"]) -> Volume:
        best = max(known, key=lambda other: dsc(occupancy, other))
        return np.where(best, 1.0, -1.0)

    return Rebuilder(rebuild, 0)


CLASSICAL: dict[str, Callable[[Sequence[Shape]], Rebuilder]] = {
    "pca-64": lambda shapes: pca(shapes, 64),
    "pca-128": lambda shapes: pca(shapes, 128),
    "dct-256": lambda shapes: cosines(256),
    "dct-1000": lambda shapes: cosines(1000),
    "nearest": nearest,
}


def run_classical(method: str, shapes: Sequence[Shape], unknown: Sequence[Shape]) -> dict[str, Any]:
    """Scores of known and unknown shapes, as `experiments.cell` keeps them."""
    begun = time.perf_counter()
    rebuilder = CLASSICAL[method](shapes)
    seconds = time.perf_counter() - begun
    protocol = {
        "nsd_definition": NSD_DEFINITION,
        "tolerance_vox": 1.0,
        "resolution": 128,
        "method": method,
        "degrees_of_freedom": rebuilder.degrees_of_freedom,
        "parameters": 0,
        "training_shapes": len(shapes),
    }
    begun = time.perf_counter()
    found = _scores(rebuilder, unknown)
    fit_seconds = (time.perf_counter() - begun) / max(1, len(unknown))
    return {
        "known": {"protocol": {**protocol, "known": True}, **_scores(rebuilder, shapes)},
        "unknown": {"protocol": {**protocol, "known": False}, **found},
        "training": {"seconds": seconds, "fit_seconds": fit_seconds, "device": "cpu"},
    }


def _scores(rebuilder: Rebuilder, shapes: Sequence[Shape]) -> dict[str, Any]:
    cases = []
    for shape in shapes:
        field = rebuilder.rebuild(shape.occupancy)
        lattice = score(shape.occupancy, field > 0)
        back = restore_lattice(field, shape.frame, 0.0)
        native = score(restore(shape), back, tuple(shape.frame.grid.spacing_mm))
        cases.append(
            {
                "name": shape.name,
                "dsc": 100 * lattice.dsc,
                "nsd": 100 * lattice.nsd,
                "hd95_mm": native.hd95,
                "assd_mm": native.assd,
                "dsc_native": 100 * native.dsc,
            }
        )
    names = [name for name in cases[0] if name != "name"] if cases else []
    return {"mean": {name: float(np.mean([c[name] for c in cases])) for name in names}, "cases": cases}
