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

import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.code_fit import CodeFit
from implicit_atlas.fitting import Progress, in_batches
from implicit_atlas.model import Atlas, Field
from implicit_atlas.pose import FREE
from implicit_atlas.registration import registered, roughly
from implicit_atlas.sampling import Observations
from implicit_atlas.sparse_batch import ShapePrior, SparseBatch, SparseConfig

__all__ = ["ShapePrior", "SparseConfig", "complete_codes"]

LONGER = 3  # times as many iterations where the pose is free, too
SEARCH = 40  # iterations by which templates are compared where it is, at most
TRIAL = 30  # and where it is not
SEARCH_POINTS = 1 << 11  # of such an iteration, at most
DRAW_POINTS = 1 << 12  # of an iteration of a draw, at most


def complete_codes(
    network: Field | Atlas,
    observations: Sequence[Observations],
    prior: ShapePrior,
    config: SparseConfig | None = None,
    progress: Progress | None = None,
    draws: int = 0,
) -> list[list[CodeFit]]:
    """The most probable code, and residual and pose, of each shape, and draws; failed ones are marked, never dropped.

    A draw from what is probable is the most probable shape of noisy observations under a prior about a random shape
    (randomised maximum likelihood, Kitanidis 1995; exact where all is linear and normal).

    Args:
        network: with weights that stay as they are.
        observations: what is known of each shape, in cube coordinates, or in millimetres where the prior has a pose.
        prior: what is known of shapes before anything is seen.
        config: how.
        progress: told how far it is.
        draws: how many, which follow the most probable one in the list of each shape.
    """
    config = config or SparseConfig()
    near = replace(config, points=min(config.points, DRAW_POINTS))  # draws begin at the most probable shape
    if prior.pose is not None:
        config = replace(config, iterations=LONGER * config.iterations)

    def fit(ids: range, report: Progress) -> list[list[CodeFit]]:
        part = observations[ids.start : ids.stop]
        start, template = _begin(network, part, prior, config)
        rounds = []
        for draw in range(draws + 1):

            def overall(share: float, text: str, done: int = draw) -> None:
                report((done + share) / (draws + 1), text)

            settings = config if draw == 0 else near
            batch = SparseBatch(network, part, prior, settings, draw)
            begin = batch.drawn(start) if draw and start is not None else start
            found, free = batch.run(overall, begin, template)
            rounds.append(found)
            start = free if draw == 0 else start
        return [list(fits) for fits in zip(*rounds, strict=True)]

    return in_batches(network, len(observations), config.batch, fit, progress)


def _begin(
    network: Field | Atlas, observations: Sequence[Observations], prior: ShapePrior, config: SparseConfig
) -> tuple[Float[Tensor, "n free"] | None, Int[Tensor, " n"] | None]:
    """Where to start, None at the mean, and with which template: what the best of some short searches has.

    There is one with each template, without a residual. What templates say of the points at once is no guide: the best
    one is often that which deforms best.
    """
    count = max(1, network.templates)
    if count == 1 and prior.pose is None:
        return None, None
    rough, alone = replace(prior, nodes=None), prior.pose is None
    length = min(config.iterations, TRIAL if alone else SEARCH)
    settings = replace(config, iterations=length, points=min(config.points, SEARCH_POINTS))
    batch = SparseBatch(network, [o for o in observations for _ in range(count)], rough, settings)
    free = torch.zeros((batch.count, batch.size), device=batch.device)
    if prior.pose is not None:
        starts = [prior.pose.starts(seen.points, seen.occupancy) for seen in observations]
        poses = registered(SparseBatch(network, observations, rough, roughly(config)), starts)
        free[:, -FREE:] = poses.flatten(0, 1)
    template = None
    if network.templates:
        template = torch.arange(count, device=batch.device).repeat(len(observations))
    free, value = batch.search(free, template)
    best = value.view(-1, count).argmin(1)
    if alone:
        return None, best
    chosen = free.view(-1, count, batch.size)[torch.arange(len(best), device=best.device), best]
    no_residual = chosen.new_zeros((len(best), 0 if prior.nodes is None else len(prior.nodes.kept)))
    start = torch.cat([chosen[:, : batch.code_size], no_residual, chosen[:, -FREE:]], dim=1)
    return start, best if network.templates else None
