"""Distance transforms: by the package edt where the extra "fast" is installed, else by scipy."""

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
