"""How probable a code is: the normal distribution of training codes, for fits that see little of a shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

ISOTROPIC_SHAPES = 20  # so many shapes' worth of a round distribution are mixed into the covariance
INDEPENDENT = 0.3  # share of the rest in which entries do not depend on one another


@dataclass(frozen=True, eq=False)
class CodePrior:
    """Normal distribution of codes: mean + factor · z with independent standard normal z.

    Args:
        mean: (c,).
        factor: (c, c).
    """

    mean: Float[Tensor, " c"]
    factor: Float[Tensor, "c c"]

    def codes(self, whitened: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Codes of whitened ones, z."""
        return self.mean + whitened @ self.factor.T


def fit_prior(codes: Float[np.ndarray, "n c"], device: torch.device | str = "cpu") -> CodePrior:
    """Mean and covariance of training codes; the fewer they are, the rounder the distribution."""
    codes = codes.astype(np.float64)
    mean, (count, size) = codes.mean(0), codes.shape
    covariance = (codes - mean).T @ (codes - mean) / max(1, count - 1)
    share = min(1.0, ISOTROPIC_SHAPES / count)
    round_one = np.trace(covariance) / size * np.eye(size)
    covariance = (1 - INDEPENDENT) * covariance + INDEPENDENT * np.diag(np.diag(covariance))
    covariance = (1 - share) * covariance + share * round_one
    variance, axes = np.linalg.eigh(covariance)
    factor = axes * np.sqrt(variance.clip(min=0))
    mean, factor = (torch.from_numpy(value.astype(np.float32)).to(device) for value in (mean, factor))
    return CodePrior(mean, factor)
