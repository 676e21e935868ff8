"""Shapes that are completed together: what explains their points, and the search for it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from implicit_atlas.atlas.field import Atlas, Expanded, Field
from implicit_atlas.atlas.prior import CodePrior
from implicit_atlas.fitting.code_fit import CodeFit
from implicit_atlas.fitting.dense import Progress
from implicit_atlas.fitting.fit_watch import failure_of
from implicit_atlas.fitting.local import ResidualNodes
from implicit_atlas.fitting.pose import FREE, SIZES, PosePrior, Poses, counted_from_middle, uncrowded
from implicit_atlas.geometry.grid import sample_distances
from implicit_atlas.shapes.sampling import Observations, ObservationSet, PointConfig, Samples
from implicit_atlas.support.schedule import FIT_FLOOR, cosine_decay

REPORT_EVERY = 20
EXPLAINED = 1.0  # what is no more improbable than this (in logarithms) is explained, be it by the mean shape
# Distances count roughly at first: softness and slack begin with these, in cube units, and are what they should be
# after so much of the iterations. Else thin organs are not found where they lie, and many a pose makes an organ as
# small as what was seen of it.
ROUGH_SOFTNESS, ROUGH_SLACK, SHARPENING = 6 / 64, 8 / 64, 0.8


@dataclass(frozen=True)
class SparseConfig:
    """How to complete.

    Args:
        iterations: of Adam on whitened numbers, all independent and standard normal before anything is seen; three
            times as many where the pose is free, too.
        softness: distance to the surface, in cube units, at which labels are trusted with odds of e.
        slack: standard deviation, in cube units, of what a shape's surface may be away from where points that are
            known to be near it say, beside the points' own.
        residual: standard deviation of a residual length, in cube units; 0 leaves residuals out.
        residual_nodes: of the residual's lattice, a side.
        evidence: points that say as much as one independent observation, for fields without a template: their logits
            stand for the log odds of the labels.
        batch: searches that go on together; several of them are of one shape.
        points: of an iteration; of more that were observed, a random part.
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
    points: int = 1 << 14


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """What is known of shapes before anything is seen.

    Args:
        codes: their distribution.
        distances: signed distances to the surface of each template, in cube units, on a cell-centred lattice; for an
            Atlas only.
        nodes: where a residual has lengths; None leaves it out.
        pose: of the cube in the scan; None where points are in cube coordinates.
    """

    codes: CodePrior
    distances: Float[Tensor, "m r r r"] | None = None
    nodes: ResidualNodes | None = None
    pose: PosePrior | None = None


class SparseBatch:
    """Shapes that are completed together."""

    def __init__(
        self,
        network: Field | Atlas,
        observations: Sequence[Observations],
        prior: ShapePrior,
        config: SparseConfig,
        draw: int = 0,
    ) -> None:
        self.network, self.prior, self.config = network, prior.codes, config
        self.distances, self.nodes = prior.distances, prior.nodes
        self.device = next(network.parameters()).device
        self.poses, self.unit = None, 1.0
        observed = [seen.unguided() for seen in observations]
        if prior.pose is not None:
            mirrored = [seen.mirrored for seen in observations]
            observations, origin_mm = counted_from_middle(observations)
            size_mm = prior.pose.log_size.exp().cpu().double().numpy()
            observed = [uncrowded(seen.unguided(), size_mm) for seen in observations]
            observations = [uncrowded(seen, size_mm) for seen in observations]
            self.poses = Poses(prior.pose, origin_mm, mirrored)
            self.unit = 2 / float(prior.pose.log_size.mean().exp())
        self.sharpens = not draw  # draws begin near their ends
        if draw:
            observations = [self._noisy(seen, draw) for seen in observations]
        self.target, self.count = ObservationSet(observations, self.device), len(observations)
        self.observed = ObservationSet(observed, self.device)
        with torch.no_grad():
            self.templates = network.expand_templates() if isinstance(network, Atlas) else None
        # The free numbers of a shape: those of the code, of the residual and of the pose.
        self.code_size = self.prior.factor.shape[1]
        self.lengths = 0 if self.nodes is None else len(self.nodes.kept)
        self.free = self.code_size + (0 if self.nodes is None else self.nodes.free)
        self.free += 0 if self.poses is None else FREE
        self.size = self.code_size + self.lengths + (0 if self.poses is None else FREE)
        self.centre = torch.zeros((self.count, self.size), device=self.device)
        if draw:
            self.centre = torch.stack([self._drawn_centre(seen, draw) for seen in observations])

    def drawn(self, free: Float[Tensor, "n free"]) -> Float[Tensor, "n free"]:
        """Where the search for a draw starts: a probable shape, moved by the code and residual that were drawn.

        And with the sizes that were drawn, so that the middle of what was observed keeps its place in the cube. What
        was observed pulls back all that it tells; along the rest a search goes on too slowly, and draws that started
        at the most probable shape itself would end too near to it.
        """
        if self.poses is None:
            return free + self.centre
        free = free.clone()
        free[:, :-FREE] += self.centre[:, :-FREE]
        before = self.poses.sizes_mm(free[:, -FREE:])
        free[:, -FREE:][:, SIZES] = self.centre[:, -FREE:][:, SIZES]
        free[:, -FREE:][:, :3] *= self.poses.sizes_mm(free[:, -FREE:]) / before
        return free

    def _drawn_centre(self, seen: Observations, draw: int) -> Float[Tensor, " free"]:
        """A random shape and pose, of the prior."""
        generator = torch.Generator().manual_seed(seen.seed(self.config.seed, draw))
        return torch.randn(self.size, generator=generator).to(self.device)

    def _noisy(self, seen: Observations, draw: int) -> Observations:
        """Observations with a noise as large as they are uncertain."""
        rng = np.random.default_rng(seen.seed(self.config.seed, draw))
        nearness = np.hypot(seen.spreads, self.config.slack / self.unit)
        deviation = np.where(np.isfinite(nearness), nearness, self.config.softness / self.unit)
        deviation /= np.sqrt(np.maximum(np.asarray(seen.weight), 1e-6))  # what says less is less sure
        return replace(seen, points=seen.points + rng.standard_normal(seen.points.shape) * deviation[:, None])

    def sample(self, seed: int, target: ObservationSet | None = None) -> Samples:
        """Points of an iteration, by default with those that guide it."""
        budget = PointConfig(lattice=0, band=self.config.points)
        generator = torch.Generator().manual_seed(seed)
        return (target or self.target).sample(torch.arange(self.count), budget, generator, shared=True)

    def residual(self, free: Tensor) -> Float[Tensor, "n k"]:
        """Lengths of the residual in cube units."""
        return free[:, self.code_size : self.code_size + self.lengths] * self.config.residual

    def expand(self, free: Float[Tensor, "n free"], template: Tensor | None) -> Expanded:
        """Features of whitened numbers."""
        codes = self.prior.codes(free[:, : self.code_size], template)
        if not isinstance(self.network, Atlas):
            return self.network.expand(codes)
        residual = None
        if self.nodes is not None and template is not None:
            residual = self.nodes.lattice(self.residual(free), template)
        return self.network.expand(codes, template, self.templates, residual)

    def surprise(
        self,
        free: Tensor,
        template: Tensor | None,
        samples: Samples,
        sharp: float = 1.0,
        total: Tensor | None = None,
    ) -> Float[Tensor, " n"]:
        """Negative log likelihood of what was observed, up to a constant; that of `misfit` where not all sharp."""
        expanded, growth = self.expand(free, template), None
        if self.poses is not None:
            pose = free[:, -FREE:]
            samples = replace(samples, points=self.poses.to_cube(pose, samples.points))
            growth = self.poses.growth(pose)[:, None]
        seen = samples.weight.sum(1).clamp_min(1e-12)
        each = self.misfit(expanded, template, samples, growth, sharp)
        return (each * samples.weight).sum(1) * ((self.target.total if total is None else total) / seen)

    def misfit(
        self,
        expanded: Expanded,
        template: Tensor | None,
        samples: Samples,
        growth: Tensor | None,
        sharp: float,
    ) -> Float[Tensor, "n points"]:
        """That of each point, in cube coordinates; with distances that count roughly (0) to as they should (1)."""
        if self.distances is None or template is None or not isinstance(self.network, Atlas):
            logits = self.network.query(expanded, samples.points).logits
            # Least at 0 where a point lies on the boundary, which is labelled one half.
            each = F.binary_cross_entropy_with_logits(logits, samples.occupancy, reduction="none")
            return each / self.config.evidence
        sign = 2 * samples.occupancy - 1
        where = samples.points + self.network.displacement(expanded, samples.points)
        distance = sample_distances(self.distances, template, where)
        if growth is not None:  # else a larger cube would bring all points nearer to the surface
            distance = distance * growth
        assert samples.spread is not None
        softness = ROUGH_SOFTNESS ** (1 - sharp) * self.config.softness**sharp
        slack = ROUGH_SLACK ** (1 - sharp) * self.config.slack**sharp
        spread = torch.hypot(samples.spread * self.unit, torch.full_like(distance, slack))
        return F.softplus(-sign * distance / softness) + (distance / spread).square() / 2

    @torch.no_grad()
    def race(self, free: Tensor) -> tuple[Tensor | None, Float[Tensor, " n"]]:
        """The template by which the start explains each shape best, and how well."""
        samples = self.sample(self.config.seed)
        if self.templates is None:
            return None, self.surprise(free, None, samples)
        each = [
            self.surprise(free, torch.full((self.count,), t, device=self.device), samples)
            for t in range(self.network.templates)
        ]
        found, template = torch.stack(each).min(0)
        return template, found

    def search(
        self, free: Float[Tensor, "n free"], template: Tensor | None
    ) -> tuple[Float[Tensor, "n free"], Float[Tensor, " n"]]:
        """What is found from given numbers on, and how improbable it is; infinite where nothing is."""
        free, template, _ = self.optimise(free, lambda share, text: None, template)
        return free, self.improbability(free, template)

    @torch.no_grad()
    def improbability(
        self, free: Float[Tensor, "n free"], template: Tensor | None, guided: bool = True
    ) -> Float[Tensor, " n"]:
        """Negative log probability of numbers given what was observed, up to a constant; infinite where not finite."""
        target = self.target if guided else self.observed
        value = self.surprise(free, template, self.sample(self.config.seed, target), total=target.total)
        return (value + free.square().sum(1) / 2).nan_to_num(torch.inf, posinf=torch.inf)

    def optimise(
        self, free: Tensor, report: Progress, template: Tensor | None
    ) -> tuple[Tensor, Tensor | None, np.ndarray]:
        """Adam with cosine decay, from given numbers on: what was found, the templates, and the history.

        The templates are those given, or those by which the start explains the shapes best.
        """
        config = self.config
        if template is None:
            template, _ = self.race(free)
        free = free.clone().requires_grad_()
        optimizer = torch.optim.Adam([free], lr=config.learning_rate, betas=(0.9, 0.99))
        history = np.zeros((config.iterations, self.count), np.float32)
        for iteration in range(config.iterations):
            done = iteration / config.iterations
            optimizer.param_groups[0]["lr"] = config.learning_rate * cosine_decay(done, FIT_FLOOR)
            sharp = min(1.0, done / SHARPENING) if self.sharpens else 1.0
            each = self.surprise(free, template, self.sample(config.seed + iteration), sharp)
            optimizer.zero_grad()
            (each + (free - self.centre).square().sum(1) / 2).sum().backward()
            optimizer.step()
            history[iteration] = each.detach().cpu().numpy()
            if (iteration + 1) % REPORT_EVERY == 0:
                report((iteration + 1) / config.iterations, f"misfit {float(each.detach().mean()):.1f}")
        return free.detach(), template, history

    def run(
        self, report: Progress, start: Float[Tensor, "n free"] | None = None, template: Tensor | None = None
    ) -> tuple[list[CodeFit], Float[Tensor, "n free"]]:
        """From the mean on, or from given numbers; with the best template, or those given. And what was found."""
        begun = time.perf_counter()
        free = torch.zeros((self.count, self.size), device=self.device)
        _, before = self.race(free)
        free, template, history = self.optimise(free if start is None else start, report, template)
        with torch.no_grad():
            after = self.surprise(free, template, self.sample(self.config.seed))
        return self._fits(free, template, history, before, after, time.perf_counter() - begun), free

    def _fits(
        self,
        free: Tensor,
        template: Tensor | None,
        history: np.ndarray,
        before: Tensor,
        after: Tensor,
        seconds: float,
    ) -> list[CodeFit]:
        codes, lengths = self.prior.codes(free[:, : self.code_size], template), self.residual(free)
        means = self.prior.codes(torch.zeros_like(codes), template)
        frames = None
        if self.poses is not None:
            pose = free[:, -FREE:].nan_to_num()  # of fits that failed
            frames = self.poses.frames(pose)
        only_chosen = self.network.is_static and self.poses is None
        fits = []
        for i in range(self.count):
            beside = None if only_chosen or after[i] < EXPLAINED else float(before[i])
            failure = failure_of(float(after[i]), beside, 0.0, math.inf)
            fits.append(
                CodeFit(
                    code=(codes if failure is None else means)[i].cpu().numpy(),
                    template=None if template is None else int(template[i]),
                    loss_history=history[:, i],
                    start="mean",
                    loss=float(after[i]),
                    mean_loss=float(before[i]),
                    iterations=self.config.iterations,
                    seconds=seconds / self.count,
                    degrees_of_freedom=self.free,
                    failure=failure,
                    residual=lengths[i].cpu().numpy() if self.lengths and failure is None else None,
                    residual_nodes=0 if self.nodes is None else self.nodes.nodes,
                    frame=None if frames is None else frames[i],
                )
            )
        return fits
