"""Linear encoding: distances of analytic shapes, PCA that keeps distances, ridge regression that re-reads codes."""

from __future__ import annotations

import numpy as np
import pytest

from implicit_atlas.atlas.linear import LIMIT, fit_pca, fit_ridge, signed_distances


def ball(resolution: int, radius: float = 0.6) -> np.ndarray:
    axis = (np.arange(resolution) * 2 + 1) / resolution - 1
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.sqrt(x**2 + y**2 + z**2) < radius


def analytic(resolution: int, radius: float = 0.6) -> np.ndarray:
    axis = (np.arange(resolution) * 2 + 1) / resolution - 1
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.clip(radius - np.sqrt(x**2 + y**2 + z**2), -LIMIT, LIMIT)


@pytest.mark.parametrize("resolution", [24, 32, 64, 128])
def test_distances_of_a_ball_are_known(resolution):
    found = signed_distances(ball(resolution), 16)
    assert found.shape == (16**3,) and found.dtype == np.float32
    error = np.abs(found.reshape(16, 16, 16) - analytic(16))
    assert error.mean() < 0.02 and error.max() < 0.1


def test_distances_are_cut_off_and_do_not_change_the_shape():
    shape = ball(32)
    before = shape.copy()
    found = signed_distances(shape, 16)
    assert found.max() == pytest.approx(LIMIT) and found.min() == pytest.approx(-LIMIT)
    np.testing.assert_array_equal(shape, before)


def random_features(count: int = 12, size: int = 40) -> np.ndarray:
    features = np.random.default_rng(0).normal(size=(count, size)) * np.linspace(1, 5, size)
    return features.astype(np.float32)


def distances(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows[:, None] - rows[None], axis=-1)


def test_unwhitened_components_keep_distances():
    features = random_features()
    codes = fit_pca(features, 32, 0, whiten=0).encode(features)
    ratio = distances(codes)[np.triu_indices(12, 1)] / distances(features)[np.triu_indices(12, 1)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def test_whitened_components_vary_alike_and_together_have_unit_size():
    features = random_features()
    codes = fit_pca(features, 11, 0, whiten=1).encode(features)
    np.testing.assert_allclose(codes.std(0, ddof=1), 1, rtol=1e-3)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(11), atol=1e-3)


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_codes_have_unit_mean_square_and_the_mean_shape_is_zero(whiten):
    features = random_features()
    encoder = fit_pca(features, 20, 0, whiten)
    codes = encoder.encode(features)
    assert (codes**2).sum() / (11 * 20) == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(encoder.encode(features.mean(0, keepdims=True)), 0, atol=1e-4)
    assert not codes[:, 11:].any()  # beyond the rank


def test_fewer_components_than_shapes_are_the_largest():
    features = random_features()
    some, more = (fit_pca(features, size, 0, 0.0).encode(features) for size in (3, 11))
    correlation = [abs(np.corrcoef(some[:, i], more[:, i])[0, 1]) for i in range(3)]
    np.testing.assert_allclose(correlation, 1, atol=1e-4)
    assert (np.diff(more.std(0)) < 0).all()


def test_ridge_regression_reads_codes_back():
    features = random_features()
    codes = np.random.default_rng(1).normal(size=(12, 7)).astype(np.float32)
    encoder = fit_ridge(features, codes, 0, ridge=1e-6)
    np.testing.assert_allclose(encoder.encode(features), codes, atol=2e-2)
    np.testing.assert_allclose(encoder.encode(features.mean(0, keepdims=True))[0], codes.mean(0), atol=1e-3)


def test_ridge_regression_finds_a_linear_map():
    rng = np.random.default_rng(2)
    features, matrix = rng.normal(size=(60, 8)), rng.normal(size=(8, 5))
    encoder = fit_ridge(features, features @ matrix + 3, 0, ridge=1e-8)
    new = rng.normal(size=(4, 8))
    np.testing.assert_allclose(encoder.encode(new), new @ matrix + 3, atol=2e-2)


@pytest.mark.parametrize("count", [1, 3])
def test_shapes_that_are_all_the_same_give_finite_codes(count):
    features = np.repeat(random_features(1), count, axis=0)
    codes = np.full((count, 4), 2.0, np.float32)
    np.testing.assert_allclose(fit_ridge(features, codes, 0).encode(features), codes)
    assert not fit_pca(features, 4, 0).encode(features).any()
