"""Distance transforms: the fast package and scipy agree, and both are whole squared numbers of voxels."""

from __future__ import annotations

import numpy as np
import pytest

from implicit_atlas.geometry import distance


@pytest.mark.parametrize("spacing", [(1.5, 1.0, 3.25), (0.5, 2.0)])
@pytest.mark.parametrize("fast", [True, False])
def test_voxels_may_be_apart_by_more_along_one_axis_than_another(fast, spacing, monkeypatch):
    if not fast:
        monkeypatch.setattr(distance, "_edtsq", None)
    spacing = np.array(spacing)
    inside = np.random.default_rng(0).random((9, 7, 8)[: len(spacing)]) < 0.9
    found, empty = distance.squared_distance(inside, spacing), np.argwhere(~inside)
    for index in np.ndindex(inside.shape):
        assert found[index] == pytest.approx((((empty - index) * spacing) ** 2).sum(1).min(), rel=1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_squared_distances_are_those_of_a_search(fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(distance, "_edtsq", None)
    inside = np.random.default_rng(0).random((9, 7, 8)) < 0.95
    before, empty = inside.copy(), np.argwhere(~inside)
    found = distance.squared_distance(inside)
    for index in np.ndindex(inside.shape):
        assert found[index] == ((empty - index) ** 2).sum(1).min()
    np.testing.assert_array_equal(inside, before)
