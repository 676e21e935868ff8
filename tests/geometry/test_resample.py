"""Tests of implicit_atlas.geometry.resample: the fast path equals scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from implicit_atlas.geometry.resample import cubic_axis, linear_axis, resample, resample_cubic


@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(2, 70), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_cubic_equals_scipy_zoom(shape, resolution, seed):
    # At some sizes scipy's last position lies beyond the last sample by rounding, and it writes 0 there.
    assume(all((n - 1) / (resolution - 1) * (resolution - 1) <= n - 1 for n in shape))
    volume = np.random.default_rng(seed).random(shape)
    expected = ndimage.zoom(volume, [resolution / n for n in shape], order=3)
    assert expected.shape == (resolution,) * 3
    assert np.abs(resample_cubic(volume, resolution) - expected).max() < 5e-6


@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 1, 5), (31, 7, 12), (12, 40, 33)])
@pytest.mark.parametrize("resolution", [9, 24])
def test_memory_order_and_threshold_change_nothing(shape, resolution):
    volume = np.random.default_rng(0).random(shape) > 0.5
    axes = [cubic_axis(n, 0.0, (n - 1) / (resolution - 1), resolution) for n in shape]
    values = resample(volume, axes)
    assert values.flags.c_contiguous and values.dtype == np.float32
    assert np.allclose(resample(np.asfortranarray(volume), axes), values, atol=2e-6)
    assert np.array_equal(resample(volume, axes, threshold=0.3), values > 0.3)
    padded = np.zeros((*shape[:2], shape[2] * 2), bool)
    padded[..., ::2] = volume
    assert np.allclose(resample(padded[..., ::2], axes), values, atol=2e-6)


def test_zero_boundary_is_an_endless_background():
    volume = np.random.default_rng(0).random((7, 9, 4))
    start, step, size = (-6.3, -3.1, -20.0), (0.9, 0.35, 1.7), 25
    axes = [cubic_axis(n, a, b, size, "zero") for n, a, b in zip(volume.shape, start, step, strict=True)]
    border = 60
    positions = [a + b * np.arange(size) + border for a, b in zip(start, step, strict=True)]
    points = np.stack(np.meshgrid(*positions, indexing="ij"))
    expected = ndimage.map_coordinates(np.pad(volume, border), points, order=3, mode="mirror")
    assert np.abs(resample(volume, axes) - expected).max() < 5e-6


def test_linear_equals_scipy_and_takes_the_nearest_outside():
    volume = np.random.default_rng(0).random((7, 1, 30))
    start, step, size = (-1.5, -0.4, 0.2), (0.4, 0.1, 2.9), (22, 9, 10)
    axes = [linear_axis(n, a, b, m) for n, a, b, m in zip(volume.shape, start, step, size, strict=True)]
    positions = [a + b * np.arange(m) for a, b, m in zip(start, step, size, strict=True)]
    points = np.stack(np.meshgrid(*positions, indexing="ij"))
    expected = ndimage.map_coordinates(volume, points, order=1, mode="nearest")
    assert np.abs(resample(volume, axes) - expected).max() < 1e-6


def test_linear_maps_keep_linear_functions_and_cubic_ones_cubics():
    def cubic(i):
        return 0.3 * i**3 - 2 * i**2 + i - 4

    positions = 15 + 0.21 * np.arange(40)
    cubic_map = cubic_axis(60, 15.0, 0.21, 40)
    one = cubic_axis(1, 0.0, 0.0, 1)
    values = resample(cubic(np.arange(60.0))[:, None, None], (cubic_map, one, one))[:, 0, 0]
    # The spline of a cubic is the cubic itself, away from the ends.
    assert np.allclose(values, cubic(positions), rtol=1e-4)


def test_the_volume_is_not_changed():
    volume = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32)
    before = volume.copy()
    resample_cubic(volume, 8)
    assert np.array_equal(volume, before)


@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_views_that_run_backwards_are_the_volumes_they_show(flips, order):
    volume = np.random.default_rng(0).random((9, 30, 14))
    view = np.flip(volume, flips).transpose(order)
    axes = [cubic_axis(n, 0.3, (n - 1.7) / 20, 20, "zero") for n in view.shape]
    assert np.abs(resample(view, axes) - resample(view.copy(), axes)).max() < 2e-6
