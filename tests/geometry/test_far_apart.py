"""Points far from one another."""

from __future__ import annotations

import numpy as np

from implicit_atlas.geometry.far_apart import farthest_first


def test_each_is_the_farthest_from_those_before():
    """Against all distances, of points some of which lie at the same place."""
    points = np.random.default_rng(0).normal(size=(40, 3))
    points[30:] = points[:10]
    chosen = farthest_first(points, 50, 7)
    assert chosen[0] == 7
    assert sorted(chosen) == list(range(40))
    for i in range(1, 30):
        nearest = np.linalg.norm(points[:, None] - points[chosen[:i]], axis=2).min(1)
        assert nearest[chosen[i]] == nearest.max()
    assert farthest_first(points, 5, 7) == chosen[:5]
