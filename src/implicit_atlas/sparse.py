"""Completion: the most probable shape of a few observed points (paper §5.1).

Codes have the normal distribution of the training codes, and what no code says, a local residual of lengths along the
template's normals, an independent one at every node. How well a shape explains a point is judged by the
signed distance between the point and the shape's surface, read from the distance map of its template at the place that
the point has there. A network's logits cannot say that: they are as steep as training made them, and level off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.fit_watch import failure_of
from implicit_atlas.fitting import CodeFit, Progress, in_batches
from implicit_atlas.grid import sample_volume
from implicit_atlas.local import FLOOR, ResidualNodes
from implicit_atlas.model import Atlas, Expanded, Field
from implicit_atlas.prior import CodePrior
from implicit_atlas.sampling import Observations, ObservationSet, PointConfig, Samples
from implicit_atlas.schedule import cosine_decay

BUDGET = PointConfig(lattice=0, band=1 << 14)  # points of an iteration; of more, a random part
REPORT_EVERY = 20


@dataclass(frozen=True)
class SparseConfig:
    """How to complete.

    Args:
        iterations: of Adam on whitened numbers, all independent and standard normal before anything is seen.
        softness: distance to the surface, in cube units, at which labels are trusted with odds of e.
        slack: standard deviation, in cube units, of what a shape's surface may be away from where points that are
            known to be near it say, beside the points' own.
        residual: standard deviation of a residual length, in cube units; 0 leaves residuals out.
        residual_nodes: of the residual's lattice, a side.
        evidence: points that say as much as one independent observation, for fields without a template: their logits
            stand for the log odds of the labels.
        batch: shapes completed together.
    """

    iterations: int = 60
    learning_rate: float = 0.2
    softness: float = 0.7 / 64
    slack: float = 3.5 / 64
    residual: float = 4 / 64
    residual_nodes: int = 25
    evidence: float = 12.0
    batch: int = 40
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """What is known of shapes before anything is seen.

    Args:
        codes: their distribution.
        distances: signed distances to the surface of each template, in cube units, on a cell-centred lattice; for an
            Atlas only.
        nodes: where a residual has lengths; None leaves it out.
    """

    codes: CodePrior
    distances: Float[Tensor, "m r r r"] | None = None
    nodes: ResidualNodes | None = None


def complete_codes(
    network: Field | Atlas,
    observations: Sequence[Observations],
    prior: ShapePrior,
    config: SparseConfig | None = None,
    progress: Progress | None = None,
) -> list[CodeFit]:
    """The most probable code, and residual, of each shape; failed ones are marked, never dropped.

    Args:
        network: with weights that stay as they are.
        observations: what is known of each shape.
        prior: what is known of shapes before anything is seen.
        config: how.
        progress: told how far it is.
    """
    config = config or SparseConfig()

    def fit(ids: range, report: Progress) -> list[CodeFit]:
        return _Batch(network, observations[ids.start : ids.stop], prior, config).run(report)

    return in_batches(network, len(observations), config.batch, fit, progress)


class _Batch:
    """Shapes that are completed together."""

    def __init__(
        self,
        network: Field | Atlas,
        observations: Sequence[Observations],
        prior: ShapePrior,
        config: SparseConfig,
    ) -> None:
        self.network, self.prior, self.config = network, prior.codes, config
        self.distances, self.nodes = prior.distances, prior.nodes
        self.device = next(network.parameters()).device
        self.target, self.count = ObservationSet(observations, self.device), len(observations)
        spread = [math.inf if o.spread is None else math.hypot(o.spread, config.slack) for o in observations]
        self.spread = torch.tensor(spread, device=self.device)[:, None]
        self.total = torch.tensor(
            [float(np.sum(np.asarray(o.weight))) for o in observations], device=self.device
        )
        with torch.no_grad():
            self.templates = network.expand_templates() if isinstance(network, Atlas) else None
        self.lengths = 0 if self.nodes is None else len(self.nodes.kept)

    def sample(self, seed: int) -> Samples:
        return self.target.sample(
            torch.arange(self.count), BUDGET, torch.Generator().manual_seed(seed), shared=True
        )

    def expand(self, free: Float[Tensor, "n free"], template: Tensor | None) -> Expanded:
        """Features of whitened numbers: those of the code first, those of the residual after them."""
        size = self.prior.factor.shape[1]
        codes = self.prior.codes(free[:, :size])
        if not isinstance(self.network, Atlas):
            return self.network.expand(codes)
        residual = None
        if self.nodes is not None and template is not None:
            residual = self.nodes.lattice(free[:, size:] * self.config.residual, template)
        return self.network.expand(codes, template, self.templates, residual)

    def surprise(self, free: Tensor, template: Tensor | None, samples: Samples) -> Float[Tensor, " n"]:
        """Negative log likelihood of what was observed, up to a constant."""
        expanded, sign = self.expand(free, template), 2 * samples.occupancy - 1
        if self.distances is None or template is None or not isinstance(self.network, Atlas):
            logits = self.network.query(expanded, samples.points).logits
            each = F.softplus(-sign * logits) / self.config.evidence
        else:
            where = samples.points + self.network.displacement(expanded, samples.points)
            distance = read_by_owner(self.distances, template, where)
            each = F.softplus(-sign * distance / self.config.softness)
            each = each + (distance / self.spread).square() / 2
        seen = samples.weight.sum(1).clamp_min(1e-12)
        return (each * samples.weight).sum(1) * (self.total / seen)

    @torch.no_grad()
    def race(self, free: Tensor) -> tuple[Tensor | None, Float[Tensor, " n"]]:
        """The template by which the mean code explains each shape best, and how well."""
        samples = self.sample(self.config.seed)
        if self.templates is None:
            return None, self.surprise(free, None, samples)
        each = [
            self.surprise(free, torch.full((self.count,), t, device=self.device), samples)
            for t in range(self.network.templates)
        ]
        found, template = torch.stack(each).min(0)
        return template, found

    def run(self, report: Progress) -> list[CodeFit]:
        """Adam with cosine decay, from the mean on."""
        begun, config, size = time.perf_counter(), self.config, self.prior.factor.shape[1]
        free = torch.zeros((self.count, size + self.lengths), device=self.device)
        template, before = self.race(free)
        free.requires_grad_()
        optimizer = torch.optim.Adam([free], lr=config.learning_rate, betas=(0.9, 0.99))
        history = np.zeros((config.iterations, self.count), np.float32)
        for iteration in range(config.iterations):
            share = cosine_decay(iteration / config.iterations, FLOOR)
            optimizer.param_groups[0]["lr"] = config.learning_rate * share
            each = self.surprise(free, template, self.sample(config.seed + iteration))
            optimizer.zero_grad()
            (each + free.square().sum(1) / 2).sum().backward()
            optimizer.step()
            history[iteration] = each.detach().cpu().numpy()
            if (iteration + 1) % REPORT_EVERY == 0:
                report((iteration + 1) / config.iterations, f"surprise {float(each.detach().mean()):.1f}")
        with torch.no_grad():
            after = self.surprise(free, template, self.sample(config.seed))
        return self._fits(free.detach(), template, history, before, after, time.perf_counter() - begun)

    def _fits(
        self,
        free: Tensor,
        template: Tensor | None,
        history: np.ndarray,
        before: Tensor,
        after: Tensor,
        seconds: float,
    ) -> list[CodeFit]:
        size = self.prior.factor.shape[1]
        codes, lengths = self.prior.codes(free[:, :size]), free[:, size:] * self.config.residual
        fits = []
        for i in range(self.count):
            failure = failure_of(float(after[i]), float(before[i]), math.inf)
            fits.append(
                CodeFit(
                    code=(codes[i] if failure is None else self.prior.mean).cpu().numpy(),
                    template=None if template is None else int(template[i]),
                    loss_history=history[:, i],
                    start="mean",
                    loss=float(after[i]),
                    mean_loss=float(before[i]),
                    iterations=self.config.iterations,
                    seconds=seconds / self.count,
                    degrees_of_freedom=free.shape[1],
                    failure=failure,
                    residual=lengths[i].cpu().numpy() if self.lengths and failure is None else None,
                    residual_nodes=0 if self.nodes is None else self.nodes.nodes,
                )
            )
        return fits


def read_by_owner(
    volumes: Float[Tensor, "m r r r"],
    owner: Int[Tensor, " batch"],
    points: Float[Tensor, "batch points 3"],
) -> Float[Tensor, "batch points"]:
    """Trilinear values of volume owner[b] on a cell-centred lattice at points[b]; the border's outside."""
    found = points.new_zeros(points.shape[:2])
    for index in owner.unique().tolist():
        mine = (owner == index).nonzero()[:, 0]
        read = sample_volume(volumes[index], points[mine].flatten(0, 1))
        found = found.index_copy(0, mine, read.view(len(mine), -1))
    return found
