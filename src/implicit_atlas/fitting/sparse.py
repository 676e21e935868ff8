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
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.atlas.field import Atlas, Field
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import CodeFit
from implicit_atlas.fitting.dense import Progress, in_batches
from implicit_atlas.fitting.pose import FREE
from implicit_atlas.fitting.registration import registered, roughly
from implicit_atlas.fitting.sparse_batch import ShapePrior, SparseBatch, SparseConfig
from implicit_atlas.geometry.grid import lattice
from implicit_atlas.shapes.sampling import Observations

__all__ = ["ShapePrior", "SparseConfig", "complete_codes"]

LONGER = 3  # times as many iterations where the pose is free, too
SEARCH = 40  # iterations by which templates are compared where it is, at most
TRIAL = 30  # and where it is not
SEARCH_POINTS = 1 << 11  # of such an iteration, at most
BEYOND = 3.0  # cube units: no place of an organ in its cube
PROBE, ROOM, LEAVE = 16, 0.1, 0.1  # nodes a side, cube units, and a share: how many places may leave the cube
FINALISTS = 3  # of each shape, which are searched to the end
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
    (randomised maximum likelihood, Kitanidis 1995; exact where all is linear and normal). It begins at one of the ends
    of the searches, each as often as it is probable: there may be several shapes that explain what was observed.

    Args:
        network: with weights that stay as they are.
        observations: what is known of each shape, in cube coordinates, or in millimetres where the prior has a pose.
        prior: what is known of shapes before anything is seen.
        config: how.
        progress: told how far it is.
        draws: how many, which follow the most probable one in the list of each shape.

    Raises:
        InputError: points that are no cube coordinates, where the prior has no pose.
    """
    if prior.pose is None:
        for seen in observations:
            far = float(np.abs(seen.points).max())
            if far > BEYOND:
                problem = f"has points as far as {far:.3g} from the cube's middle, whose faces are at 1"
                raise InputError(
                    seen.name, problem, "Are they millimetres? Use completion.complete for these."
                )
    config = config or SparseConfig()
    if prior.distances is not None and not _templates_fill_cube(network, prior):
        prior = replace(prior, distances=None, nodes=None)
    near = replace(config, points=min(config.points, DRAW_POINTS))  # draws begin near their ends
    if prior.pose is not None:
        config = replace(config, iterations=LONGER * config.iterations)

    def fit(ids: range, report: Progress) -> list[list[CodeFit]]:
        part = observations[ids.start : ids.stop]
        each = [
            lambda share, text, done=i: report((done + share) / (draws + 1), text) for i in range(draws + 1)
        ]
        ends = _searched(network, part, prior, config, each[0])
        rounds = [ends.most_probable()]
        for draw in range(1, draws + 1):
            batch = SparseBatch(network, part, prior, near, draw)
            free, template = ends.at_random([seen.seed(config.seed, draw) for seen in part])
            rounds.append(batch.run(each[draw], batch.drawn(free), template)[0])
        return [list(fits) for fits in zip(*rounds, strict=True)]

    # So that memory does not depend on the number of finalists.
    return in_batches(network, len(observations), max(1, config.batch // FINALISTS), fit, progress)


@torch.no_grad()
def _templates_fill_cube(network: Field | Atlas, prior: ShapePrior) -> bool:
    """Whether the templates lie where the maps of their distances do.

    Perceptrons that no penalty holds learn to move half of all points and more out of the cube; of other methods' less
    than a hundredth leave it.
    """
    if not isinstance(network, Atlas):
        return False
    device = next(network.parameters()).device
    which = torch.arange(network.templates, device=device)
    codes = prior.codes.codes(torch.zeros((len(which), prior.codes.factor.shape[1]), device=device), which)
    points = lattice(PROBE).to(device).reshape(1, -1, 3).expand(len(which), -1, -1)
    expanded = network.expand(codes, which, network.expand_templates(), None)
    moved = points + network.displacement(expanded, points)
    return float((moved.abs() > 1 + ROOM).any(-1).float().mean()) < LEAVE


@dataclass(frozen=True, eq=False)
class _Ends:
    """Where the searches of each shape ended: fits, their numbers and templates, and how improbable they are."""

    fits: list[list[CodeFit]]
    free: Float[Tensor, "n finalists free"]
    template: Int[Tensor, "n finalists"] | None
    improbability: Float[Tensor, "n finalists"]

    def most_probable(self) -> list[CodeFit]:
        """The best of each shape, with the others as its rivals."""
        found = []
        for fits, order in zip(
            self.fits, self.improbability.argsort(dim=1, stable=True).tolist(), strict=True
        ):
            best, *rivals = (fits[i] for i in order)
            found.append(replace(best, rivals=tuple(rivals)))
        return found

    def at_random(self, seeds: Sequence[int]) -> tuple[Float[Tensor, "n free"], Int[Tensor, " n"] | None]:
        """One of each shape, as often as it is probable; the first one where none is."""
        least = self.improbability.amin(1, keepdim=True)
        share = (least - self.improbability).exp().cpu()
        share[~torch.isfinite(least[:, 0]).cpu()] = torch.eye(share.shape[1])[0]
        which = [
            torch.multinomial(row, 1, generator=torch.Generator().manual_seed(seed))
            for row, seed in zip(share, seeds, strict=True)
        ]
        rows, each = torch.arange(len(share)), torch.cat(which)
        return self.free[rows, each], None if self.template is None else self.template[rows, each]


def _searched(
    network: Field | Atlas,
    observations: Sequence[Observations],
    prior: ShapePrior,
    config: SparseConfig,
    report: Progress,
) -> _Ends:
    """The finalists of each shape, searched to the end.

    Which of them will be the best, short searches do not tell: many a long one ends at a shape that fills a bend.
    """
    start, template = _begin(network, observations, prior, config)
    count = 1 if template is None else len(template) // len(observations)
    batch = SparseBatch(network, [o for o in observations for _ in range(count)], prior, config)
    found, free = batch.run(report, start, template)
    value = batch.improbability(free, template)
    alone = batch.improbability(free, template, guided=False)
    found = [
        replace(fit, seconds=count * fit.seconds, improbability=float(each), unguided=float(own))
        for fit, each, own in zip(found, value, alone, strict=True)
    ]
    return _Ends(
        [found[i : i + count] for i in range(0, len(found), count)],
        free.unflatten(0, (-1, count)),
        None if template is None else template.view(-1, count),
        value.view(-1, count),
    )


def _begin(
    network: Field | Atlas, observations: Sequence[Observations], prior: ShapePrior, config: SparseConfig
) -> tuple[Float[Tensor, "n_finalists free"] | None, Int[Tensor, " n_finalists"] | None]:
    """Where to start, None at the mean, and with which templates: what the best of some short searches have.

    There is one with each template, without a residual, and the best `FINALISTS` of a shape go on. What templates say
    of the points at once is no guide: the best one is often that which deforms best.
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
    best = value.view(-1, count).argsort(1)[:, :FINALISTS]
    if alone:
        return None, best.flatten()
    rows = best + count * torch.arange(len(best), device=best.device)[:, None]
    chosen = free[rows.flatten()]
    no_residual = chosen.new_zeros((len(chosen), 0 if prior.nodes is None else len(prior.nodes.kept)))
    start = torch.cat([chosen[:, : batch.code_size], no_residual, chosen[:, -FREE:]], dim=1)
    return start, best.flatten() if network.templates else None
