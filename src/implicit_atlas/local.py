"""Local residual: lengths along the template's normals on top of what a code says, for detail that no code has.

A code's 256 numbers describe a shape as a whole; what is peculiar to one shape at one place is free here, at the price
of a number for every node of the modes near the surface. It is penalised, and fitted after the code, so that it adds
and does not replace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_atlas.schedule import cosine_decay

FLOOR = 0.02  # the rate of a fit ends at this share of its peak


@dataclass(frozen=True)
class LocalConfig:
    """How to fit residuals.

    Args:
        iterations: after those of the code.
        learning_rate: Adam's, in cube units.
        weight: of the residual's mean square, in cube units.
    """

    iterations: int = 200
    learning_rate: float = 0.01
    weight: float = 0.2


def fit_residuals(
    losses: Callable[[Float[Tensor, "batch k"], int], Float[Tensor, " batch"]],
    shapes: int,
    count: int,
    config: LocalConfig,
    device: torch.device,
) -> Float[Tensor, "batch k"]:
    """Residuals of shapes in cube units, by Adam with cosine decay.

    Args:
        losses: of each shape, for residuals and the number of the iteration.
        shapes: how many.
        count: numbers of a residual, k.
        config: how.
        device: where the losses are computed.
    """
    residual = torch.zeros((shapes, count), device=device, requires_grad=True)
    optimizer = torch.optim.Adam([residual], lr=config.learning_rate, betas=(0.9, 0.99))
    for iteration in range(config.iterations):
        share = cosine_decay(iteration / config.iterations, FLOOR)
        optimizer.param_groups[0]["lr"] = config.learning_rate * share
        penalty = residual.square().mean(1)
        optimizer.zero_grad()
        (losses(residual, iteration) + config.weight * penalty).sum().backward()
        optimizer.step()
    return residual.detach()
