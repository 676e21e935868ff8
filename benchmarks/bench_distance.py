"""The exact distance transform and which voxel is nearest, against SciPy's: python benchmarks/bench_distance.py."""

from __future__ import annotations

import numpy as np
from bench_training import phantom_shapes
from common import compare, report
from scipy.ndimage import distance_transform_edt

from implicit_atlas.geometry.distance import nearest_empty


def main() -> None:
    """Compare both, of the outside of a phantom."""
    outside = ~phantom_shapes(1)[0].occupancy
    ours, theirs = np.sqrt(nearest_empty(outside)[0]), np.asarray(distance_transform_edt(outside))
    assert np.allclose(ours, theirs, rtol=1e-12)
    report(
        compare(
            f"distances and nearest voxels at {outside.shape[0]}^3",
            lambda: nearest_empty(outside),
            lambda: distance_transform_edt(outside, return_indices=True),
        )
    )


if __name__ == "__main__":
    main()
