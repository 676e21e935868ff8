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
import torch
from jaxtyping import Bool, Float
from scipy.fft import dctn, idctn
from scipy.optimize import minimize

from experiments.cells.completion import completion
from experiments.cells.scoring import protocol, score_fields
from implicit_atlas.geometry.distance import signed_distance
from implicit_atlas.geometry.grid import voxel_at
from implicit_atlas.metrics import dsc
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import Shape

LIMIT_VOX = 12.0
# How far principal components leave a surface from where points near it say: of 0 to 4.6, the one with the best mean
# over 64, 256 and 1024 points on `val`, so that the comparison is in their favour.
SLACK_VOX = 3.5

Volume = Float[np.ndarray, "r r r"]
Rebuild = Callable[[Bool[np.ndarray, "r r r"]], Volume]


@dataclass(frozen=True)
class Rebuilder:
    """A way to rebuild a shape: a signed field, positive inside, from an occupancy; and its degrees of freedom.

    `complete` does so from sparse points, where the method can.
    """

    rebuild: Rebuild
    degrees_of_freedom: int
    complete: Callable[[Observations], Volume] | None = None


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Mean and principal components of signed distances.

    Args:
        mean: (voxels,) in voxels.
        basis: (k, voxels), orthonormal rows.
        deviation: (k,) standard deviation of the training shapes along each.
    """

    mean: Float[np.ndarray, " voxels"]
    basis: Float[np.ndarray, "k voxels"]
    deviation: Float[np.ndarray, " k"]

    def rebuild(self, occupancy: Bool[np.ndarray, "r r r"]) -> Volume:
        """The field of a whole mask: coefficients by projection."""
        field = signed_distance(occupancy, LIMIT_VOX)
        return (self.mean + ((field.ravel() - self.mean) @ self.basis.T) @ self.basis).reshape(field.shape)

    def complete(self, seen: Observations) -> Volume:
        """The most probable field of some points inside and outside.

        A point is inside with the odds exp(field), points that are known to be near the boundary have a normal
        distance to it, and coefficients are normal with the deviations of training.
        """
        resolution = round(len(self.mean) ** (1 / 3))
        voxel = voxel_at(torch.from_numpy(seen.points).float(), resolution).numpy()
        offset, matrix = self.mean[voxel], (self.basis[:, voxel] * self.deviation[:, None]).T
        sign = 2 * seen.occupancy - 1
        near = 1 / ((seen.spreads * resolution / 2) ** 2 + SLACK_VOX**2)

        def negative_log_posterior(z: np.ndarray) -> tuple[float, np.ndarray]:
            field = offset + matrix @ z
            margin = sign * field
            slope = near * field - sign / (1 + np.exp(np.clip(margin, -50, 50)))
            surprise = np.logaddexp(0, -margin).sum() + (near * field) @ field / 2
            return float(surprise + z @ z / 2), matrix.T @ slope + z

        z = minimize(negative_log_posterior, np.zeros(len(self.deviation)), jac=True, method="L-BFGS-B").x
        return (self.mean + (z * self.deviation).astype(np.float32) @ self.basis).reshape((resolution,) * 3)


def linear_model(shapes: Sequence[Shape], components: int) -> LinearModel:
    """Principal components of the training shapes' signed distances."""
    fields = np.stack([signed_distance(shape.occupancy, LIMIT_VOX).ravel() for shape in shapes])
    mean = fields.mean(0)
    fields -= mean
    values, vectors = np.linalg.eigh((fields @ fields.T).astype(np.float64))
    kept = min(components, len(shapes) - 1)
    order = np.argsort(values)[::-1][:kept]
    size = np.sqrt(np.maximum(values[order], 1e-9))
    basis = (vectors[:, order] / size).T.astype(np.float32) @ fields
    return LinearModel(mean, basis, size / np.sqrt(max(1, len(shapes) - 1)))


def pca(shapes: Sequence[Shape], components: int) -> Rebuilder:
    """Mean and principal components of the training shapes' signed distances."""
    model = linear_model(shapes, components)
    return Rebuilder(model.rebuild, len(model.deviation), model.complete)


def cosines(coefficients: int) -> Rebuilder:
    """The lowest frequencies of the cosine transform of a shape's signed distance; nothing is learned."""

    @cache
    def lowest_of(resolution: int) -> np.ndarray:
        side = np.arange(resolution)
        frequency = side[:, None, None] ** 2 + side[:, None] ** 2 + side**2
        return np.argsort(frequency, axis=None, kind="stable")[:coefficients]

    def rebuild(occupancy: Bool[np.ndarray, "r r r"]) -> Volume:
        spectrum = dctn(signed_distance(occupancy, LIMIT_VOX), norm="ortho")
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


def run_classical(
    method: str, shapes: Sequence[Shape], unknown: Sequence[Shape], clean: Sequence[Shape]
) -> dict[str, Any]:
    """Scores of known and unknown shapes, as `experiments.cells.cell` keeps them.

    Args:
        method: a name of `CLASSICAL`.
        shapes: to learn from, and rebuilt as known ones.
        unknown: rebuilt as unknown ones.
        clean: what rebuilt known shapes are scored against: `shapes`, unless these are noisy.
    """
    begun = time.perf_counter()
    rebuilder = CLASSICAL[method](shapes)
    seconds = time.perf_counter() - begun
    about = protocol(method, rebuilder.degrees_of_freedom, 0, len(shapes))
    begun = time.perf_counter()
    found = score_fields(unknown, (rebuilder.rebuild(shape.occupancy) for shape in unknown))
    fit_seconds = (time.perf_counter() - begun) / max(1, len(unknown))
    complete = rebuilder.complete
    completed = (
        {} if complete is None else completion(unknown, lambda seen: [complete(one) > 0 for one in seen])
    )
    known = score_fields(clean, (rebuilder.rebuild(shape.occupancy) for shape in shapes))
    return {
        "known": {"protocol": {**about, "known": True}, **known},
        "unknown": {"protocol": {**about, "known": False}, **found},
        "completion": completed,
        "training": {"seconds": seconds, "fit_seconds": fit_seconds, "device": "cpu"},
    }
