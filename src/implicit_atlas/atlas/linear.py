"""Linear encoding of shapes: PCA of low-resolution signed distances, as a start for codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from implicit_atlas.geometry.distance import squared_distance
from implicit_atlas.shapes.shape import unpack
from implicit_atlas.support.workers import Message

FEATURE_RESOLUTION = 16  # of the features that codes are encoded from
DISTANCE_RESOLUTION = 32  # of the distances that shapes are registered by
WORKING = 64  # side of the volume that distances are taken on
LIMIT = 0.3  # distances are cut off here, in cube units


def _pool(volume: Float[np.ndarray, "x y z"], factor: int) -> Float[np.ndarray, "a b c"]:
    """Mean over blocks of factor³."""
    n = volume.shape[0] // factor
    return volume.reshape(n, factor, n, factor, n, factor).mean((1, 3, 5))


def signed_distances(
    occupancy: Bool[np.ndarray, "r r r"], *resolutions: int
) -> Float[np.ndarray, " features"]:
    """Truncated signed distance (positive inside, cube units) at one or more resolutions, flat, one after the other."""
    side = occupancy.shape[0]
    working = (
        occupancy
        if side <= WORKING or side % WORKING
        else _pool(occupancy.astype(np.float32), side // WORKING) > 0.5
    )
    inner, outer = (np.sqrt(squared_distance(side_of)) for side_of in (working, ~working))
    signed = (inner - outer) * (2 / working.shape[0])
    signed = np.clip(signed, -LIMIT, LIMIT).astype(np.float32)
    return np.concatenate([_resize(signed, resolution).ravel() for resolution in resolutions])


def _resize(volume: Float[np.ndarray, "x y z"], resolution: int) -> Float[np.ndarray, "r r r"]:
    """Volume at another resolution: block means where it divides, else linear interpolation at cell centres."""
    side = volume.shape[0]
    if side % resolution == 0:
        return _pool(volume, side // resolution)
    place = (np.arange(resolution) + 0.5) * side / resolution - 0.5
    low = np.clip(np.floor(place).astype(int), 0, side - 2)
    matrix = np.zeros((resolution, side), np.float32)
    matrix[np.arange(resolution), low] = 1 - (place - low)
    matrix[np.arange(resolution), low + 1] = place - low
    return np.einsum("xyz,ax,by,cz->abc", volume, matrix, matrix, matrix, optimize=True)


@dataclass(frozen=True)
class LinearEncoder:
    """code = offset + (features - mean) · matrix; features are `signed_distances` at `resolution`.

    Args:
        mean: (features,).
        matrix: (features, c).
        offset: (c,) code of the mean features.
    """

    mean: Float[np.ndarray, " features"]
    matrix: Float[np.ndarray, "features c"]
    offset: Float[np.ndarray, " c"]
    resolution: int

    def encode(self, features: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n c"]:
        """Codes of shapes."""
        product = (features - self.mean).astype(np.float64) @ self.matrix.astype(np.float64)
        return (self.offset + product).astype(np.float32)


def fit_pca(
    features: Float[np.ndarray, "n features"], code_size: int, resolution: int, whiten: float = 0.5
) -> LinearEncoder:
    """Principal components of the features, partly whitened, scaled to unit mean square norm of a code entry.

    `whiten` 0 keeps the components' standard deviations, 1 makes them all equal. Codes beyond the rank are zero.
    """
    # In double precision, so that the last bits of single precision do not depend on the number of threads.
    features = features.astype(np.float64)
    mean = features.mean(0)
    _, s, vt = np.linalg.svd(features - mean, full_matrices=False)
    # Below this a component is rounding, as where all shapes are the same.
    least = max(s[0] * 1e-4, np.linalg.norm(features) * 1e-6)
    rank = min(code_size, int((s > least).sum()))
    deviation = s[:rank] / np.sqrt(max(1, len(features) - 1))
    scale = deviation**-whiten
    total = np.sqrt(((deviation * scale) ** 2).sum() / code_size)
    matrix = np.zeros((features.shape[1], code_size), np.float32)
    matrix[:, :rank] = vt[:rank].T * (scale / total)
    return LinearEncoder(mean.astype(np.float32), matrix, np.zeros(code_size, np.float32), resolution)


def fit_ridge(
    features: Float[np.ndarray, "n features"],
    codes: Float[np.ndarray, "n c"],
    resolution: int,
    ridge: float = 1e-2,
) -> LinearEncoder:
    """Linear map from features to given codes by ridge regression in the span of the shapes.

    It re-reads codes that training has moved away from their PCA start.
    """
    features = features.astype(np.float64)
    mean = features.mean(0)
    centred = features - mean
    gram = centred @ centred.T
    # Shapes that are all the same have no variance: any positive ridge gives their common code.
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram) or 1.0
    # Three digits do for a start of fits, and a model folder keeps no more.
    matrix = (centred.T @ np.linalg.solve(gram, codes - codes.mean(0))).astype(np.float16)
    offset = codes.mean(0).astype(np.float32)
    return LinearEncoder(mean.astype(np.float32), matrix.astype(np.float32), offset, resolution)


def feature_case(case: Message) -> Message:
    """`signed_distances` for a worker process: packed bits and their resolution in; features and distances out."""
    occupancy = unpack(np.frombuffer(case.payload, np.uint8), case.values["resolution"])
    return Message({}, signed_distances(occupancy, FEATURE_RESOLUTION, DISTANCE_RESOLUTION).tobytes())
