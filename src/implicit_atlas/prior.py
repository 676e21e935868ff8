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

ISOTROPIC_SHAPES = 20  # so many shapes' worth of a round distribution are mixed into the covariance
OWN = 0.5  # how far a template's mean is its own shapes', and not that of all
INDEPENDENT = 0.3  # share of the rest in which entries do not depend on one another


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


def fit_prior(
    codes: Float[np.ndarray, "n c"], owner: Int[np.ndarray, " n"] | None = None, templates: int = 1
) -> CodePrior:
    """Means and covariance of training codes; the fewer they are, the rounder the distribution.

    Args:
        codes: of shapes.
        owner: the template that each deforms; by default all the first.
        templates: m. One that no shape deforms has the mean of all codes.
    """
    codes = codes.astype(np.float64)
    count, size = codes.shape
    owner = np.zeros(count, np.int64) if owner is None else owner
    used = np.bincount(owner, minlength=templates)
    means = np.tile(codes.mean(0), (templates, 1))
    for template in np.flatnonzero(used):
        means[template] += OWN * (codes[owner == template].mean(0) - means[template])
    apart = codes - means[owner]
    covariance = apart.T @ apart / max(1, count - 1)
    share = min(1.0, ISOTROPIC_SHAPES / count)
    round_one = np.trace(covariance) / size * np.eye(size)
    covariance = (1 - INDEPENDENT) * covariance + INDEPENDENT * np.diag(np.diag(covariance))
    covariance = (1 - share) * covariance + share * round_one
    variance, axes = np.linalg.eigh(covariance)
    factor = axes * np.sqrt(variance.clip(min=0))
    tensors = (torch.from_numpy(value.astype(np.float32)) for value in (means, factor, used / count))
    return CodePrior(*tensors)
