"""Distance transforms of voxels: by the package edt where the extra "fast" is installed, else by scipy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

try:
    from edt import edtsq as _edtsq
except ImportError:
    _edtsq = None


def squared_distance(
    inside: Bool[np.ndarray, "*axes"], spacing: Float[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, "*axes"]:
    """Squared distance of each voxel's centre to that of the nearest empty one; 0 at empty ones.

    Where no voxel is empty the values mean nothing.

    Args:
        inside: of two or three axes.
        spacing: of voxels along each; by default all are 1 apart, and values whole numbers.
    """
    if _edtsq is not None:
        apart = (1.0,) * inside.ndim if spacing is None else tuple(float(size) for size in spacing)
        return _edtsq(np.ascontiguousarray(inside), anisotropy=apart, black_border=False)
    squares = np.square(distance_transform_edt(inside, sampling=spacing))  # pyright: ignore
    return np.rint(squares) if spacing is None else squares


def signed_distance(inside: Bool[np.ndarray, "x y z"], limit: float) -> Float[np.ndarray, "x y z"]:
    """Signed distance to the border in voxels, float32: positive inside, zero midway between voxels.

    Args:
        inside: occupied voxels.
        limit: where the values are cut off on both sides.
    """
    inner, outer = (np.sqrt(squared_distance(side)) for side in (inside, ~inside))
    return np.clip(np.where(inside, inner - 0.5, 0.5 - outer), -limit, limit).astype(np.float32)
