"""Distance transforms: those of a search, and of SciPy; which voxel is nearest; none where no voxel is empty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from implicit_atlas.geometry.distance import nearest_empty, signed_distance, squared_distance

SPACINGS = [None, (1.5, 1.0, 3.25), (0.5, 2.0), (1.0, 1.0)]


def volume_of(spacing, share=0.9):
    sides = (9, 7, 8)[: 3 if spacing is None else len(spacing)]
    return np.random.default_rng(0).random(sides) < share


@pytest.mark.parametrize("spacing", SPACINGS)
def test_squared_distances_are_those_of_a_search(spacing):
    inside, apart = volume_of(spacing), None if spacing is None else np.array(spacing)
    before, empty = inside.copy(), np.argwhere(~inside)
    found = squared_distance(inside, apart)
    for index in np.ndindex(inside.shape):
        assert found[index] == pytest.approx(
            np.square((empty - index) * (1 if apart is None else apart)).sum(1).min(), rel=1e-6
        )
    np.testing.assert_array_equal(inside, before)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("share", [0.1, 0.9, 0.99])
def test_the_nearest_voxel_is_empty_and_as_far_as_is_said(spacing, share):
    inside, apart = volume_of(spacing, share), None if spacing is None else np.array(spacing)
    squares, nearest = nearest_empty(inside, apart)
    assert not inside.ravel()[nearest].any()
    steps = np.stack(np.unravel_index(nearest, inside.shape)) - np.indices(inside.shape)
    sizes = np.ones(inside.ndim) if apart is None else apart
    lengths = np.square(steps * sizes.reshape(-1, *(1,) * inside.ndim)).sum(0)
    np.testing.assert_allclose(squares, lengths, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(squares), distance_transform_edt(inside, sampling=apart), rtol=1e-12)


def test_views_are_measured_as_they_are_seen():
    inside = np.random.default_rng(1).random((8, 9, 6)) < 0.8
    np.testing.assert_array_equal(squared_distance(inside.T), squared_distance(inside).T)
    np.testing.assert_array_equal(
        squared_distance(inside[::-1, ::2]), squared_distance(inside[::-1, ::2].copy())
    )


def test_distances_of_voxels_are_whole_squares():
    found = squared_distance(np.random.default_rng(0).random((20, 20, 20)) < 0.99)
    np.testing.assert_array_equal(found, np.rint(found))


def test_where_nothing_is_empty_distances_are_infinite():
    squares, nearest = nearest_empty(np.ones((3, 4, 5), bool))
    assert np.isinf(squares).all() and (nearest == -1).all()
    np.testing.assert_array_equal(signed_distance(np.ones((3, 4, 5), bool), 2.0), 2.0)
