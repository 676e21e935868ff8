"""The distribution of codes: its moments, roundness with few shapes, and what it does where little is seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from atlas_samples import FIT, RESOLUTION, phantom_shapes, tiny_atlas

from implicit_atlas.prior import ISOTROPIC_SHAPES, fit_prior
from implicit_atlas.sampling import Observations


def covariance_of(codes: np.ndarray) -> np.ndarray:
    factor = fit_prior(codes).factor.double().numpy()
    return factor @ factor.T


def test_many_codes_give_their_mean_and_covariance():
    rng = np.random.default_rng(0)
    true = np.array([[2.0, 0.6, 0], [0.6, 1.0, 0], [0, 0, 0.1]])
    codes = rng.multivariate_normal([1.0, -2.0, 0.5], true, 20_000).astype(np.float32)
    np.testing.assert_allclose(fit_prior(codes).mean, [1.0, -2.0, 0.5], atol=0.05)
    np.testing.assert_allclose(covariance_of(codes), true, atol=0.06)


def test_few_codes_give_a_round_distribution_of_the_same_total_variance():
    codes = np.random.default_rng(0).standard_normal((ISOTROPIC_SHAPES, 40)).astype(np.float32)
    total = codes.astype(np.float64).var(0, ddof=1).sum()
    np.testing.assert_allclose(covariance_of(codes), total / 40 * np.eye(40), atol=1e-5)
    one = fit_prior(codes[:1])
    np.testing.assert_allclose(one.mean, codes[0])
    assert not one.factor.any()


def test_codes_of_whitened_ones_are_distributed_as_the_prior_says():
    prior = fit_prior(np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32) * [1, 2, 3, 0.5])
    drawn = prior.codes(torch.randn(50_000, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(drawn.mean(0), prior.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), prior.factor @ prior.factor.T, atol=0.15, rtol=0.05)


def seen(count: int) -> Observations:
    shape = phantom_shapes(8)[6]
    voxel = np.random.default_rng(0).integers(0, RESOLUTION, (count, 3))
    return Observations((2 * voxel + 1) / RESOLUTION - 1, shape.occupancy[tuple(voxel.T)].astype(float))


def test_what_says_nothing_leaves_the_mean_and_what_says_much_is_followed():
    atlas, observed = tiny_atlas(), seen(40)
    fits = {
        evidence: atlas.fit([observed], dataclasses.replace(FIT, evidence=evidence))[0].found
        for evidence in (1e6, 10.0, 0.01)
    }
    np.testing.assert_allclose(fits[1e6].code, atlas.codes.mean(0), atol=0.02)
    assert fits[0.01].loss < fits[10.0].loss < fits[1e6].loss
    away = [np.linalg.norm(fit.code - atlas.codes.mean(0)) for fit in fits.values()]
    assert away == sorted(away)
