"""Auto-decoding: shapes in, a network and one code a shape out (paper §3.4), on Lightning Fabric.

Random numbers of a step depend on the seed and the step's number alone, so that a run that was killed goes on
bit for bit from its last state (on one machine, at one thread count, without a time budget).
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn

from implicit_atlas.atlas.field import Atlas, Field, Prediction
from implicit_atlas.atlas.losses import (
    LossTerms,
    LossWeights,
    code_penalty,
    deformation_penalty,
    laplacian_smoothness,
    task_loss,
    total_loss,
)
from implicit_atlas.atlas.methods import ModelConfig, build, loss_weights
from implicit_atlas.errors import TrainingError
from implicit_atlas.geometry.grid import set_threads
from implicit_atlas.shapes.sampling import Samples
from implicit_atlas.support.schedule import cosine_decay
from implicit_atlas.support.tensors import save_state, under
from implicit_atlas.training.config import TrainConfig
from implicit_atlas.training.data import TrainingData
from implicit_atlas.training.log import Curves, RunLog
from implicit_atlas.training.muon import Muon
from implicit_atlas.training.state import identity, own_state
from implicit_atlas.training.threads import Threads

Progress = Callable[[float, str], None]
"""Told the share of the work that is done, 0 to 1, and a line of text."""

WARM_UP_STEPS = 20
FLOOR = 1e-3  # the learning rate ends at this share of its peak
FIRST_SAVED = 5.0  # seconds of training
LOG_EVERY = 10


class AutoDecoder(nn.Module):
    """A network and one learnable code a shape; a step touches only the codes of its batch."""

    def __init__(self, network: nn.Module, codes: Float[Tensor, "n c"]) -> None:
        super().__init__()
        self.network = network
        self.codes = nn.Embedding.from_pretrained(codes.clone(), freeze=False, sparse=True)

    def forward(self, ids: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes of the shapes, and logits and displacement at their points.

        A plain tuple, because Fabric does not look into frozen dataclasses.
        """
        codes = self.codes(ids)
        prediction = self.network(codes, points)
        return codes, prediction.logits, prediction.displacement


@dataclass(frozen=True)
class Trained:
    """What training leaves: the network, the codes of real and warped shapes, and how it went."""

    network: nn.Module
    codes: Float[np.ndarray, "n c"]
    steps: int
    seconds: float
    curves: Curves


@dataclass
class _Clock:
    """Where a run stands: `progress` goes from 0 to 1; `pace` is the recent time of a step, in seconds."""

    step: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    pace: float = 0.0

    def advance(self, seconds: float, config: TrainConfig) -> None:
        """Count a step; under a time budget the rest of the schedule is spread over the steps that still fit."""
        self.step += 1
        self.seconds += seconds
        # The first step compiles kernels and says nothing about the pace.
        self.pace = seconds if self.step <= 2 else 0.95 * self.pace + 0.05 * seconds
        if config.max_minutes is None:
            self.progress = self.step / config.steps
            return
        left = config.max_minutes * 60 - self.seconds
        self.progress += (1 - self.progress) * min(1.0, self.pace / max(left, 1e-9))

    @property
    def done(self) -> bool:
        return self.progress >= 1 - 1e-9


def optimise(  # noqa: PLR0913 (what to learn, how, and where its state goes)
    data: TrainingData,
    model: ModelConfig,
    config: TrainConfig,
    state_file: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    spent_seconds: float = 0.0,
) -> Trained:
    """Learn a network and codes; stopped at any moment, it goes on from its last saved state.

    Args:
        data: packed shapes (real ones first) with their start codes.
        model: what network to build.
        config: schedule, points and weights.
        state_file: where the run's state is kept; a log is written beside it. None keeps nothing.
        resume: go on from `state_file` where it exists.
        progress: told after every few steps.
        spent_seconds: what preparing the data took of the time budget.

    Raises:
        TrainingError: the loss is not finite; the last state is kept.
        InputError: the state belongs to another configuration or to other data.
    """
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if config.device == "cuda" else []):
        run = _Run(data, model, config, state_file)
        run.clock.seconds = spent_seconds
        if resume and state_file is not None and state_file.exists():
            run.restore()
        run.go(progress or (lambda share, text: None))
        return run.result()


class _Run:
    """One training run: its modules, optimisers, clock and files."""

    def __init__(
        self, data: TrainingData, model: ModelConfig, config: TrainConfig, state_file: Path | None
    ) -> None:
        torch.manual_seed(config.seed)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        self.data, self.model, self.config, self.state_file = data, model, config, state_file
        self.fabric = Fabric(accelerator=config.device, devices=1, precision=config.precision)
        network = build(model)
        if isinstance(network, Atlas):
            network.start_selection(torch.from_numpy(data.centres))
            if network.modes is not None and data.modes is not None:
                network.modes.start(data.modes)
        module = AutoDecoder(network, torch.from_numpy(data.codes))
        self.optimizers = optimizers(network, module.codes, config)
        self.peaks = [[group["lr"] for group in each.param_groups] for each in self.optimizers]
        self.raw = module
        self.module, *self.optimizers = self.fabric.setup(module, *self.optimizers)
        self.weights = loss_weights(model, config.losses)
        self.target = data.target(self.fabric.device)
        # A step draws a million numbers, which a GPU does in less time than it takes to copy them there.
        on_gpu = self.fabric.device.type == "cuda"
        self.draws = torch.Generator(self.fabric.device) if on_gpu else torch.default_generator
        self.identity = identity(model, config, data.content_hash)
        self.clock = _Clock()
        self.log = RunLog(None if state_file is None else state_file.with_name("log.jsonl"))
        self.saved_at = 0.0

    def go(self, progress: Progress) -> None:
        """Run to the end of the schedule."""
        threads = Threads(torch.get_num_threads(), set_threads)
        try:
            self._go(progress, threads)
        finally:
            threads.restore()

    def _go(self, progress: Progress, threads: Threads) -> None:
        self.raw.train()
        # What is interrupted early can go on, too.
        self.saved_at = self.clock.seconds - max(0.0, 60 * self.config.checkpoint_minutes - FIRST_SAVED)
        while not self.clock.done:
            start, processor = time.perf_counter(), time.process_time()
            terms, loss = self.step()
            seconds = time.perf_counter() - start
            self.clock.advance(seconds, self.config)
            if self.config.max_minutes is not None and self.fabric.device.type == "cpu":
                threads.after(seconds, time.process_time() - processor)
            if self.clock.step % LOG_EVERY == 0 or self.clock.done:
                self._report(terms, loss, progress)
        self.save()

    def step(self) -> tuple[LossTerms, float]:
        """One update of the weights and of the batch's codes."""
        seed = self.config.seed * 1_000_003 + self.clock.step
        torch.manual_seed(seed)
        self._set_rates()
        ids = self.data.batch(self.clock.step, self.config)
        samples = self.target.sample(ids, self.config.points, self.draws.manual_seed(seed))
        codes, logits, displacement = self.module(ids.to(self.fabric.device), samples.points)
        terms = loss_terms(codes, Prediction(logits, displacement), samples, self.weights)
        loss = total_loss(terms, self.weights)
        value = loss.item()
        if not math.isfinite(value):
            saved = self.state_file is not None and self.state_file.exists()
            kept = f" The last state is kept in {self.state_file}." if saved else ""
            raise TrainingError(
                f"the loss is {value} at step {self.clock.step}.{kept} Try a lower learning rate."
            )
        # Before the update: the loss of what is kept is known to be finite.
        if self.clock.seconds - self.saved_at > 60 * self.config.checkpoint_minutes:
            self.save()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.fabric.backward(loss)
        for optimizer in self.optimizers:
            optimizer.step()
        return terms, value

    def _set_rates(self) -> None:
        share = cosine_decay(self.clock.progress, FLOOR)
        share *= min(1.0, (self.clock.step + 1) / WARM_UP_STEPS)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share

    def _report(self, terms: LossTerms, loss: float, progress: Progress) -> None:
        clock = self.clock
        values = {f.name: getattr(terms, f.name) for f in dataclasses.fields(terms)}
        numbers = {name: value.item() for name, value in values.items() if value is not None}
        self.log.write(step=clock.step, progress=clock.progress, seconds=clock.seconds, loss=loss, **numbers)
        progress(
            clock.progress,
            f"step {clock.step}  loss {loss:.4f}  {1 / max(clock.pace, 1e-9):.2f} steps/s",
        )

    def save(self) -> None:
        """Write the state, atomically."""
        if self.state_file is None:
            return
        tensors = {f"module.{name}": value for name, value in self.raw.state_dict().items()}
        for index, optimizer in enumerate(self.optimizers):
            for key, entry in optimizer.state_dict()["state"].items():
                for name, value in entry.items():
                    tensors[f"optimizer.{index}.{key}.{name}"] = torch.as_tensor(value)
        save_state(self.state_file, tensors, {**self.identity, "clock": dataclasses.asdict(self.clock)})
        self.saved_at = self.clock.seconds

    def restore(self) -> None:
        """Read the state back."""
        assert self.state_file is not None
        state = own_state(self.state_file, self.identity)
        self.raw.load_state_dict(under(state.tensors, "module."))
        for index, optimizer in enumerate(self.optimizers):
            content = optimizer.state_dict()
            content["state"] = _nested(under(state.tensors, f"optimizer.{index}."), sparse=index == 1)
            optimizer.load_state_dict(content)
        self.clock = _Clock(**state.meta["clock"])
        self.log.cut_after(self.clock.step)

    def result(self) -> Trained:
        """The network in evaluation mode on the CPU, and the codes."""
        network = self.raw.network.eval().cpu()
        network.zero_grad()  # frees the gradients
        codes = self.raw.codes.weight.detach().cpu().numpy().copy()
        return Trained(network, codes, self.clock.step, self.clock.seconds, self.log.curves())


def optimizers(
    network: Field | Atlas, codes: nn.Embedding, config: TrainConfig
) -> list[torch.optim.Optimizer]:
    """Muon for the weights of hidden layers, Adam for the network's other parameters and for the codes."""
    hidden = network.hidden_weights()
    modes = network.modes if isinstance(network, Atlas) else None
    patterns = [] if modes is None else list(modes.parameters())
    found = {id(weight) for weight in (*hidden, *patterns)}
    others = [parameter for parameter in network.parameters() if id(parameter) not in found]
    if not config.modes_share:
        patterns = []  # what no optimiser is told of stays as it is
    groups = [{"params": others}, {"params": patterns, "lr": config.learning_rate * config.modes_share}]
    betas = (0.9, 0.99)
    return [
        torch.optim.Adam(groups, lr=config.learning_rate, betas=betas),
        torch.optim.SparseAdam(list(codes.parameters()), lr=config.code_learning_rate, betas=betas),
        Muon(hidden, lr=config.hidden_learning_rate),
    ]


def loss_terms(codes: Tensor, prediction: Prediction, samples: Samples, weights: LossWeights) -> LossTerms:
    """The terms that the weights ask for; the smoothness needs the samples' leading sub-lattice.

    Its points are jittered, each for itself, so that second differences of them see slopes, too: of a field of slope
    0.5 on 20³ points 0.09, where they would be 0 without (the paper does not say how its mesh grids are jittered).
    """
    smoothness = penalty = None
    side, inner = samples.lattice, samples.lattice**3
    if weights.laplacian and side >= 3:
        field = prediction.logits[:, :inner].sigmoid().unflatten(1, (side, side, side))
        smoothness = laplacian_smoothness(field)
    if weights.deformation and prediction.displacement is not None:
        displacement = prediction.displacement[:, :inner] if inner else prediction.displacement
        penalty = deformation_penalty(displacement)
    return LossTerms(
        task_loss(prediction.logits, samples.occupancy), code_penalty(codes), smoothness, penalty
    )


def _nested(flat: dict[str, Tensor], sparse: bool) -> dict[int, dict[str, Tensor | int]]:
    """Optimiser state by parameter; SparseAdam counts its steps in an int."""
    state: dict[int, dict[str, Tensor | int]] = {}
    for name, value in flat.items():
        key, entry = name.split(".", 1)
        state.setdefault(int(key), {})[entry] = int(value) if sparse and entry == "step" else value
    return state
