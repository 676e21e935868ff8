"""Local residual: lengths along the template's normals on top of what a code says, for detail that no code has.

A code's 256 numbers describe a shape as a whole; what is peculiar to one shape at one place is free here, at the price
of a number for every node of a lattice that is near the templates' surfaces. It is penalised, and fitted after the
code, so that it adds and does not replace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.atlas.modes import DistanceMap, node_places, scattered, unit_vectors
from implicit_atlas.errors import InputError
from implicit_atlas.support.schedule import FIT_FLOOR, cosine_decay

REACH = 1.5  # nodes this near to a template's surface have lengths, in distances between nodes


@dataclass(frozen=True)
class LocalConfig:
    """How to fit residuals.

    Args:
        nodes: of the lattice, a side.
        iterations: after those of the code.
        learning_rate: Adam's, in cube units.
        weight: of the residual's mean square, in cube units.
    """

    nodes: int = 41
    iterations: int = 200
    learning_rate: float = 0.01
    weight: float = 0.2

    def __post_init__(self) -> None:
        if self.nodes < 3:
            raise InputError("local residual", f"{self.nodes} nodes a side are too few", "Use 3 or more.")


@dataclass(frozen=True, eq=False)
class ResidualNodes:
    """Where a residual has lengths, and which way they point.

    Args:
        kept: (k,) flat indices of nodes of the lattice, in C order.
        normals: (m, k, 3) unit vectors there towards the inside of each template; zero at nodes near others alone,
            whose lengths do nothing for it.
        nodes: of the lattice, a side.
    """

    kept: Int[Tensor, " k"]
    normals: Float[Tensor, "m k 3"]
    nodes: int

    @property
    def free(self) -> int:
        """Lengths that do something, for the template that has most."""
        return int(self.normals.any(-1).sum(1).max())

    def lattice(
        self, lengths: Float[Tensor, "batch k"], template: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch n n n 3"]:
        """Displacements at all nodes."""
        return scattered(lengths[..., None] * self.normals[template], self.kept, self.nodes)


def residual_nodes(distances: Float[Tensor, "m r r r"], nodes: int) -> ResidualNodes:
    """The nodes of a lattice near the surface of a template, by the templates' signed distances in cube units."""
    where = node_places(nodes)
    maps = [DistanceMap(distance.cpu().double().numpy()) for distance in distances]
    far = np.stack([np.abs(shape(where)[0]) for shape in maps])
    near = far <= np.maximum(2 * REACH / (nodes - 1), far.min(1, keepdims=True))
    kept = np.flatnonzero(near.any(0))
    normals = np.stack([unit_vectors(shape(where[kept])[1]) for shape in maps])
    normals = (normals * near[:, kept, None]).astype(np.float32)
    return ResidualNodes(
        torch.from_numpy(kept).to(distances.device), torch.from_numpy(normals).to(distances.device), nodes
    )


def fit_residuals(
    losses: Callable[[Float[Tensor, "batch k"], int], Float[Tensor, " batch"]],
    shapes: int,
    nodes: ResidualNodes,
    config: LocalConfig,
) -> Float[Tensor, "batch k"]:
    """Residuals of shapes in cube units, by Adam with cosine decay.

    Args:
        losses: of each shape, for residuals and the number of the iteration.
        shapes: how many.
        nodes: where the residuals have their k lengths.
        config: how.
    """
    residual = torch.zeros((shapes, len(nodes.kept)), device=nodes.normals.device, requires_grad=True)
    optimizer = torch.optim.Adam([residual], lr=config.learning_rate, betas=(0.9, 0.99))
    for iteration in range(config.iterations):
        share = cosine_decay(iteration / config.iterations, FIT_FLOOR)
        optimizer.param_groups[0]["lr"] = config.learning_rate * share
        penalty = residual.square().sum(1) / nodes.free
        optimizer.zero_grad()
        (losses(residual, iteration) + config.weight * penalty).sum().backward()
        optimizer.step()
    return residual.detach()
