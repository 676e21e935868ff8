"""Fitting: a known shape is found again, weights stay as they are, and a fit that failed says so."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from atlas_samples import CODE, FIT, RESOLUTION, dsc, phantom_shapes, tiny_atlas, tiny_model

from implicit_atlas.atlas.losses import generalised_cross_entropy
from implicit_atlas.atlas.methods import build
from implicit_atlas.errors import FitError, InputError
from implicit_atlas.fitting.code_fit import CodeFit, FitConfig
from implicit_atlas.fitting.dense import RACE, fit_codes
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.fitting.fit_watch import chance_errors, chance_loss, doubt_of, errors, failure_of
from implicit_atlas.fitting.starts import Starts
from implicit_atlas.shapes.sampling import (
    FEWER_POINTS,
    FEWEST_POINTS,
    Observations,
    ObservationSet,
    Samples,
    ShapeSet,
)

SHAPES = phantom_shapes(8)


def shape_set(shapes=SHAPES) -> ShapeSet:
    return ShapeSet(np.stack([shape.packed for shape in shapes]), RESOLUTION)


def mean_starts(count: int) -> Starts:
    mean = tiny_atlas().codes.mean(0)
    return Starts(np.broadcast_to(mean, (count, 1, CODE)).astype(np.float32), ("mean",))


def observe(shape, count: int, seed: int = 0) -> Observations:
    """Random voxels of a shape, as clicks would be."""
    rng = np.random.default_rng(seed)
    voxel = rng.integers(0, RESOLUTION, (count, 3))
    inside = shape.occupancy[tuple(voxel.T)].astype(float)
    return Observations((2 * voxel + 1) / RESOLUTION - 1, inside, name=shape.name)


def test_a_training_shape_is_found_again():
    atlas = tiny_atlas()
    for shape, fit in zip(SHAPES[:4], atlas.fit(SHAPES[:4], FIT), strict=True):
        assert fit.failure is None
        assert dsc(fit.occupancy(), shape.occupancy) > 0.9
        assert dsc(atlas.known(shape.name).occupancy(), shape.occupancy) > 0.9
        assert fit.found.loss < 0.7 * fit.found.mean_loss


def test_fitting_leaves_the_network_as_it_was():
    network = tiny_atlas().network
    before = copy.deepcopy(network.state_dict())
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    tiny_atlas().fit(SHAPES[:2], dataclasses.replace(FIT, iterations=5))
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted
    assert all(parameter.grad is None for parameter in network.parameters())


def test_where_nothing_is_deformed_the_best_template_is_no_failure():
    atlas = tiny_atlas()
    learned, network = atlas.network.state_dict(), build(tiny_model("MT")).eval()
    network.load_state_dict({name: learned[name] for name in network.state_dict()})
    points = (2 * np.indices((RESOLUTION,) * 3).reshape(3, -1).T + 1) / RESOLUTION - 1
    inside = np.stack([atlas.template_logits(index, points) > 0 for index in range(network.templates)])
    target = ShapeSet(np.packbits(inside, axis=1), RESOLUTION)
    fits = fit_codes(network, target, mean_starts(len(inside)), dataclasses.replace(FIT, iterations=20))
    assert network.is_static and [fit.template for fit in fits] == list(range(len(inside)))
    for fit in fits:
        assert fit.failure is None and fit.loss == pytest.approx(fit.mean_loss, rel=1e-3)
    other = shape_set(SHAPES[:1])
    (fit,) = fit_codes(network, other, mean_starts(1), dataclasses.replace(FIT, iterations=20))
    assert fit.failure is None and fit.doubt is not None and "weighs more than what it can" in fit.doubt


def test_noise_is_no_shape():
    bits = np.random.default_rng(0).random((1, RESOLUTION, RESOLUTION, RESOLUTION)) < 0.5
    target = ShapeSet(np.packbits(bits.reshape(1, -1), axis=1), RESOLUTION)
    (fit,) = fit_codes(tiny_atlas().network, target, mean_starts(1), dataclasses.replace(FIT, iterations=20))
    assert fit.failure is not None and "no shape at all" in fit.failure


def test_failures_are_judged_by_errors_and_doubts_by_losses():
    """A network that is sure of itself, wrong at a tenth of the points: of use, and not to be trusted."""
    occupancy = torch.tensor([[0.0, 1.0] * 10])
    logits = 50 * (2 * occupancy - 1)
    logits[:, :2] *= -1
    samples = Samples(torch.zeros(1, 20, 3), occupancy, torch.ones(1, 20))
    loss = float(F.binary_cross_entropy_with_logits(logits, occupancy))
    assert errors(logits, samples).tolist() == pytest.approx([0.1])
    assert chance_errors(samples).tolist() == pytest.approx([0.5]) and loss > float(chance_loss(samples))
    assert failure_of(loss, 2 * loss, 0.1, 0.5) is None and doubt_of(loss, float(chance_loss(samples)))
    assert "no shape at all" in str(failure_of(loss, 2 * loss, 0.48, 0.5))
    assert "mean shape" in str(failure_of(loss, loss, 0.1, 0.5)) and "finite" in str(
        failure_of(float("nan"), 1.0, 0.0, 1.0)
    )
    assert doubt_of(0.1, 0.69) is None


class Asked(ShapeSet):
    """Remembers the points it was asked for."""

    def sample(self, ids, config, generator, shared=False):
        self.configs = {*getattr(self, "configs", ()), config}
        return super().sample(ids, config, generator, shared)


@pytest.mark.parametrize(("method", "points"), [("conv", FEWER_POINTS), ("mlp", FEWEST_POINTS)])
def test_a_fit_asks_what_its_network_affords(method, points):
    target = Asked(np.stack([SHAPES[0].packed]), RESOLUTION)
    fit_codes(build(tiny_model(method)), target, mean_starts(1), FitConfig(iterations=1))
    assert target.configs == {points, RACE}


def test_a_fit_can_be_repeated():
    first, again = (tiny_atlas().fit(SHAPES[5:7], FIT) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.found.code, b.found.code)


def test_many_at_once_equal_one_by_one():
    """Up to rounding: every shape gets the points that it would get alone."""
    shapes = SHAPES[4:7]
    together = tiny_atlas().fit(shapes, FIT)
    alone = [tiny_atlas().fit([shape], FIT)[0] for shape in shapes]
    parts = tiny_atlas().fit(shapes, dataclasses.replace(FIT, batch=2))
    for shape, a, b, c in zip(shapes, together, alone, parts, strict=True):
        assert a.name == b.name == c.name == shape.name
        scores = [dsc(fit.occupancy(), shape.occupancy) for fit in (a, b, c)]
        assert max(scores) - min(scores) < 0.005
        assert a.found.template == b.found.template == c.found.template
        assert a.found.loss_history[0] == pytest.approx(b.found.loss_history[0], rel=1e-4)


def test_what_a_fit_says_of_itself():
    # An unseen shape: known ones start where they end. Where strays join in, the loss of the others may rise.
    fit = tiny_atlas().fit(SHAPES[7:8], dataclasses.replace(FIT, strays=0.0))[0].found
    assert fit.degrees_of_freedom == CODE == len(fit.code)
    assert 0 < fit.iterations <= FIT.iterations
    assert fit.loss_history.shape == (fit.iterations,) and np.isfinite(fit.loss_history).all()
    assert fit.loss_history[-5:].mean() <= fit.loss_history[:5].mean()
    assert fit.start in ("mean", "nearest", "linear")
    assert fit.template in (0, 1)
    assert fit.seconds > 0
    assert fit.checked("case") is fit


def test_the_loss_forgives_what_cannot_be_followed():
    """Zero robustness is cross entropy; else a loss is bounded, and the same for small ones."""
    logits, inside = torch.tensor([[-200.0, -6.0, 0.3, 9.0]]), torch.ones(1, 4)
    plain = F.binary_cross_entropy_with_logits(logits, inside, reduction="none")
    torch.testing.assert_close(generalised_cross_entropy(logits, inside, 0.0), plain)
    torch.testing.assert_close(generalised_cross_entropy(logits, inside, 1e-4), plain, rtol=2e-2, atol=1e-6)
    torch.testing.assert_close(generalised_cross_entropy(logits, inside, 1.0), 1 - logits.sigmoid())
    robust = generalised_cross_entropy(logits, inside, 0.5)
    assert robust.max() <= 2 and robust[0, 3] == pytest.approx(float(plain[0, 3]), rel=1e-3)


def test_templates_that_begin_best_are_tried():
    """Trials choose a template that deforms at least as well as the one which begins best."""
    shapes, loss = SHAPES[6:8], {}
    for contenders in (1, 2):
        config = dataclasses.replace(FIT, contenders=contenders, robustness=0.0)
        loss[contenders] = [fit.found.loss for fit in tiny_atlas().fit(shapes, config)]
    forced = [tiny_atlas().fit(shapes, dataclasses.replace(FIT, robustness=0.0), template=t) for t in (0, 1)]
    best = np.min([[fit.found.loss for fit in fits] for fits in forced], axis=0)
    assert np.all(np.array(loss[2]) < 1.1 * best) and np.all(np.array(loss[2]) < 1.1 * np.array(loss[1]))


def test_no_gain_over_the_mean_shape_is_a_failure():
    still = dataclasses.replace(FIT, learning_rate=0.0, iterations=200)
    (fit,) = fit_codes(tiny_atlas().network, shape_set(SHAPES[:1]), mean_starts(1), still)
    assert fit.failure is not None and "mean shape" in fit.failure
    assert fit.iterations < still.iterations  # it stopped when nothing was gained
    with pytest.raises(FitError, match=r"case: the fit failed .* mean shape"):
        fit.checked("case")


def test_values_that_are_not_finite_are_a_failure():
    network = copy.deepcopy(tiny_atlas().network)
    with torch.no_grad():
        network.template.head.bias.fill_(float("nan"))
    (fit,) = fit_codes(network, shape_set(SHAPES[:1]), mean_starts(1), FIT)
    assert fit.failure is not None and "not finite" in fit.failure
    assert np.isfinite(fit.code).all()


def test_one_bad_shape_does_not_spoil_the_others():
    starts = mean_starts(3)
    starts.codes[1] = np.nan
    fits = fit_codes(tiny_atlas().network, shape_set(SHAPES[:3]), starts, FIT)
    assert [fit.failure is None for fit in fits] == [True, False, True]


@pytest.mark.parametrize("density", [0.2, 0.5])
def test_noise_is_not_taken_for_an_organ(density):
    noise = np.random.default_rng(0).random((RESOLUTION,) * 3) < density
    shape = dataclasses.replace(SHAPES[0], name="noise", packed=np.packbits(noise))
    fit, organ = tiny_atlas().fit([shape, SHAPES[0]], FIT)
    assert fit.failure is not None and "no shape" in fit.failure
    assert organ.failure is None


def test_progress_goes_from_nothing_to_everything():
    told = []
    starts = mean_starts(4)
    config = dataclasses.replace(FIT, batch=2, iterations=40, patience=99)
    fit_codes(
        tiny_atlas().network, shape_set(SHAPES[:4]), starts, config, lambda share, text: told.append(share)
    )
    assert told == sorted(told) and told[-1] == pytest.approx(1)


def test_an_empty_target_gives_no_fits():
    empty = ObservationSet([])
    assert fit_codes(tiny_atlas().network, empty, mean_starts(0), FIT) == []


def test_a_fit_is_shown_without_its_arrays():
    found = CodeFit(np.zeros(4, np.float32), 1, np.zeros(9, np.float32), "mean", 0.1, 0.2, 9, 0.5, 4)
    text = repr(Fit("case", found, None, 16, lambda: lambda points: np.zeros(len(points))))
    assert "case" in text and "start='mean'" in text and "array" not in text


@pytest.mark.parametrize("option", ["iterations", "patience", "contenders", "batch"])
def test_senseless_counts_are_refused(option):
    with pytest.raises(InputError, match=f"{option} are 0"):
        FitConfig(**{option: 0})


def test_networks_without_modes_are_fitted_for_longer():
    short = FitConfig().iterations_of(has_modes=True)
    assert short < FitConfig().iterations_of(has_modes=False)
    assert FitConfig(iterations=7).iterations_of(has_modes=False) == 7
    config = dataclasses.replace(FIT, iterations=None, patience=1000)
    (fit,) = tiny_atlas().fit(SHAPES[:1], config)
    assert fit.found.iterations <= short and len(fit.found.loss_history) <= short
