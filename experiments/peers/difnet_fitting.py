"""Codes of unseen shapes, with the weights of DIF-Net frozen: from masks, or from points inside and outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.peers.difnet_data import Pool, make_pool
from experiments.peers.difnet_losses import completion_loss, embedding_loss
from experiments.peers.difnet_training import DifNetConfig, LossOf, TrainedDifNet, accumulate, step_generator
from implicit_atlas.shapes.sampling import Observations, ObservationSet, PointConfig
from implicit_atlas.shapes.shape import Shape

# Of the draws of fits, which a training with the same seed does not use.
FIT_SEED = 500_009


def fit_shapes(trained: TrainedDifNet, shapes: Sequence[Shape], config: DifNetConfig) -> Float[Tensor, "n c"]:
    """Codes of unseen shapes; no shape's code depends on the others."""
    parts = []
    for begin in range(0, len(shapes), config.batch):
        part = make_pool(shapes[begin : begin + config.batch], config.pool, config.seed, config.device)

        def losses(generator: torch.Generator, part: Pool = part) -> LossOf:
            samples = part.sample(torch.arange(len(part)), config.counts, generator, shared=True)
            return lambda layers, rows: embedding_loss(
                trained.network.fields(layers, samples.points[rows]), samples.part(rows), config.weights
            )

        parts.append(_fit(trained, len(part), losses, config))
    return torch.cat(parts) if parts else trained.codes[:0]


def fit_observations(
    trained: TrainedDifNet, seen: Sequence[Observations], config: DifNetConfig
) -> Float[Tensor, "n c"]:
    """Codes of shapes of which points inside and outside are seen.

    DIF-Net's own losses need distances. Here its SDF meets the labels in a cross-entropy (`label_loss`), with
    the weight of the SDF's loss and the code prior.
    """
    budget, parts = PointConfig(lattice=0, band=sum(config.counts)), []
    for begin in range(0, len(seen), config.batch):
        part = ObservationSet(seen[begin : begin + config.batch], config.device)

        def losses(generator: torch.Generator, part: ObservationSet = part) -> LossOf:
            labels = part.sample(torch.arange(len(part)), budget, generator, shared=True)
            return lambda layers, rows: completion_loss(
                trained.network.query(layers, labels.points[rows]),
                labels.occupancy[rows],
                labels.weight[rows],
                config.weights,
            )

        parts.append(_fit(trained, len(part), losses, config))
    return torch.cat(parts) if parts else trained.codes[:0]


def _fit(
    trained: TrainedDifNet, count: int, losses: Callable[[torch.Generator], LossOf], config: DifNetConfig
) -> Float[Tensor, "n c"]:
    """Codes from the first training code, by Adam with frozen weights."""
    codes = trained.codes[:1].repeat(count, 1).requires_grad_()
    optimizer = torch.optim.Adam([codes], lr=config.learning_rate)
    for step in range(config.iterations):
        generator = step_generator(config.seed + FIT_SEED, step)
        optimizer.zero_grad()
        accumulate(trained.network, codes, losses(generator), config.weights, 1.0)
        optimizer.step()
    return codes.detach()
