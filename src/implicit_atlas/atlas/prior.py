"""How probable a code is: a normal distribution for each template, for fits that see little of a shape.

Codes of shapes that deform one template lie around a mean, half way from theirs to that of all; how they vary about it
is taken to be the same for all templates, so that few shapes of each are enough to say it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.support.blas import one_thread

OWN = 0.5  # how far a template's mean is its own shapes', and not that of all
# How much of a covariance is made up: so many shapes' worth of a round one, and the share of the rest in which entries
# do not depend on one another. Of fewer than MANY shapes no more than their size can be known: all is round.
ROUND, INDEPENDENT = (2, 5, 12, 30), (0.1, 0.3, 0.5, 0.7, 0.9)
MANY, FOLDS = 20, 5


@dataclass(frozen=True, eq=False)
class CodePrior:
    """Normal distributions of codes: mean + factor · z with independent standard normal z.

    Args:
        means: (m, c), one for each template; a single one where there are no templates.
        factor: (c, c).
        shares: (m,) of the training shapes that deform each template.
    """

    means: Float[Tensor, "m c"]
    factor: Float[Tensor, "c c"]
    shares: Float[Tensor, " m"]

    def to(self, device: torch.device | str) -> CodePrior:
        """The same on a device."""
        return CodePrior(self.means.to(device), self.factor.to(device), self.shares.to(device))

    def codes(
        self, whitened: Float[Tensor, "n c"], template: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n c"]:
        """Codes of whitened ones, z, of shapes that deform these templates."""
        means = self.means[:1] if template is None else self.means[template]
        return means + whitened @ self.factor.T


@one_thread
def fit_prior(
    codes: Float[np.ndarray, "n c"], owner: Int[np.ndarray, " n"] | None = None, templates: int = 1
) -> CodePrior:
    """Means and covariance of training codes.

    How much of the covariance is made up is chosen by how probable it makes codes that were left out, a fifth of them
    at a time; the fewer codes, the more it will be.

    Args:
        codes: of shapes.
        owner: the template that each deforms; by default all the first.
        templates: m. One that no shape deforms has the mean of all codes.
    """
    codes = codes.astype(np.float64)
    count = len(codes)
    owner = np.zeros(count, np.int64) if owner is None else owner
    means = _means(codes, owner, templates)
    made_up = (count, 0.0) if count < MANY else _most_probable(codes, owner, templates)
    variance, axes = np.linalg.eigh(_covariance(codes - means[owner], *made_up))
    factor = axes * np.sqrt(variance.clip(min=0))
    shares = np.bincount(owner, minlength=templates) / count
    return CodePrior(*(torch.from_numpy(value.astype(np.float32)) for value in (means, factor, shares)))


def _means(
    codes: Float[np.ndarray, "n c"], owner: Int[np.ndarray, " n"], templates: int
) -> Float[np.ndarray, "m c"]:
    """Mean code of each template's shapes, half way from that of all."""
    means = np.tile(codes.mean(0), (templates, 1))
    for template in np.unique(owner):
        means[template] += OWN * (codes[owner == template].mean(0) - means[template])
    return means


def _covariance(
    apart: Float[np.ndarray, "n c"], round_shapes: float, independent: float
) -> Float[np.ndarray, "c c"]:
    """Covariance of codes about their means, partly made up."""
    count, size = apart.shape
    found = apart.T @ apart / max(1, count - 1)
    mixed = (1 - independent) * found + independent * np.diag(np.diag(found))
    share = min(1.0, round_shapes / count)
    return (1 - share) * mixed + share * np.trace(found) / size * np.eye(size)


def _most_probable(
    codes: Float[np.ndarray, "n c"], owner: Int[np.ndarray, " n"], templates: int
) -> tuple[float, float]:
    """The arguments of `_covariance` under which codes that were left out are most probable."""
    fold, scores = np.arange(len(codes)) % FOLDS, np.zeros((len(ROUND), len(INDEPENDENT)))
    for left_out in range(FOLDS):
        kept, out = fold != left_out, fold == left_out
        means = _means(codes[kept], owner[kept], templates)
        apart, unseen = codes[kept] - means[owner[kept]], codes[out] - means[owner[out]]
        for where in np.ndindex(*scores.shape):
            covariance = _covariance(apart, ROUND[where[0]], INDEPENDENT[where[1]])
            scores[where] += _log_likelihood(covariance, unseen)
    best = np.unravel_index(scores.argmax(), scores.shape)
    return ROUND[best[0]], INDEPENDENT[best[1]]


def _log_likelihood(covariance: Float[np.ndarray, "c c"], apart: Float[np.ndarray, "n c"]) -> float:
    """Of codes about their means, up to a constant; minus infinity where they cannot be."""
    variance, axes = np.linalg.eigh(covariance)
    if variance[0] <= 0:
        return -np.inf
    return -float(len(apart) * np.log(variance).sum() + (np.square(apart @ axes) / variance).sum()) / 2
