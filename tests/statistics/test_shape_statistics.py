"""Statistics of shapes: planted modes, motions and differences are found, and fast paths equal brute force."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from implicit_atlas import statistics
from implicit_atlas.errors import InputError

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def noise(seed: int, n: int = 9, vertices: int = 37, far_mm: float = 50.0) -> np.ndarray:
    """Shapes without any structure, far from the origin."""
    return far_mm + np.random.default_rng(seed).normal(size=(n, vertices, 3))


def two_modes(n: int = 40, vertices: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shapes of two orthonormal modes with uncorrelated scores of mean 0; the modes and the scores."""
    rng = np.random.default_rng(3)
    modes = np.linalg.qr(rng.normal(size=(vertices * 3, 2)))[0].T
    scores = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, 2))]))[0][:, 1:] * [50, 20]
    shapes = rng.normal(size=(vertices, 3)) * 30 + (scores @ modes).reshape(n, vertices, 3)
    return shapes, modes.reshape(2, vertices, 3), scores


def lengths(differences: np.ndarray) -> np.ndarray:
    return np.linalg.norm(differences, axis=-1).mean(-1)


class Windows:
    """100 shapes of 12000 vertices that are parts of one array of noise."""

    def __init__(self) -> None:
        self.vertices = np.random.default_rng(0).normal(size=(12100, 3)).astype(np.float32)

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self.vertices[index : index + 12000]


def test_two_planted_modes_are_recovered():
    shapes, modes, scores = two_modes()
    stats = statistics.principal_modes(shapes, 10)
    assert len(stats.modes) == 2
    signs = np.sign((stats.modes * modes).sum((1, 2)))
    np.testing.assert_allclose(stats.modes * signs[:, None, None], modes, atol=1e-9)
    np.testing.assert_allclose(stats.scores_mm * signs, scores, atol=1e-9)
    np.testing.assert_allclose(stats.deviations_mm, scores.std(0, ddof=1))
    assert stats.total_variance_mm2 == pytest.approx((stats.deviations_mm**2).sum())
    assert (stats.scores_mm[np.abs(stats.scores_mm).argmax(0), [0, 1]] > 0).all()
    wanted = shapes.mean(0) + 2 * stats.deviations_mm[1] * stats.modes[1]
    np.testing.assert_allclose(stats.at(1, 2), wanted, **EXACT)


def test_modes_equal_those_of_a_singular_value_decomposition():
    shapes = noise(1)
    stats = statistics.principal_modes(list(shapes), 8)
    centred = (shapes - shapes.mean(0)).reshape(9, -1)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign((stats.modes.reshape(8, -1) * vt[:8]).sum(1))
    np.testing.assert_allclose(stats.modes.reshape(8, -1), vt[:8] * signs[:, None], atol=1e-9)
    np.testing.assert_allclose(stats.deviations_mm, s[:8] / np.sqrt(8))
    np.testing.assert_allclose(stats.scores_mm, u[:, :8] * s[:8] * signs, atol=1e-9)
    np.testing.assert_allclose(statistics.principal_modes(shapes, 3).modes, stats.modes[:3], atol=1e-9)


def everything(shapes: np.ndarray) -> list[np.ndarray]:
    stats = statistics.principal_modes(shapes, 4)
    groups = statistics.compare_groups(shapes, np.arange(len(shapes)) % 2, permutations=50, seed=1)
    curves = [statistics.compactness(stats), statistics.generality(shapes, stats)]
    curves.append(statistics.specificity(shapes, stats, samples=30))
    parts = [stats.mean_mm, stats.modes, stats.gram_mm2, groups.difference_mm, groups.share, groups.p]
    return parts + [part for curve in curves for part in (curve.values, curve.low, curve.high)]


@pytest.mark.parametrize("block", [1, 3])
def test_blocks_do_not_matter_and_nothing_is_mutated(monkeypatch, block):
    shapes = noise(2)
    before = shapes.copy()
    whole = everything(shapes)
    monkeypatch.setattr("implicit_atlas.statistics.cases.BLOCK", block)
    for one, other in zip(everything(shapes), whole, strict=True):
        np.testing.assert_allclose(one, other, **EXACT)
    np.testing.assert_array_equal(shapes, before)


def test_many_shapes_need_little_memory(monkeypatch):
    monkeypatch.setattr("implicit_atlas.statistics.cases.BLOCK", 8)
    shapes = Windows()
    tracemalloc.start()
    stats = statistics.principal_modes(shapes, 2)
    statistics.generality(shapes, stats)
    statistics.specificity(shapes, stats, samples=100)
    statistics.compare_groups(shapes, np.arange(100) % 2, permutations=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 12000 * 3 * 8 / 2


def test_shapes_may_lie_on_disk(tmp_path):
    shapes = noise(4).astype(np.float32)
    np.save(tmp_path / "shapes.npy", shapes)
    mapped = np.load(tmp_path / "shapes.npy", mmap_mode="r")
    from_disk, from_memory = (statistics.principal_modes(source, 3) for source in (mapped, shapes))
    np.testing.assert_array_equal(from_disk.modes, from_memory.modes)


@pytest.mark.parametrize("scale", [False, True])
def test_alignment_undoes_motions(scale):
    rng = np.random.default_rng(5)
    shape = rng.normal(size=(60, 3)) * [30, 20, 10] + 100
    turns = Rotation.random(8, rng=rng).as_matrix()
    scales = rng.uniform(0.7, 1.4, 8) if scale else np.ones(8)
    shapes = [s * shape @ turn.T + rng.normal(size=3) * 40 for s, turn in zip(scales, turns, strict=True)]
    before = [case.copy() for case in shapes]
    aligned = statistics.align(shapes, scale)
    wanted = shapes[0].mean(0) + (shapes[0] - shapes[0].mean(0)) * scales.mean() / scales[0]
    for case in aligned:
        np.testing.assert_allclose(case, wanted, atol=1e-6)
    np.testing.assert_allclose(aligned.mean_mm, wanted, atol=1e-6)
    np.testing.assert_allclose(aligned.scales, scales.mean() / scales if scale else 1, atol=1e-9)
    np.testing.assert_allclose(aligned.rotations[0], np.eye(3), atol=1e-9)
    np.testing.assert_array_equal(shapes, before)


def test_alignment_never_reflects():
    shape = np.random.default_rng(6).normal(size=(40, 3))
    aligned = statistics.align([shape, shape * [-1, 1, 1], shape])
    np.testing.assert_allclose(np.linalg.det(aligned.rotations), 1)


def test_aligned_shapes_are_best_placed_about_their_mean():
    shape = np.random.default_rng(7).normal(size=(50, 3)) * 20
    turns = Rotation.random(6, rng=8).as_matrix()
    shapes = [(shape + noise(i, 1, 50, 0)[0]) @ turn for i, turn in enumerate(turns)]
    aligned = statistics.align(shapes)
    cases = np.stack(list(aligned))
    np.testing.assert_allclose(cases.mean(0), aligned.mean_mm, **EXACT)
    np.testing.assert_allclose(cases.mean(1), np.tile(aligned.mean_mm.mean(0), (6, 1)), **EXACT)
    cost = ((cases - aligned.mean_mm) ** 2).sum()
    for vector in np.vstack([np.eye(3), -np.eye(3)]) * 1e-2:
        turned, centre = cases.copy(), cases[2].mean(0)
        turned[2] = (cases[2] - centre) @ Rotation.from_rotvec(vector).as_matrix().T + centre
        assert ((turned - turned.mean(0)) ** 2).sum() > cost


def test_compactness_is_the_cumulative_share():
    stats = statistics.principal_modes(noise(8), 8)
    curve = statistics.compactness(stats)
    shares = np.cumsum(stats.deviations_mm**2) / stats.total_variance_mm2
    np.testing.assert_allclose(curve.values, [0, *shares])
    few = statistics.compactness(statistics.principal_modes(noise(8), 3))
    np.testing.assert_allclose([few.values, few.low], [curve.values[:4], curve.low[:4]])
    assert (curve.low <= curve.high).all() and (curve.standard_errors[1:5] > 0).all()


def test_the_interval_of_compactness_holds_the_true_share():
    deviations = np.array([5, 3, 2, 1, 1, 1])
    truth = np.cumsum(deviations**2) / (deviations**2).sum()
    held = 0
    for seed in range(20):
        shapes = (np.random.default_rng(seed).normal(size=(40, 6)) * deviations).reshape(40, 2, 3)
        curve = statistics.compactness(statistics.principal_modes(shapes, 2))
        held += (curve.low[1:] <= truth[:2]) & (truth[:2] <= curve.high[1:])
    assert (held >= 16).all()


def test_leaving_one_out_equals_brute_force():
    shapes = noise(9, 7)
    curve = statistics.generality(shapes, statistics.principal_modes(shapes, 6))
    errors = np.zeros((6, 7))
    for case in range(7):
        others = np.delete(shapes, case, axis=0)
        stats = statistics.principal_modes(others, 5)
        left = shapes[case] - stats.mean_mm
        for m in range(6):
            modes = stats.modes[:m].reshape(m, left.size)
            errors[m, case] = lengths(left - (modes.T @ (modes @ left.ravel())).reshape(left.shape))
    np.testing.assert_allclose(curve.values, errors.mean(1))
    np.testing.assert_allclose(curve.standard_errors, errors.std(1, ddof=1) / np.sqrt(7))
    assert (curve.low <= curve.values).all() and (curve.values <= curve.high).all()
    assert "one by one" in curve.how


def test_many_shapes_are_left_out_in_folds():
    shapes, _, _ = two_modes(60)
    curve = statistics.generality(shapes, statistics.principal_modes(shapes, 2))
    assert "10 folds" in curve.how
    assert curve.values[0] > curve.values[1] > 1e-3 > 1e-6 > curve.values[2]


def test_specificity_equals_brute_force():
    shapes = noise(10, 5)
    stats = statistics.principal_modes(shapes, 3)
    curve = statistics.specificity(shapes, stats, samples=25, seed=4)
    scores = np.random.default_rng(4).standard_normal((3, 25)).T * stats.deviations_mm
    for m in range(4):
        made = stats.mean_mm + np.einsum("sk,kvc->svc", scores[:, :m], stats.modes[:m])
        nearest = lengths(made[:, None] - shapes[None]).min(1)
        assert curve.values[m] == pytest.approx(nearest.mean())
        assert curve.standard_errors[m] == pytest.approx(nearest.std(ddof=1) / 5)


def test_candidates_hold_the_nearest_shape(monkeypatch):
    shapes = noise(11, 30)
    stats = statistics.principal_modes(shapes, 6)
    few = statistics.specificity(shapes, stats, 100)
    monkeypatch.setattr("implicit_atlas.statistics.modes.CANDIDATES", 30)
    every = statistics.specificity(shapes, stats, 100)
    assert (few.values >= every.values - 1e-12).all()
    np.testing.assert_allclose(few.values, every.values, rtol=2e-3)


def test_a_planted_difference_is_found_and_nothing_else():
    shapes, labels = noise(12, 30, 400), ["patient"] * 14 + ["control"] * 16
    shapes[:14, :40, 2] += 3
    found = statistics.compare_groups(shapes, labels)
    assert (found.groups, found.sizes, found.exact) == (("control", "patient"), (16, 14), False)
    assert found.permutations == 1000 and found.global_p == 1 / 1001
    assert (found.q[:40] < 0.05).all() and (found.q[40:] < 0.05).mean() < 0.02
    np.testing.assert_allclose(found.difference_mm, shapes[:14].mean(0) - shapes[14:].mean(0), **EXACT)
    np.testing.assert_allclose(found.mean_mm, shapes.mean(0), **EXACT)
    between = 14 * 16 / 30 * (found.difference_mm**2).sum(1)
    np.testing.assert_allclose(found.share, between / ((shapes - shapes.mean(0)) ** 2).sum((0, 2)))


def test_p_values_are_uniform_where_groups_do_not_differ():
    found = statistics.compare_groups(noise(13, 24, 500), np.arange(24) < 12, permutations=500)
    assert kstest(found.p, "uniform").pvalue > 0.01
    assert found.global_p > 0.05 and found.q.min() > 0.05


def test_few_permutations_are_enumerated():
    shapes, labels = noise(14, 6, 11), np.array([1, 0, 0, 1, 0, 0])
    found = statistics.compare_groups(shapes, labels, permutations=14)
    assert found.exact and found.permutations == 14
    reached = np.zeros(11)
    for members in combinations(range(6), 2):
        second = np.isin(np.arange(6), members)
        apart = ((shapes[second].mean(0) - shapes[~second].mean(0)) ** 2).sum(1)
        reached += apart >= (found.difference_mm**2).sum(1) - 1e-9
    np.testing.assert_allclose(found.p, reached / 15)
    assert not statistics.compare_groups(shapes, labels, permutations=13).exact


def test_growth_is_outward():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    middle = vertices.mean(0)
    small, large = vertices, middle + 1.5 * (vertices - middle)
    found = statistics.compare_groups([small, small, large, large], [0, 0, 1, 1])
    outward = found.outward_mm(faces)
    assert (0 < outward).all() and (outward <= np.linalg.norm(found.difference_mm, axis=1) + 1e-12).all()


@pytest.mark.filterwarnings("error")
def test_identical_shapes_have_no_modes_and_nothing_undefined():
    shapes = np.repeat(noise(16, 1), 6, axis=0)
    stats = statistics.principal_modes(shapes, 4)
    assert stats.modes.shape == (0, 37, 3) and stats.scores_mm.shape == (6, 0)
    assert stats.total_variance_mm2 == 0 and statistics.compactness(stats).values.tolist() == [1]
    assert statistics.generality(shapes, stats).values.tolist() == [0]
    assert statistics.specificity(shapes, stats, samples=5).values.tolist() == [0]
    found = statistics.compare_groups(shapes, [0, 1, 0, 1, 0, 1])
    assert found.global_p == 1 and {*found.p, *found.q} == {1} and not found.share.any()
    np.testing.assert_allclose(statistics.align(shapes)[3], shapes[0], **EXACT)


GOOD = noise(17, 5)
ONE_MODE = statistics.principal_modes(GOOD, 1)
LABELS = [0, 0, 1, 1, 1]


def with_case(index: int, case: np.ndarray) -> list[np.ndarray]:
    return [*GOOD[:index], case, *GOOD[index + 1 :]]


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("shapes", lambda: statistics.align(GOOD[:1])),
        ("shapes", lambda: statistics.principal_modes([], 1)),
        ("shapes", lambda: statistics.generality(GOOD[:2], statistics.principal_modes(GOOD[:2], 1))),
        ("shapes", lambda: statistics.generality(GOOD[:4], ONE_MODE)),
        ("shapes", lambda: statistics.specificity(GOOD[:, 1:], ONE_MODE)),
        ("shape 3", lambda: statistics.principal_modes(with_case(3, GOOD[3, 1:]), 1)),
        ("shape 2", lambda: statistics.align(with_case(2, GOOD[2] * np.nan))),
        ("shape 4", lambda: statistics.compare_groups(with_case(4, GOOD[4] * np.inf), LABELS)),
        ("shape 0", lambda: statistics.principal_modes(GOOD[..., :2], 1)),
        ("shape 1", lambda: statistics.align(with_case(1, np.ones((37, 3))), scale=True)),
        ("labels", lambda: statistics.compare_groups(GOOD, LABELS[1:])),
        ("labels", lambda: statistics.compare_groups(GOOD, [1] * 5)),
        ("labels", lambda: statistics.compare_groups(GOOD, [0, 1, 2, 0, 1])),
        ("samples", lambda: statistics.specificity(GOOD, ONE_MODE, samples=1)),
        ("mode 1", lambda: ONE_MODE.at(1, 1)),
    ],
)
def test_senseless_arguments_are_refused(source, call):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.source == source
