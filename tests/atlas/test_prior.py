"""The distribution of codes: its moments, and roundness with few shapes."""

from __future__ import annotations

import numpy as np
import torch

from implicit_atlas.atlas.prior import INDEPENDENT, MANY, OWN, fit_prior


def covariance_of(codes: np.ndarray) -> np.ndarray:
    factor = fit_prior(codes).factor.double().numpy()
    return factor @ factor.T


def test_many_codes_give_their_mean_and_most_of_their_covariance():
    rng = np.random.default_rng(0)
    true = np.array([[2.0, 0.6, 0], [0.6, 1.0, 0], [0, 0, 0.1]])
    expected = (1 - INDEPENDENT[0]) * true + INDEPENDENT[0] * np.diag(np.diag(true))
    codes = rng.multivariate_normal([1.0, -2.0, 0.5], true, 20_000).astype(np.float32)
    np.testing.assert_allclose(fit_prior(codes).means[0], [1.0, -2.0, 0.5], atol=0.05)
    np.testing.assert_allclose(covariance_of(codes), expected, atol=0.06)


def test_few_codes_give_a_round_distribution_of_the_same_total_variance():
    codes = np.random.default_rng(0).standard_normal((MANY - 1, 40)).astype(np.float32)
    total = codes.astype(np.float64).var(0, ddof=1).sum()
    np.testing.assert_allclose(covariance_of(codes), total / 40 * np.eye(40), atol=1e-5)
    one = fit_prior(codes[:1])
    np.testing.assert_allclose(one.means[0], codes[0])
    assert not one.factor.any()


def test_what_is_made_up_is_what_codes_that_were_left_out_speak_for():
    rng = np.random.default_rng(0)
    alone, together = (
        rng.standard_normal((60, 12)),
        rng.standard_normal((60, 2)) @ rng.standard_normal((2, 12)),
    )
    scale = np.geomspace(1, 30, 12)  # round ones would be wrong for both
    off = []
    for codes in (alone * scale, (together + 0.1 * alone) * scale):
        covariance = covariance_of(codes.astype(np.float32)) / np.outer(scale, scale)
        true = np.cov(codes.T) / np.outer(scale, scale)
        apart = ~np.eye(12, dtype=bool)
        off.append(np.abs(covariance[apart]).mean() / np.abs(true[apart]).mean())
    assert off[0] < 0.4 and off[1] > 0.8


def test_codes_of_whitened_ones_are_distributed_as_the_prior_says():
    prior = fit_prior(np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32) * [1, 2, 3, 0.5])
    drawn = prior.codes(torch.randn(50_000, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(drawn.mean(0), prior.means[0], atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), prior.factor @ prior.factor.T, atol=0.15, rtol=0.05)


def test_each_template_has_its_own_mean_and_all_share_how_codes_vary_about_it():
    rng = np.random.default_rng(0)
    owner = np.repeat([0, 2], [300, 100])
    centres = np.array([[5.0, 0, 0], [0, 0, 0], [-5.0, 1, 0]])
    codes = (centres[owner] + rng.standard_normal((400, 3))).astype(np.float32)
    prior = fit_prior(codes, owner, 3)
    expected = codes.mean(0) + OWN * (centres[[0, 2]] - codes.mean(0))
    np.testing.assert_allclose(prior.means[[0, 2]], expected, atol=0.3)
    np.testing.assert_allclose(prior.means[1], codes.mean(0), atol=1e-5)
    np.testing.assert_allclose(prior.shares, [0.75, 0, 0.25])
    apart = (1 - OWN) ** 2 * np.cov(centres[owner].T)  # what the means leave of the distance between clusters
    covariance = (prior.factor @ prior.factor.T).numpy()
    np.testing.assert_allclose(np.diag(covariance), 1 + np.diag(apart), rtol=0.1)
    drawn = prior.codes(torch.zeros(2, 3), torch.tensor([2, 0]))
    torch.testing.assert_close(drawn, prior.means[[2, 0]])
