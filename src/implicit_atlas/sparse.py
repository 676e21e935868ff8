"""Completion: the most probable shape of a few observed points (paper §5.1).

Codes have the normal distribution of the training codes, and what no code says, a local residual of lengths along the
template's normals, an independent one at every node. How well a shape explains a point is judged by the
signed distance between the point and the shape's surface, read from the distance map of its template at the place that
the point has there. A network's logits cannot say that: they are as steep as training made them, and level off.

Points in cube coordinates know the organ's box, as in the paper. Points in millimetres do not: the pose of the cube is
then free, too, and started from several sizes and centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.fitting import CodeFit, Progress, in_batches
from implicit_atlas.model import Atlas, Field
from implicit_atlas.pose import FREE
from implicit_atlas.sampling import Observations
from implicit_atlas.sparse_batch import ShapePrior, SparseBatch, SparseConfig

__all__ = ["ShapePrior", "SparseConfig", "complete_codes"]

LONGER = 3  # times as many iterations where the pose is free, too
SEARCH = 80  # iterations of each short search for a pose, at most
TRIAL = 30  # iterations by which templates are compared, at most


def complete_codes(
    network: Field | Atlas,
    observations: Sequence[Observations],
    prior: ShapePrior,
    config: SparseConfig | None = None,
    progress: Progress | None = None,
    draw: int = 0,
) -> list[CodeFit]:
    """The most probable code, and residual and pose, of each shape; failed ones are marked, never dropped.

    A draw from what is probable is the most probable shape of noisy observations under a prior about a random shape
    (randomised maximum likelihood, Kitanidis 1995; exact where all is linear and normal).

    Args:
        network: with weights that stay as they are.
        observations: what is known of each shape, in cube coordinates, or in millimetres where the prior has a pose.
        prior: what is known of shapes before anything is seen.
        config: how.
        progress: told how far it is.
        draw: 0 for the most probable shape, k for the k-th draw.
    """
    config = config or SparseConfig()
    if prior.pose is not None:
        config = replace(config, iterations=LONGER * config.iterations)

    def fit(ids: range, report: Progress) -> list[CodeFit]:
        part = observations[ids.start : ids.stop]
        start = None if prior.pose is None else _placed(network, part, prior, config)
        template = _best_templates(network, part, prior, config, start)
        return SparseBatch(network, part, prior, config, draw).run(report, start, template)

    return in_batches(network, len(observations), config.batch, fit, progress)


def _placed(
    network: Field | Atlas, observations: Sequence[Observations], prior: ShapePrior, config: SparseConfig
) -> Float[Tensor, "n free"]:
    """Where to start: code and pose of the best of several short searches without a residual."""
    assert prior.pose is not None
    starts = [prior.pose.starts(seen.points, seen.occupancy) for seen in observations]
    count = starts[0].shape[0]
    rough = replace(config, iterations=min(config.iterations, SEARCH))
    batch = SparseBatch(
        network, [o for o in observations for _ in range(count)], replace(prior, nodes=None), rough
    )
    free = torch.zeros((batch.count, batch.size), device=batch.device)
    free[:, -FREE:] = torch.from_numpy(np.concatenate(starts)).to(free)
    free, value = batch.search(free, None)
    best = value.view(-1, count).argmin(1)
    return free[torch.arange(len(observations), device=free.device) * count + best]


def _best_templates(
    network: Field | Atlas,
    observations: Sequence[Observations],
    prior: ShapePrior,
    config: SparseConfig,
    start: Float[Tensor, "n free"] | None,
) -> Int[Tensor, " n"] | None:
    """The template of the best of several short searches without a residual, one with each, from the mean code on.

    What templates say of the points at once is no guide: the best one is often that which deforms best.
    """
    count = network.templates
    if count < 2:
        return None
    rough = replace(config, iterations=min(config.iterations, TRIAL))
    batch = SparseBatch(
        network, [o for o in observations for _ in range(count)], replace(prior, nodes=None), rough
    )
    free = torch.zeros((batch.count, batch.size), device=batch.device)
    if start is not None:
        free[:, -FREE:] = start[:, -FREE:].repeat_interleave(count, 0)
    _, value = batch.search(free, torch.arange(count, device=batch.device).repeat(len(observations)))
    return value.view(-1, count).argmin(1)
