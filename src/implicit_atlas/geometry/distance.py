"""Distance transforms of voxels: by the package edt where the extra "fast" is installed, else by scipy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

try:
    from edt import edtsq as _edtsq
except ImportError:
    _edtsq = None


def squared_distance(inside: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """Squared distance of each voxel to the nearest empty one, in voxels: whole numbers, 0 at empty ones.

    Where no voxel is empty the values mean nothing.
    """
    if _edtsq is not None:
        return _edtsq(np.ascontiguousarray(inside), black_border=False)
    return np.rint(np.square(distance_transform_edt(inside)))  # pyright: ignore


def signed_distance(inside: Bool[np.ndarray, "x y z"], limit: float) -> Float[np.ndarray, "x y z"]:
    """Signed distance to the border in voxels, float32: positive inside, zero midway between voxels.

    Args:
        inside: occupied voxels.
        limit: where the values are cut off on both sides.
    """
    inner, outer = (np.sqrt(squared_distance(side)) for side in (inside, ~inside))
    return np.clip(np.where(inside, inner - 0.5, 0.5 - outer), -limit, limit).astype(np.float32)
