"""Fitting codes with frozen weights: masks in, codes out, many shapes in one optimisation.

Every shape is started from several codes (the mean of the training codes, the nearest of them, a linear
encoding of the shape) with every template; the best templates are tried, and the best of them goes on. Degrees of
freedom at test time: the c entries of the code, the choice of one of m templates, and those of a local residual where
one is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.atlas.field import Atlas, Expanded, Field
from implicit_atlas.atlas.losses import generalised_cross_entropy
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import CodeFit, FitConfig
from implicit_atlas.fitting.fit_watch import Watch, chance_errors, chance_loss, doubt_of, errors, failure_of
from implicit_atlas.fitting.local import ResidualNodes, fit_residuals
from implicit_atlas.fitting.starts import Starts
from implicit_atlas.fitting.strays import LATTICE, MOST, TOGETHER, Strays
from implicit_atlas.shapes.sampling import FEWER_POINTS, PointConfig, Samples, Target, affordable_points
from implicit_atlas.support.schedule import FIT_FLOOR, cosine_decay

Progress = Callable[[float, str], None]
Found = TypeVar("Found")

CHECK_EVERY = 20  # iterations, which are also those of a trial
RACE = PointConfig(lattice=12, band=2048)
CHECK_SEED, LOOK_SEED = 987_654_321, 876_543_210


def fit_codes(
    network: Field | Atlas,
    target: Target,
    starts: Starts,
    config: FitConfig,
    progress: Progress | None = None,
    nodes: ResidualNodes | None = None,
) -> list[CodeFit]:
    """Fit a code to every shape of a target: the least loss with a small norm (Eq. 6), from the best start on.

    Failed fits are marked, never dropped. `nodes` are those of a local residual, where one is asked for.
    """

    def fit(ids: range, report: Progress) -> list[CodeFit]:
        return _Batch(network, target, torch.tensor(ids), config, nodes).run(starts, report)

    return in_batches(network, len(target), config.batch, fit, progress)


def in_batches(
    network: Field | Atlas,
    total: int,
    size: int,
    fit: Callable[[range, Progress], list[Found]],
    progress: Progress | None = None,
) -> list[Found]:
    """Fits of `total` shapes, `size` at a time, while the network's weights stay as they are."""
    report = progress or (lambda share, text: None)
    fits: list[Found] = []
    learned = [p for p in network.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        for first in range(0, total, size):
            ids = range(first, min(first + size, total))

            def overall(share: float, text: str, ids: range = ids) -> None:
                report((ids.start + share * len(ids)) / total, text)

            fits += fit(ids, overall)
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
    return fits


class _Batch:
    """Shapes that are optimised together."""

    def __init__(
        self,
        network: Field | Atlas,
        target: Target,
        ids: Int[Tensor, " n"],
        config: FitConfig,
        nodes: ResidualNodes | None,
    ) -> None:
        self.network, self.target, self.ids, self.config, self.nodes = network, target, ids, config, nodes
        self.device = next(network.parameters()).device
        affordable = affordable_points(network.costly_points, self.device, most=FEWER_POINTS)
        self.points = config.points or affordable
        self.iterations = config.iterations_of(isinstance(network, Atlas) and network.modes is not None)
        with torch.no_grad():
            self.templates = network.expand_templates() if isinstance(network, Atlas) else None

    def sample(self, points: PointConfig, seed: int) -> Samples:
        """Points by seed alone: a fit does not depend on what is fitted beside it."""
        return self.target.sample(self.ids, points, torch.Generator().manual_seed(seed), shared=True)

    def expand(self, codes: Tensor, template: Tensor | None) -> Expanded:
        if isinstance(self.network, Atlas):
            return self.network.expand(codes, template, self.templates)
        return self.network.expand(codes)

    def losses(
        self, codes: Tensor, template: Tensor | None, samples: Samples, robustness: float | None = None
    ) -> Float[Tensor, " n"]:
        """Weighted mean loss of each shape."""
        return self.losses_of(self.expand(codes, template), samples, robustness)

    def losses_of(
        self, expanded: Expanded, samples: Samples, robustness: float | None = None
    ) -> Float[Tensor, " n"]:
        logits = self.network.query(expanded, samples.points).logits
        robustness = self.config.robustness if robustness is None else robustness
        each = generalised_cross_entropy(logits, samples.occupancy, robustness) * samples.weight
        return each.sum(1) / samples.weight.sum(1).clamp_min(1e-12)  # a random part may have no weight at all

    @torch.no_grad()
    def race(
        self, candidates: Float[Tensor, "n k c"], templates: Sequence[int]
    ) -> tuple[Float[Tensor, "m n"], Int[Tensor, "m n"], Float[Tensor, " n"]]:
        """Loss of the best candidate with each template, which that is, and the mean code's least cross entropy."""
        samples = self.sample(RACE, self.config.seed + CHECK_SEED)
        table = torch.empty((candidates.shape[1], len(templates), len(self.ids)), device=self.device)
        for k, codes in enumerate(candidates.unbind(1)):
            for row, index in enumerate(templates):
                table[k, row] = self.losses(codes, self.of_all(index), samples)
        mean = [self.losses(candidates[:, 0], self.of_all(index), samples, 0) for index in templates]
        found, which = table.min(0)
        return found, which, torch.stack(mean).amin(0)

    def of_all(self, template: int) -> Int[Tensor, " n"] | None:
        """The template of every shape; None in a field without any."""
        return None if self.templates is None else torch.full((len(self.ids),), template, device=self.device)

    def begin(
        self, starts: Starts, report: Progress
    ) -> tuple[Float[Tensor, "n c"], Tensor | None, Int[Tensor, " n"], Float[Tensor, " n"]]:
        """Codes and templates to go on from, the starts that they come from, and the mean code's loss.

        What templates answer at first is no guide: the best one is often that which deforms best. So the `contenders`
        that begin best are tried for some iterations.
        """
        every = torch.arange(len(self.ids), device=self.device)
        candidates = torch.from_numpy(starts.codes[self.ids.numpy()]).to(self.device)
        one = None if starts.template is None else [starts.template]
        templates = torch.tensor(one or range(max(1, self.network.templates)), device=self.device)
        losses, which, mean_loss = self.race(candidates, templates.tolist())
        rows = losses.argsort(0)[: self.config.contenders]
        template, chosen = templates[rows[0]], which[rows[0], every]
        codes, least = candidates[every, chosen], losses.new_full((len(every),), torch.inf)
        for row in rows if len(rows) > 1 else ():
            start = which[row, every]
            watch = self.optimise(candidates[every, start], templates[row], report, CHECK_EVERY)[0]
            better = watch.loss < least
            codes = torch.where(better[:, None], watch.best, codes)
            template, chosen = (
                torch.where(better, templates[row], template),
                torch.where(better, start, chosen),
            )
            least = torch.where(better, watch.loss, least)
        return codes, None if self.templates is None else template, chosen, mean_loss

    def run(self, starts: Starts, report: Progress) -> list[CodeFit]:
        begun = time.perf_counter()
        start, template, chosen, mean_loss = self.begin(starts, lambda share, text: None)
        watch, history = self.optimise(start, template, report, self.iterations)
        best, counts = watch.best, watch.iterations
        expanded, residual = self.refine(best, template)
        samples = self.sample(RACE, self.config.seed + CHECK_SEED)
        with torch.no_grad():
            final, wrong = (
                self.losses_of(expanded, samples, 0),
                errors(self.network.query(expanded, samples.points).logits, samples),
            )
            chance, guessed = chance_loss(samples), chance_errors(samples)
        free = best.shape[1] + (0 if residual is None or self.nodes is None else self.nodes.free)
        seconds = (time.perf_counter() - begun) / len(self.ids)
        beside = [None if self.network.is_static else float(loss) for loss in mean_loss]
        fits = []
        for i in range(len(self.ids)):
            fits.append(
                CodeFit(
                    code=best[i].cpu().numpy(),
                    template=None if template is None else int(template[i]),
                    loss_history=history[: counts[i], i],
                    start=starts.names[int(chosen[i])],
                    loss=float(final[i]),
                    mean_loss=float(mean_loss[i]),
                    iterations=int(counts[i]),
                    seconds=seconds,
                    degrees_of_freedom=free,
                    failure=failure_of(float(final[i]), beside[i], float(wrong[i]), float(guessed[i])),
                    doubt=doubt_of(float(final[i]), float(chance[i])),
                    residual=None if residual is None else residual[i].cpu().numpy(),
                    residual_nodes=0 if self.nodes is None else self.nodes.nodes,
                )
            )
        return fits

    def optimise(
        self, codes: Float[Tensor, "n c"], template: Tensor | None, report: Progress, iterations: int
    ) -> tuple[Watch, np.ndarray]:
        """Adam with cosine decay; each shape keeps its best checked code and stops when it no longer gains."""
        config, count = self.config, len(codes)
        codes = codes.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([codes], lr=config.learning_rate, betas=(0.9, 0.99))
        watch, strays = Watch(codes, config.patience), Strays(count, self.device)
        history = np.full((iterations, count), np.nan, np.float32)
        for iteration in range(iterations):
            share = cosine_decay(iteration / iterations, FIT_FLOOR)
            optimizer.param_groups[0]["lr"] = config.learning_rate * share
            expanded, samples = (
                self.expand(codes, template),
                self.sample(self.points, config.seed + iteration),
            )
            each = self.losses_of(expanded, samples)
            far = self.stray_losses(expanded, strays, samples)
            norm = (codes.square().sum(1) + 1e-12).sqrt()
            optimizer.zero_grad()
            (each + far + config.code_weight * norm).sum().backward()
            optimizer.step()
            history[iteration] = each.detach().cpu().numpy()
            if (iteration + 1) % CHECK_EVERY == 0 or iteration + 1 == iterations:
                watch.check(codes, self.check(codes, template, strays), iteration + 1)
                report((iteration + 1) / iterations, f"loss {float(each.detach().mean()):.4f}")
                if not watch.active.any():
                    break
                if iteration + 1 < iterations and self.look(codes, template, strays, iteration):
                    watch.loss = self.check(watch.best, template, strays)
        return watch, history

    def refine(self, codes: Tensor, template: Tensor | None) -> tuple[Expanded, Tensor | None]:
        """The fitted codes' features, with a local residual where one is asked for."""
        with torch.no_grad():
            expanded = self.expand(codes, template)
        local = self.config.local
        if local is None:
            return expanded, None
        nodes = self.nodes
        if nodes is None or template is None:
            raise InputError(
                "local residual", "needs a deformation", "Fit without it, or train another method."
            )

        def added(residual: Tensor) -> Expanded:
            return replace(expanded, residual=nodes.lattice(residual, template))

        def losses(residual: Tensor, iteration: int) -> Tensor:
            return self.losses_of(added(residual), self.sample(self.points, self.config.seed + iteration))

        residual = fit_residuals(losses, len(self.ids), nodes, local)
        return added(residual), residual

    def stray_losses(self, expanded: Expanded, strays: Strays, samples: Samples) -> Float[Tensor, " n"]:
        """What strays add to the mean loss of so many points, each `strays` times as much as one of these."""
        if not len(strays):
            return torch.zeros(len(self.ids), device=self.device)
        logits = self.network.query(expanded, strays.points).logits
        return self.config.strays * strays.loss(logits) / samples.points.shape[1]

    @torch.no_grad()
    def check(self, codes: Tensor, template: Tensor | None, strays: Strays) -> Tensor:
        """Losses on points that are not optimised on, but for strays."""
        expanded, samples = self.expand(codes, template), self.sample(RACE, self.config.seed + CHECK_SEED)
        return self.losses_of(expanded, samples) + self.stray_losses(expanded, strays, samples)

    @torch.no_grad()
    def look(self, codes: Tensor, template: Tensor | None, strays: Strays, iteration: int) -> bool:
        """Look for strays; False where there are none, or none are wanted."""
        if not self.config.strays:
            return False
        samples = self.sample(LATTICE, self.config.seed + LOOK_SEED + iteration)
        if samples.lattice != LATTICE.lattice:  # of sparse observations
            return False
        expanded = self.expand(codes, template)
        parts = samples.points.split(TOGETHER, dim=1)
        logits = [self.network.query(expanded, part.contiguous()).logits for part in parts]
        most = int(MOST * (self.points.lattice**3 + self.points.band))
        return strays.add(samples, torch.cat(logits, dim=1), most)
