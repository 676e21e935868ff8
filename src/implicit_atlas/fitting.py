"""Fitting codes with frozen weights: masks in, codes out, many shapes in one optimisation.

Every shape is started from several codes (the mean of the training codes, the nearest of them, a linear
encoding of the shape) with every template; the best start goes on. Degrees of freedom at test time: the c
entries of the code, the choice of one of m templates, and those of a local residual where one is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from implicit_atlas.errors import FitError, InputError
from implicit_atlas.fit_watch import Watch, chance_loss, failure_of
from implicit_atlas.frame import Frame
from implicit_atlas.local import FLOOR, LocalConfig, ResidualNodes, fit_residuals
from implicit_atlas.model import Atlas, Expanded, Field
from implicit_atlas.sampling import FEWER_POINTS, PointConfig, Samples, Target, affordable_points
from implicit_atlas.schedule import cosine_decay
from implicit_atlas.starts import Starts

Progress = Callable[[float, str], None]
Found = TypeVar("Found")

CHECK_EVERY = 20
RACE = PointConfig(lattice=12, band=2048)
CHECK_SEED = 987_654_321


@dataclass(frozen=True)
class FitConfig:
    """How to fit.

    Args:
        iterations: at most. 100 do as well as 200 where a network has modes to start in; give others 200.
        patience: stop a shape after this many checks (every 20 iterations) without progress.
        code_weight: weight of the code penalty (Eq. 6).
        points: of an iteration; by default FEWER_POINTS, and FEWEST_POINTS for perceptrons on a CPU.
        batch: shapes optimised together.
        local: fit a local residual after the code, too.
    """

    iterations: int = 100
    learning_rate: float = 0.2
    patience: int = 8
    code_weight: float = 1e-3
    batch: int = 40
    seed: int = 0
    points: PointConfig | None = None
    local: LocalConfig | None = None


@dataclass(frozen=True, eq=False)
class CodeFit:
    """The code found for one shape.

    Args:
        code: (c,).
        template: index of the template, None for a field without templates.
        loss_history: (iterations,) task loss.
        start: name of the start that won.
        loss: task loss on points that were not optimised on.
        mean_loss: the same for the mean code with its best template.
        degrees_of_freedom: numbers that were free at test time.
        failure: why the fit is not valid, or None.
        residual: (k,) lengths of a local residual in cube units, or None.
        residual_nodes: a side of its lattice.
        frame: where its cube lies, where that was found, too.
    """

    code: Float[np.ndarray, " c"]
    template: int | None
    loss_history: Float[np.ndarray, " iterations"]
    start: str
    loss: float
    mean_loss: float
    iterations: int
    seconds: float
    degrees_of_freedom: int
    failure: str | None = None
    residual: Float[np.ndarray, " k"] | None = None
    residual_nodes: int = 0
    frame: Frame | None = None

    def checked(self, name: str) -> CodeFit:
        """The fit itself.

        Raises:
            FitError: it failed.
        """
        if self.failure is not None:
            raise FitError(f"{name}: the fit failed ({self.failure}). Check that it shows the atlas's organ.")
        return self


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
        with torch.no_grad():
            self.templates = network.expand_templates() if isinstance(network, Atlas) else None

    def sample(self, points: PointConfig, seed: int) -> Samples:
        """Points by seed alone: a fit does not depend on what is fitted beside it."""
        return self.target.sample(self.ids, points, torch.Generator().manual_seed(seed), shared=True)

    def expand(self, codes: Tensor, template: Tensor | None) -> Expanded:
        if isinstance(self.network, Atlas):
            return self.network.expand(codes, template, self.templates)
        return self.network.expand(codes)

    def losses(self, codes: Tensor, template: Tensor | None, samples: Samples) -> Float[Tensor, " n"]:
        """Weighted mean cross entropy of each shape."""
        return self.losses_of(self.expand(codes, template), samples)

    def losses_of(self, expanded: Expanded, samples: Samples) -> Float[Tensor, " n"]:
        logits = self.network.query(expanded, samples.points).logits
        each = F.binary_cross_entropy_with_logits(logits, samples.occupancy, samples.weight, reduction="none")
        return each.sum(1) / samples.weight.sum(1).clamp_min(1e-12)  # a random part may have no weight at all

    @torch.no_grad()
    def race(
        self, candidates: Float[Tensor, "n k c"], only: int | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Best candidate and template of each shape, and the loss of the mean code with its best template."""
        samples = self.sample(RACE, self.config.seed + CHECK_SEED)
        first, m = (0, max(1, self.network.templates)) if only is None else (only, 1)
        table = torch.empty((candidates.shape[1], m, len(self.ids)), device=self.device)
        for k in range(candidates.shape[1]):
            for t in range(m):
                template = (
                    torch.full((len(self.ids),), first + t, device=self.device)
                    if self.templates is not None
                    else None
                )
                table[k, t] = self.losses(candidates[:, k], template, samples)
        best = table.flatten(0, 1).argmin(0)
        template = first + best % m if self.templates is not None else None
        return best // m, template, table[0].amin(0)

    def run(self, starts: Starts, report: Progress) -> list[CodeFit]:
        begun = time.perf_counter()
        candidates = torch.from_numpy(starts.codes[self.ids.numpy()]).to(self.device)
        chosen, template, mean_loss = self.race(candidates, starts.template)
        start = candidates[torch.arange(len(self.ids)), chosen].clone()
        history, counts, best = self.optimise(start, template, report)
        expanded, residual = self.refine(best, template)
        samples = self.sample(RACE, self.config.seed + CHECK_SEED)
        with torch.no_grad():
            final, chance = self.losses_of(expanded, samples), chance_loss(samples)
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
                    failure=failure_of(float(final[i]), beside[i], float(chance[i])),
                    residual=None if residual is None else residual[i].cpu().numpy(),
                    residual_nodes=0 if self.nodes is None else self.nodes.nodes,
                )
            )
        return fits

    def optimise(
        self, codes: Float[Tensor, "n c"], template: Tensor | None, report: Progress
    ) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Adam with cosine decay; each shape keeps its best checked code and stops when it no longer gains."""
        config, count = self.config, len(codes)
        codes = codes.requires_grad_()
        optimizer = torch.optim.Adam([codes], lr=config.learning_rate, betas=(0.9, 0.99))
        watch = Watch(codes, config.patience)
        history = np.full((config.iterations, count), np.nan, np.float32)
        for iteration in range(config.iterations):
            share = cosine_decay(iteration / config.iterations, FLOOR)
            optimizer.param_groups[0]["lr"] = config.learning_rate * share
            each = self.losses(codes, template, self.sample(self.points, config.seed + iteration))
            norm = (codes.square().sum(1) + 1e-12).sqrt()
            optimizer.zero_grad()
            (each + config.code_weight * norm).sum().backward()
            optimizer.step()
            history[iteration] = each.detach().cpu().numpy()
            if (iteration + 1) % CHECK_EVERY == 0 or iteration + 1 == config.iterations:
                watch.check(codes, self.check(codes, template), iteration + 1)
                report((iteration + 1) / config.iterations, f"loss {float(each.detach().mean()):.4f}")
                if not watch.active.any():
                    break
        return history, watch.iterations, watch.best

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

    @torch.no_grad()
    def check(self, codes: Tensor, template: Tensor | None) -> Tensor:
        """Losses on points that are not optimised on."""
        return self.losses(codes, template, self.sample(RACE, self.config.seed + CHECK_SEED))
