"""Local residual: a small lattice of displacements on top of what a code says, for detail that no code has.

A code's 256 numbers describe a shape as a whole; what is peculiar to one shape at one place is free here, at the price
of 3 n³ more numbers at test time. It is penalised, and fitted after the code, so that it adds and does not replace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_atlas.errors import InputError
from implicit_atlas.schedule import cosine_decay

Residual = Float[Tensor, "batch n n n 3"]
FLOOR = 0.02  # the rate of a fit ends at this share of its peak


@dataclass(frozen=True)
class LocalConfig:
    """How to fit residuals.

    Args:
        nodes: of the lattice, a side: 5, 9, 17 or 33.
        iterations: after those of the code.
        learning_rate: Adam's, in cube units.
        weight: of the residual's mean square, in cube units.

    Raises:
        InputError: another number of nodes.
    """

    nodes: int = 17
    iterations: int = 200
    learning_rate: float = 0.01
    weight: float = 0.02

    def __post_init__(self) -> None:
        if self.nodes not in (5, 9, 17, 33):
            raise InputError(
                "local residual", f"cannot have {self.nodes} nodes a side", "Choose 5, 9, 17 or 33."
            )

    @property
    def degrees_of_freedom(self) -> int:
        """Numbers of a residual."""
        return 3 * self.nodes**3


def fit_residuals(
    losses: Callable[[Residual, int], Float[Tensor, " batch"]],
    shapes: int,
    config: LocalConfig,
    device: torch.device,
) -> Residual:
    """Residuals of shapes, by Adam with cosine decay.

    Args:
        losses: of each shape, for residuals and the number of the iteration.
        shapes: how many.
        config: how.
        device: where the losses are computed.
    """
    residual = torch.zeros((shapes, *(config.nodes,) * 3, 3), device=device, requires_grad=True)
    optimizer = torch.optim.Adam([residual], lr=config.learning_rate, betas=(0.9, 0.99))
    for iteration in range(config.iterations):
        share = cosine_decay(iteration / config.iterations, FLOOR)
        optimizer.param_groups[0]["lr"] = config.learning_rate * share
        penalty = residual.square().mean((1, 2, 3, 4))
        optimizer.zero_grad()
        (losses(residual, iteration) + config.weight * penalty).sum().backward()
        optimizer.step()
    return residual.detach()
