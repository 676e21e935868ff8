"""Eqs. 5-7 as pure functions of predictions, and `total_loss`, the one place where weights meet them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the penalties (paper §4.3)."""

    code: float = 1e-3
    laplacian: float = 1e-3
    deformation: float = 1e-2


def task_loss(
    logits: Float[Tensor, "batch points"], occupancy: Float[Tensor, "batch points"]
) -> Float[Tensor, ""]:
    """Binary cross entropy of occupancy, mean over points (Eq. 5), from logits."""
    return F.binary_cross_entropy_with_logits(logits, occupancy)


def generalised_cross_entropy(
    logits: Float[Tensor, "batch points"], occupancy: Float[Tensor, "batch points"], robustness: float
) -> Float[Tensor, "batch points"]:
    """(1 - p^q) / q of each point, p being the probability of its label and q the robustness, 0 to 1.

    Cross entropy at 0, and at 1 the probability of the wrong label (Zhang and Sabuncu, NeurIPS 2018): what is far from
    its label counts as 1 / q at most, however sure the network is of it.
    """
    each = F.binary_cross_entropy_with_logits(logits, occupancy, reduction="none")
    return -torch.expm1(-robustness * each) / robustness if robustness else each


def code_penalty(codes: Float[Tensor, "batch c"]) -> Float[Tensor, ""]:
    """L2 norm of the codes, mean over shapes (Eq. 6). Its gradient at a zero code is zero."""
    return (codes.square().sum(-1) + 1e-12).sqrt().mean()


def second_differences(field: Float[Tensor, "batch x y z"]) -> Float[Tensor, "batch three x2 y2 z2"]:
    """F(w+1) + F(w-1) - 2 F(w) along each axis, at inner nodes, by one convolution."""
    kernel = torch.zeros(3, 1, 3, 3, 3, device=field.device)
    kernel[:, 0, 1, 1, 1] = -2
    kernel[0, 0, 0::2, 1, 1] = 1
    kernel[1, 0, 1, 0::2, 1] = 1
    kernel[2, 0, 1, 1, 0::2] = 1
    return F.conv3d(field[:, None], kernel)


def laplacian_smoothness(field: Float[Tensor, "batch x y z"]) -> Float[Tensor, ""]:
    """Sum over the axes of the size of the second difference, mean over lattice nodes (Eq. 7, first line)."""
    return second_differences(field).abs().sum(1).mean()


def deformation_penalty(displacement: Float[Tensor, "batch points 3"]) -> Float[Tensor, ""]:
    """Largest plus mean displacement of a shape, in cube units, mean over shapes (Eq. 7, second line)."""
    length = (displacement.square().sum(-1) + 1e-12).sqrt()
    return (length.amax(1) + length.mean(1)).mean()


@dataclass(frozen=True)
class LossTerms:
    """Values of the terms before their weights; a term that a model does not have is None."""

    task: Float[Tensor, ""]
    code: Float[Tensor, ""]
    laplacian: Float[Tensor, ""] | None = None
    deformation: Float[Tensor, ""] | None = None


def total_loss(terms: LossTerms, weights: LossWeights) -> Float[Tensor, ""]:
    """Task loss plus weighted penalties."""
    loss = terms.task + weights.code * terms.code
    if terms.laplacian is not None and weights.laplacian:
        loss = loss + weights.laplacian * terms.laplacian
    if terms.deformation is not None and weights.deformation:
        loss = loss + weights.deformation * terms.deformation
    return loss
