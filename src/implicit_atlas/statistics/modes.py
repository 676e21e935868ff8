"""Principal modes of shapes in dense correspondence, and how good a shape model they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from implicit_atlas.errors import InputError
from implicit_atlas.statistics.cases import Shapes, centred_block, check_at_least, vertex_blocks, vertex_count

LEAST = 1e-10  # variances below this share of the largest are rounding
LEFT_OUT, FOLDS = 50, 10  # cases that are left out one by one at most; folds for more
CANDIDATES = 5  # nearest shapes by root mean square distance, among which mean distances are taken
RESAMPLES, TAILS = 1000, (2.5, 97.5)  # of the bootstrap, percent
RESAMPLES_OF_MODES = 200  # where each needs the modes anew


@dataclass(frozen=True, eq=False)
class ShapeStatistics:
    """Mean and principal modes of n shapes; k = 0 where all are the same.

    Args:
        mean_mm: (v, 3).
        modes: (k, v, 3) orthonormal patterns, by falling variance; the case farthest along one has a positive score.
        deviations_mm: (k,) standard deviations of the scores, with n - 1 in the denominator.
        scores_mm: (n, k) coordinates of the cases in the modes.
        total_variance_mm2: of all modes, also those that are not kept, summed over vertices and axes.
        gram_mm2: (n, n) inner products of the cases' differences from the mean.
    """

    mean_mm: Float[np.ndarray, "v 3"]
    modes: Float[np.ndarray, "k v 3"]
    deviations_mm: Float[np.ndarray, " k"]
    scores_mm: Float[np.ndarray, "n k"]
    total_variance_mm2: float
    gram_mm2: Float[np.ndarray, "n n"]

    def at(self, mode: int, sigmas: float) -> Float[np.ndarray, "v 3"]:
        """Vertices in mm at so many standard deviations along a mode, counted from 0.

        Raises:
            InputError: no such mode.
        """
        if not 0 <= mode < len(self.modes):
            raise InputError(f"mode {mode}", f"is not one of {len(self.modes)}", "Count the modes from 0.")
        return self.mean_mm + sigmas * self.deviations_mm[mode] * self.modes[mode]


@dataclass(frozen=True, eq=False)
class Curve:
    """A measure of a shape model against its number of modes, 0 (the mean alone) to all.

    Args:
        values: (m,) of the models of 0 to m - 1 modes.
        standard_errors: (m,) of the values.
        low: (m,) lower end of their 95 % bootstrap interval.
        high: (m,) upper end.
        how: in words, how it was computed.
    """

    values: Float[np.ndarray, " m"]
    standard_errors: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]
    how: str


def principal_modes(shapes: Shapes, count: int) -> ShapeStatistics:
    """Principal component analysis by the Gram matrix, which is small where there are fewer shapes than coordinates.

    Args:
        shapes: n aligned cases of v vertices, mm.
        count: modes to keep at most; there are n - 1 or fewer.

    Raises:
        InputError: fewer than 2 cases, vertices that do not match or are not finite, or a count below 1.
    """
    check_at_least(count, 1, "count")
    n, vertices = len(shapes), vertex_count(shapes, 2)
    mean, gram = np.zeros((vertices, 3)), np.zeros((n, n))
    for part, block in vertex_blocks(shapes, n):
        mean[part], centred = centred_block(block)
        gram += centred @ centred.T
    norms, vectors = _spectrum(gram, count)
    modes = np.zeros((len(norms), vertices, 3))
    for part, block in vertex_blocks(shapes, n):
        modes[:, part] = ((vectors / norms).T @ centred_block(block)[1]).reshape(len(norms), *block.shape[1:])
    return ShapeStatistics(
        mean, modes, norms / np.sqrt(n - 1), vectors * norms, float(gram.trace() / (n - 1)), gram
    )


def compactness(stats: ShapeStatistics, seed: int = 0) -> Curve:
    """Share of the total variance in the first modes (Styner et al., IPMI 2003); 1 where there is no variance.

    The interval is over cases, the basic bootstrap's: cases drawn twice make resamples look more compact than the
    shapes, as these do than all that there are, so that it reaches as far below the value as resamples lie above.
    """
    rng, n = np.random.default_rng(seed), len(stats.gram_mm2)
    count = len(stats.modes)
    value = _shares(stats.gram_mm2, count)
    drawn = np.empty((RESAMPLES_OF_MODES, count + 1))
    for index in range(RESAMPLES_OF_MODES):
        times = rng.multinomial(n, np.full(n, 1 / n))
        used = np.flatnonzero(times)
        weight = times[used] / n
        inner = _double_centred(stats.gram_mm2[np.ix_(used, used)], weight)
        drawn[index] = _shares(inner * np.sqrt(np.outer(weight, weight)), count)
    low, high = np.clip(2 * value - np.percentile(drawn, TAILS[::-1], axis=0), 0, 1)
    return Curve(value, drawn.std(0, ddof=1), low, high, f"share of variance, {n} shapes")


def most_modes(n: int) -> int:
    """Modes whose generality n cases can tell, at least 1: what a model has of those that are not left out."""
    left_out = 1 if n <= LEFT_OUT else -(-n // FOLDS)
    return max(1, n - left_out - 1)


def generality(shapes: Shapes, stats: ShapeStatistics, seed: int = 0) -> Curve:
    """Mean vertex distance of shapes from their reconstruction by a model of others, mm (Styner et al., IPMI 2003).

    Up to 50 shapes are left out one by one, more in 10 random folds. Interval and error are those of a mean over cases.

    Args:
        shapes: those that `stats` was made of.
        stats: of them, with the modes to go up to.
        seed: of the folds and the bootstrap.

    Raises:
        InputError: fewer than 3 cases, or not those of `stats`.
    """
    n, vertices = _of_stats(shapes, stats, 3)
    rng = np.random.default_rng(seed)
    folds = np.array_split(rng.permutation(n), FOLDS) if n > LEFT_OUT else np.arange(n)[:, None]
    splits = [(np.setdiff1d(np.arange(n), held), held) for held in folds]
    count = min(len(stats.modes), min(len(train) for train, _ in splits) - 1)
    models = [_model_of_others(stats.gram_mm2, train, held, count) for train, held in splits]
    errors = np.zeros((count + 1, n))
    for _, block in vertex_blocks(shapes, n):
        flat = centred_block(block)[1]
        for (train, held), (weights, scores) in zip(splits, models, strict=True):
            left, modes = flat[held] - flat[train].mean(0), weights @ flat[train]
            errors[0, held] += _summed_lengths(left)
            for m in range(count):
                left -= scores[:, m, None] * modes[m]
                errors[m + 1, held] += _summed_lengths(left)
    how = f"mm, {n} shapes, " + ("left out one by one" if n <= LEFT_OUT else f"left out in {FOLDS} folds")
    return _mean_curve(errors / vertices, rng, how)


def specificity(shapes: Shapes, stats: ShapeStatistics, samples: int = 1000, seed: int = 0) -> Curve:
    """Mean vertex distance of random shapes from the nearest training shape, mm (Styner et al., IPMI 2003).

    Scores are normal. Nearest is the least mean distance among the 5 shapes of least root mean square distance.
    Interval and error are those of a mean over samples; that the shapes are a sample too is not in them.

    Args:
        shapes: those that `stats` was made of.
        stats: of them, with the modes to go up to.
        samples: random shapes for each number of modes; the same scores serve for all numbers.
        seed: of the random numbers.

    Raises:
        InputError: fewer than 2 samples, or shapes that are not those of `stats`.
    """
    check_at_least(samples, 2, "samples")
    n, vertices = _of_stats(shapes, stats, 2)
    rng, count = np.random.default_rng(seed), len(stats.modes)
    drawn = rng.standard_normal((count, samples)).T * stats.deviations_mm
    near = np.empty((count + 1, min(CANDIDATES, n), samples), np.int64)
    for m in range(count + 1):  # squared distances, less what is the same for all shapes
        squared = stats.gram_mm2.diagonal() - 2 * drawn[:, :m] @ stats.scores_mm[:, :m].T
        near[m] = np.argpartition(squared, len(near[m]) - 1, axis=1)[:, : len(near[m])].T
    distances = np.zeros(near.shape)
    for part, block in vertex_blocks(shapes, max(n, samples)):
        flat = block.reshape(n, -1)
        made = np.tile(stats.mean_mm[part].ravel(), (samples, 1))
        for m in range(count + 1):
            if m:
                made += drawn[:, m - 1, None] * stats.modes[m - 1, part].ravel()
            for which, training in enumerate(near[m]):
                distances[m, which] += _summed_lengths(made - flat[training])
    return _mean_curve(distances.min(1) / vertices, rng, f"mm, {samples} samples, {n} shapes")


def _spectrum(gram: Float[np.ndarray, "n n"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (k,) and left vectors (n, k) of what has this Gram matrix, falling, without rounding."""
    n = len(gram)
    values, vectors = eigh(gram, subset_by_index=[max(0, n - max(count, 1)), n - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = min(count, int((values > LEAST * max(values[0], 0)).sum()))
    vectors = vectors[:, :kept]
    farthest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
    return np.sqrt(values[:kept]), vectors * np.sign(farthest)


def _model_of_others(
    gram: np.ndarray, train: np.ndarray, held: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Modes of some shapes as weights (count, t) of these, and scores (h, count) of others; 0 beyond the rank."""
    inner, across = gram[np.ix_(train, train)], gram[np.ix_(held, train)]
    mean = inner.mean(0)
    norms, vectors = _spectrum(_double_centred(inner, np.full(len(train), 1 / len(train))), count)
    weights = np.zeros((count, len(train)))
    weights[: len(norms)] = (vectors / norms).T
    return weights, (across - across.mean(1, keepdims=True) - mean + mean.mean()) @ weights.T


def _double_centred(
    gram: Float[np.ndarray, "n n"], weight: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n n"]:
    """Inner products of differences from the weighted mean."""
    row = weight @ gram
    return gram - row - row[:, None] + weight @ row


def _shares(gram: Float[np.ndarray, "n n"], count: int) -> Float[np.ndarray, " m"]:
    """Shares of variance in the first 0 to `count` modes."""
    total = gram.trace()
    if not total > 0:
        return np.ones(count + 1)
    shares = np.ones(count + 1)
    norms = _spectrum(gram, count)[0]
    shares[: len(norms) + 1] = np.cumsum([0, *norms**2]) / total
    return np.minimum(shares, 1)


def _mean_curve(each: Float[np.ndarray, "m n"], rng: np.random.Generator, how: str) -> Curve:
    """Means over n, with bootstrap percentiles."""
    n = each.shape[1]
    resampled = each @ rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).T / n
    low, high = np.percentile(resampled, TAILS, axis=1)
    return Curve(each.mean(1), each.std(1, ddof=1) / np.sqrt(n), low, high, how)


def _summed_lengths(flat: Float[np.ndarray, "n coordinates"]) -> Float[np.ndarray, " n"]:
    return np.sqrt((flat.reshape(len(flat), -1, 3) ** 2).sum(2)).sum(1)


def _of_stats(shapes: Shapes, stats: ShapeStatistics, least: int) -> tuple[int, int]:
    """Numbers of cases and vertices, if they are those of the statistics."""
    sizes, expected = (len(shapes), vertex_count(shapes, least)), (len(stats.gram_mm2), len(stats.mean_mm))
    if sizes != expected:
        problem = f"are {sizes[0]} of {sizes[1]} vertices, the statistics of {expected[0]} of {expected[1]}"
        raise InputError("shapes", problem, "Give the shapes that the statistics were made of.")
    return sizes
