"""Sizes of cubes given codes: a regression that says what it cannot, and its inverse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from atlas_samples import tiny_atlas

from implicit_atlas.atlas.prior import MANY
from implicit_atlas.fitting.sizes import PENALTIES, regress, size_factor, size_prior, unlike_size
from implicit_atlas.fitting.sizes import SIZE as KNOWN_WITHIN
from implicit_atlas.generation import generate
from implicit_atlas.geometry.frame import centred_frame

RNG = np.random.default_rng(0)
COUNT, SIZE = 60, 12
CODES = RNG.standard_normal((COUNT, SIZE)) * np.linspace(1, 0.1, SIZE)
SLOPES = np.zeros((3, SIZE))
SLOPES[0, :2], SLOPES[2, 1] = (0.2, -0.1), 0.3
LOGS = CODES @ SLOPES.T + 0.05 * RNG.standard_normal((COUNT, 3)) + [3.0, 4.0, 5.0]


def test_what_codes_say_is_found_and_what_they_do_not_is_left():
    slopes, missed = regress(CODES, LOGS)
    np.testing.assert_allclose(slopes[[0, 2]][:, :2], SLOPES[[0, 2]][:, :2], atol=0.03)
    assert np.abs(slopes[1]).max() < 0.05  # nothing is said of the second axis
    assert missed.std(0) == pytest.approx(0.05, rel=0.3)


def test_each_shape_is_judged_by_a_regression_without_it():
    """The closed form of what is missed, against regressions that leave out one shape after the other."""
    slopes, missed = regress(CODES, LOGS)
    about, target = CODES - CODES.mean(0), LOGS - LOGS.mean(0)
    unit = (about**2).sum() / COUNT

    def left_out(penalty: float) -> np.ndarray:
        out = []
        for case in range(COUNT):
            x, y = np.delete(CODES, case, 0), np.delete(LOGS, case, 0)
            apart = x - x.mean(0)
            weights = np.linalg.solve(
                apart.T @ apart + penalty * unit * np.eye(SIZE), apart.T @ (y - y.mean(0))
            )
            out.append(LOGS[case] - y.mean(0) - (CODES[case] - x.mean(0)) @ weights)
        return np.array(out)

    tried = np.stack([left_out(penalty) for penalty in PENALTIES if np.isfinite(penalty)])
    best = (tried**2).sum(1).argmin(0)
    for axis in (0, 2):
        np.testing.assert_allclose(missed[:, axis], tried[best[axis], :, axis], atol=1e-9)
        penalty = PENALTIES[best[axis]] * unit
        exact = np.linalg.solve(about.T @ about + penalty * np.eye(SIZE), about.T @ target[:, axis])
        np.testing.assert_allclose(slopes[axis], exact, atol=1e-9)


def test_of_few_shapes_or_of_sizes_that_codes_do_not_say_nothing_is_made_up():
    slopes, missed = regress(CODES[: MANY - 1], LOGS[: MANY - 1])
    assert not slopes.any() and missed.shape == (MANY - 1, 3)
    slopes, _ = regress(CODES, RNG.standard_normal((COUNT, 3)))
    assert np.abs(slopes).max() < 0.2


def test_random_shapes_have_sizes_of_their_own():
    atlas = tiny_atlas()
    made = [fit.placed().lattice_spacing_mm * fit.placed().resolution for fit in generate(atlas, 4)]
    assert len({tuple(size.round(6)) for size in made}) == 4
    prior = size_prior(atlas.config, atlas.codes)
    assert (np.abs(np.log(made) - prior.mean) < 1).all()
    mean = generate(atlas, 1, temperature=0)[0]
    at = mean.placed().lattice_spacing_mm * mean.placed().resolution
    np.testing.assert_allclose(at, prior.sizes_mm(mean.found.code, np.zeros(3)), rtol=1e-6)


def test_sizes_follow_the_code_where_it_is_known_of_every_shape():
    config = replace(tiny_atlas().config, sizes_mm=tuple(map(tuple, np.exp(LOGS).tolist())))
    prior = size_prior(config, CODES)
    found = np.array([np.log(prior.sizes_mm(code, np.zeros(3))) for code in CODES])
    assert (found - LOGS).std(0) == pytest.approx(0.05, rel=0.3)
    assert np.sqrt(np.diag(prior.rest @ prior.rest.T)) == pytest.approx(0.06, rel=0.4)
    mean_alone = size_prior(replace(config, sizes_mm=((30.0, 40.0, 50.0),)), CODES)
    assert not mean_alone.slopes.any()
    np.testing.assert_allclose(mean_alone.rest @ mean_alone.rest.T, 0.15**2 * np.eye(3), atol=1e-6)
    cubes = replace(config, frame="isotropic", sizes_mm=tuple((s, s, s) for s in np.exp(LOGS[:, 0]).tolist()))
    x, y, z = size_prior(cubes, CODES).sizes_mm(CODES[0], np.ones(3))
    assert x == pytest.approx(y) == pytest.approx(z)


def test_a_box_is_unlike_where_it_is_beyond_twice_the_known_ones():
    config = replace(tiny_atlas().config, sizes_mm=((10.0, 20.0, 40.0), (20.0, 40.0, 80.0)))
    for size, unlike in ((30.0, False), (10.5, False), (79.0, False), (9.5, True), (82.0, True)):
        doubt = unlike_size(config, centred_frame(np.array([size / 2, size, 2 * size]), 32))
        assert (doubt is not None) == unlike
    assert "2.05 times larger than the largest that the atlas learned, 20 to 40 mm" in (doubt or "")


@pytest.mark.parametrize("kind", ["box", "isotropic"])
def test_of_one_size_the_next_is_as_uncertain_along_every_axis(kind):
    factor = size_factor(LOGS[:1], kind)
    covariance = factor @ factor.T
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), KNOWN_WITHIN)
    assert covariance[0, 1] == pytest.approx(KNOWN_WITHIN**2 if kind == "isotropic" else 0, abs=1e-12)


def test_cubes_of_one_size_vary_as_those_that_were_seen():
    sides = np.repeat(0.1 * RNG.standard_normal((500, 1)), 3, axis=1)
    factor = size_factor(sides, "isotropic")
    np.testing.assert_allclose(factor @ factor.T, np.full((3, 3), sides[:, 0].var()), rtol=0.05)
