"""Muon: momentum whose step is made orthogonal, for the weights of hidden layers.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the step's size is that
of J. Liu et al., "Muon is scalable for LLM training" (2025), so that rates as for Adam fit. `torch.optim.Muon`
takes matrices only; the kernels of convolutions are matrices here, a row an output channel.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

MOMENTUM = 0.95
ITERATIONS = 5
# Coefficients of the odd polynomial of degree five that drives singular values towards 1 fast (Jordan et al.).
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
STEP = 0.2  # root mean square of a step's entries at rate 1, about that of Adam


def orthogonalised(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """U Vᵀ of the singular value decomposition U S Vᵀ, nearly: singular values come out in about 0.7 to 1.2.

    Newton-Schulz iteration; a zero matrix stays zero.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    first, third, fifth = POLYNOMIAL
    found = matrix / (matrix.norm() + 1e-12)
    for _ in range(ITERATIONS):
        square = found @ found.T
        found = first * found + (third * square + fifth * square @ square) @ found
    return found


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for parameters of two or more dimensions (rows first)."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"])

    def _update(self, parameter: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        matrix = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1))
        size = STEP * max(matrix.shape) ** 0.5
        parameter.add_(matrix.view_as(parameter), alpha=-rate * size)
