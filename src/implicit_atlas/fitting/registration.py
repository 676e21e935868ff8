"""Where a completion in a scan starts: the mean shape of every template, registered to what was observed.

Only poses are free. Distances count as if shapes and points were known roughly, so that from many starts few poses are
found; with distances as sharp as a completion takes them, nearly every start ends at a pose of its own, most of which
make the organ as small as what was seen of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.fitting.pose import FREE, Poses
from implicit_atlas.fitting.sparse_batch import SparseBatch, SparseConfig
from implicit_atlas.shapes.sampling import Samples
from implicit_atlas.support.schedule import FIT_FLOOR, cosine_decay

ITERATIONS, POINTS = 50, 512


def roughly(config: SparseConfig) -> SparseConfig:
    """Settings by which poses are found."""
    return replace(config, iterations=min(config.iterations, ITERATIONS), points=min(config.points, POINTS))


def registered(batch: SparseBatch, starts: Sequence[np.ndarray]) -> Float[Tensor, "n templates 9"]:
    """The most probable pose of each shape for each template's mean; for that of all codes without templates.

    Args:
        batch: shapes with free poses, settings `roughly` and no residual.
        starts: poses to search from, (some, 9) of each shape; not as many for all.
    """
    assert batch.poses is not None
    poses, counts = batch.poses, [len(rows) for rows in starts]
    owner = torch.repeat_interleave(torch.tensor(counts)).to(batch.device)
    count = max(1, batch.network.templates)
    template = torch.arange(count, device=batch.device) if batch.network.templates else None
    with torch.no_grad():
        means = batch.expand(torch.zeros((count, batch.size), device=batch.device), template)
    first = torch.from_numpy(np.concatenate(starts)).to(batch.target.total)

    def surprise(pose: Float[Tensor, "q m 9"], seed: int) -> Float[Tensor, "q m"]:
        told = batch.sample(seed)
        placed = _placed(poses, pose, told, owner)
        growth = poses.growth(pose.flatten(0, 1)).view(len(owner), count, 1)
        growth = growth.expand(-1, -1, told.points.shape[1]).transpose(0, 1).flatten(1)
        each = batch.misfit(means, template, placed, growth, 0.0).view(count, len(owner), -1).transpose(0, 1)
        weight = told.weight[owner]
        share = (batch.target.total[owner] / weight.sum(1).clamp_min(1e-12))[:, None]
        return (each * weight[:, None]).sum(2) * share + pose.square().sum(2) / 2

    pose = first[:, None].repeat(1, count, 1).requires_grad_()
    optimizer = torch.optim.Adam([pose], betas=(0.9, 0.99))
    for iteration in range(batch.config.iterations):
        share = cosine_decay(iteration / batch.config.iterations, FIT_FLOOR)
        optimizer.param_groups[0]["lr"] = batch.config.learning_rate * share
        optimizer.zero_grad()
        surprise(pose, batch.config.seed + iteration).sum().backward()
        optimizer.step()
    with torch.no_grad():
        value = surprise(pose, batch.config.seed).nan_to_num(torch.inf)
    pairs = zip(pose.detach().split(counts), value.split(counts), strict=True)
    return torch.stack([found[values.argmin(0), torch.arange(count)] for found, values in pairs])


def _placed(poses: Poses, pose: Float[Tensor, "q m 9"], told: Samples, owner: Int[Tensor, " q"]) -> Samples:
    """Points of all shapes and starts as points of the m templates, in cube coordinates."""
    count, points = pose.shape[1], told.points[owner].repeat_interleave(pose.shape[1], 0)
    assert told.spread is not None
    at = poses.to_cube(pose.view(-1, FREE), points).view(len(owner), count, -1, 3)
    flat = [
        value[owner].flatten()[None].expand(count, -1) for value in (told.occupancy, told.weight, told.spread)
    ]
    return Samples(at.transpose(0, 1).flatten(1, 2), flat[0], flat[1], spread=flat[2])
