"""Metrics: equal to the package surface-distance, analytic on boxes, and well defined on empty masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from implicit_atlas import metrics
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.surface_elements import neighbourhood_codes, surface_areas

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (2.1, 0.4, 1.3)]


@pytest.fixture
def oracle(monkeypatch):
    """The package surface-distance, given back the names that NumPy 2 removed."""
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    monkeypatch.setattr(np, "NaN", np.nan, raising=False)
    return pytest.importorskip("surface_distance.metrics")


def noise_mask(seed: int, shape=(14, 17, 12), density=0.4) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < density


def smooth_mask(seed: int, shape=(30, 24, 27)) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return field > 0.3 * field.std()


def ball(radius: float, resolution: int = 33) -> np.ndarray:
    axis = np.arange(resolution) - resolution // 2
    return axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= radius**2


MASKS = {
    "noise": (noise_mask(1), noise_mask(2)),
    "sparse noise": (noise_mask(3, density=0.02), noise_mask(4, density=0.1)),
    "smooth": (smooth_mask(1), smooth_mask(2)),
    "near": (smooth_mask(1), np.roll(smooth_mask(1), 1, axis=0)),
    "nested balls": (ball(14), ball(5)),
    "filled to the border": (np.ones((5, 6, 7), bool), smooth_mask(5, (5, 6, 7))),
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equals_the_package(oracle, name, spacing):
    truth, prediction = MASKS[name]
    theirs = oracle.compute_surface_distances(truth, prediction, spacing)
    ours = metrics.surface_distances(truth, prediction, spacing)
    exact = {"rtol": 0, "atol": 1e-9}
    np.testing.assert_allclose(ours.truth_to_prediction_mm, theirs["distances_gt_to_pred"], **exact)
    np.testing.assert_allclose(ours.prediction_to_truth_mm, theirs["distances_pred_to_gt"], **exact)
    np.testing.assert_allclose(ours.truth_areas_mm2.sum(), theirs["surfel_areas_gt"].sum())
    for tolerance in (0.0, 0.7, 1.0, 2.0):
        expected = oracle.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert metrics.nsd(ours, tolerance) == pytest.approx(expected, abs=1e-9)
    for percent in (50, 95, 100):
        expected = oracle.compute_robust_hausdorff(theirs, percent)
        assert metrics.hausdorff(ours, percent) == pytest.approx(expected, abs=1e-9)
    expected = np.mean(oracle.compute_average_surface_distance(theirs))
    assert metrics.assd(ours) == pytest.approx(expected, abs=1e-9)
    expected = oracle.compute_dice_coefficient(truth, prediction)
    assert metrics.dsc(truth, prediction) == pytest.approx(expected, abs=1e-12)


@given(st.tuples(*[st.floats(0.01, 20)] * 3))
@settings(max_examples=30, deadline=None)
def test_areas_equal_the_package_at_any_spacing(spacing):
    tables = pytest.importorskip("surface_distance.lookup_tables")
    expected = tables.create_table_neighbour_code_to_surface_area(spacing)
    np.testing.assert_allclose(surface_areas(spacing), expected, rtol=1e-12)


def test_areas_scale_with_the_square_of_the_spacing():
    np.testing.assert_allclose(surface_areas((3.0, 6.0, 1.5)), 9 * surface_areas((1.0, 2.0, 0.5)))


def test_a_flat_wall_has_the_area_of_its_face():
    codes = neighbourhood_codes(np.ones((2, 3, 4), bool))
    areas = surface_areas((1.0, 2.0, 5.0))[codes]
    assert areas[0, 1, 1] == pytest.approx(2 * 5)
    assert areas[1, 0, 1] == pytest.approx(1 * 5)
    assert areas[1, 1, 0] == pytest.approx(1 * 2)
    assert areas[1, 1, 1] == 0


def test_shifted_slab_has_the_distance_of_the_shift():
    truth, prediction = np.zeros((2, 20, 12, 12), bool)
    truth[5:10] = prediction[7:12] = True
    distances = metrics.surface_distances(truth, prediction, (1.5, 1.0, 1.0))
    assert metrics.hausdorff(distances) == pytest.approx(3.0)
    assert metrics.dsc(truth, prediction) == pytest.approx(0.6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_symmetric_in_its_arguments(spacing):
    truth, prediction = MASKS["smooth"]
    forward, backward = (
        metrics.score(truth, prediction, spacing),
        metrics.score(prediction, truth, spacing),
    )
    np.testing.assert_allclose(list(vars(forward).values()), list(vars(backward).values()))


def test_identical_masks_agree_fully():
    assert metrics.score(ball(6), ball(6)) == metrics.Scores(dsc=1.0, nsd=1.0, hd95=0.0, assd=0.0)


def test_one_empty_mask_is_the_worst_score():
    worst = metrics.Scores(dsc=0.0, nsd=0.0, hd95=float("inf"), assd=float("inf"))
    empty = np.zeros_like(ball(4))
    assert metrics.score(ball(4), empty) == metrics.score(empty, ball(4)) == worst
    assert np.isinf(metrics.surface_distances(ball(4), empty).truth_to_prediction_mm).all()


def test_two_empty_masks_agree_fully():
    empty = np.zeros((4, 5, 6), bool)
    assert metrics.score(empty, empty) == metrics.Scores(dsc=1.0, nsd=1.0, hd95=0.0, assd=0.0)


def test_does_not_mutate_and_takes_integers_and_strided_views():
    truth, prediction = smooth_mask(1), smooth_mask(2)
    before = truth.copy(), prediction.copy()
    expected = metrics.score(truth, prediction)
    assert metrics.score(truth.astype(np.int16) * 3, prediction.astype(np.uint8)) == expected
    assert metrics.score(np.asfortranarray(truth), np.asfortranarray(prediction)) == expected
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(prediction, before[1])


def test_surroundings_do_not_matter():
    truth, prediction = ball(5, 13), ball(4, 13)
    around = ((3, 0), (1, 7), (0, 2))
    padded = metrics.score(np.pad(truth, around), np.pad(prediction, around))
    assert padded == metrics.score(truth, prediction)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.dsc(ball(3), ball(3)[1:]),
        lambda: metrics.score(ball(3)[0], ball(3)[0]),
        lambda: metrics.dsc(ball(3).astype(float), ball(3)),
        lambda: metrics.score(ball(3), ball(3), spacing=(1, 1)),
        lambda: metrics.score(ball(3), ball(3), spacing=(1, 0, 1)),
        lambda: metrics.score(ball(3), ball(3), spacing=(1, float("nan"), 1)),
        lambda: metrics.score(ball(3), ball(3), tolerance=-1),
        lambda: metrics.score(ball(3), ball(3), tolerance=float("nan")),
        lambda: metrics.hausdorff(metrics.surface_distances(ball(3), ball(3)), 101),
    ],
)
def test_senseless_arguments_are_refused(call):
    with pytest.raises(InputError):
        call()
