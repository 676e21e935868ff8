"""Learning DIF-Net: network and codes of the training shapes together.

Random numbers of a step depend on the seed and the step's number alone, so that a run that was killed goes on from
its last state as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.peers.difnet import DifNet, Layer, NetworkConfig
from experiments.peers.difnet_data import make_pool
from experiments.peers.difnet_losses import DifNetWeights, prior_loss, training_loss
from implicit_atlas.errors import InputError, TrainingError
from implicit_atlas.io.output import make_folder
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.support.files import lock_folder
from implicit_atlas.support.tensors import load_state, save_state
from implicit_atlas.training.log import RunLog

CODE_DEVIATION = 0.01  # the authors' start of codes
LOG_EVERY = 10
NOT_COMPARED = ("device", "checkpoint_minutes")  # a run may go on with others

Report = Callable[[float, str], None]
LossOf = Callable[[list[Layer], slice], Tensor]
"""Mean loss of a part of a batch, given its layers of Deform-Net."""


@dataclass(frozen=True)
class DifNetConfig:
    """How to learn and to fit.

    The authors': Adam at 1e-4 for weights and codes alike, in training and in fits; all loss weights; 4000 surface
    and 4000 free points of a shape and step; fits that start from the first training code and have the losses of
    the data and the prior of the code. They take 256 shapes a step for 60 epochs on eight GPUs.

    Ours: the code's size, the numbers of steps, of fit iterations and of shapes a step, fewer points a step on
    CPUs (`for_device`), and 40 000 points of each kind and shape to draw from, where they keep 200 000.

    Args:
        iterations: of a fit.
        batch: shapes a step, and shapes fitted together.
        surface_points: a shape and step, and as many labels at most, with `free_points`, in a completion.
        pool: points of each kind that are kept of a shape, to draw from.
    """

    seed: int = 0
    steps: int = 2000
    iterations: int = 200
    batch: int = 32
    surface_points: int = 4000
    free_points: int = 4000
    pool: int = 40_000
    learning_rate: float = 1e-4
    network: NetworkConfig = field(default_factory=NetworkConfig)
    weights: DifNetWeights = field(default_factory=DifNetWeights)
    device: str = "cpu"
    checkpoint_minutes: float = 2.0

    @property
    def counts(self) -> tuple[int, int]:
        """Surface and free points of a shape in a step."""
        return self.surface_points, self.free_points


def for_device(config: DifNetConfig, device: str) -> DifNetConfig:
    """The same on a device; a CPU gets a quarter of the shapes and a third of the points a step."""
    if device != "cpu":
        return dataclasses.replace(config, device=device)
    return dataclasses.replace(config, device=device, batch=8, surface_points=1250, free_points=1250)


@dataclass(frozen=True, eq=False)
class TrainedDifNet:
    """A network, the codes of its training shapes, and the seconds that learning took."""

    network: DifNet
    codes: Float[Tensor, "n c"]
    seconds: float


def train_difnet(
    shapes: Sequence[Shape], config: DifNetConfig, run: Path | None = None, report: Report | None = None
) -> TrainedDifNet:
    """Learn network and codes; with a folder, a run that was stopped goes on from its last state.

    Args:
        shapes: to learn from.
        config: schedule and sizes.
        run: folder of the state and the log; None keeps nothing.
        report: told the share that is done every few steps; may raise to stop the run.

    Raises:
        InputError: no shape, or a state of another configuration or of other shapes.
        TrainingError: the loss is not finite; the last state is kept.
    """
    if not shapes:
        raise InputError("training set", "holds no shape", "Give at least one mask.")
    report = report or (lambda share, text: None)
    with torch.random.fork_rng(devices=[]):
        if run is None:
            return _Run(shapes, config, None).go(report)
        make_folder(run)
        with lock_folder(run):
            return _Run(shapes, config, run).go(report)


def accumulate(
    network: DifNet, codes: Float[Tensor, "batch c"], loss_of: LossOf, weights: DifNetWeights, scale: float
) -> float:
    """Add the gradients of scale * (sum of the shapes' losses) to weights and codes.

    On a CPU shape by shape below the hypernetwork, which is faster: what a shape keeps for its backward pass
    stays near the processor.

    Returns:
        The loss.
    """
    layers = network.expand(codes)
    leaves = [(weight.detach().requires_grad_(), bias.detach().requires_grad_()) for weight, bias in layers]
    size = 1 if codes.device.type == "cpu" else len(codes)
    total = 0.0
    for begin in range(0, len(codes), size):
        rows = slice(begin, begin + size)
        part = [(weight[rows], bias[rows]) for weight, bias in leaves]
        loss = loss_of(part, rows) * (scale * len(part[0][0]))
        loss.backward()
        total += loss.item()
    prior = prior_loss(codes, weights) * (scale * len(codes))
    flat = [tensor for layer in layers for tensor in layer]
    torch.autograd.backward([prior, *flat], [None, *(leaf.grad for layer in leaves for leaf in layer)])
    return total + prior.item()


class _Run:
    """One training run: network, codes, optimiser and files."""

    def __init__(self, shapes: Sequence[Shape], config: DifNetConfig, folder: Path | None) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.state_file = None if folder is None else folder / "state.safetensors"
        self.log = RunLog(None if folder is None else folder / "log.jsonl")
        self.network = DifNet(config.network).to(config.device)
        start = torch.randn(len(shapes), config.network.code_size) * CODE_DEVIATION
        self.codes = start.to(config.device).requires_grad_()
        parameters = [*self.network.parameters(), self.codes]
        self.optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
        digest = hashlib.sha256(b"".join(shape.packed.tobytes() for shape in shapes)).hexdigest()
        values = {key: value for key, value in dataclasses.asdict(config).items() if key not in NOT_COMPARED}
        self.identity = json.loads(json.dumps({"configuration": values, "data": digest}))
        self.step, self.seconds, self.saved_at = 0, 0.0, 0.0
        if self.state_file is not None and self.state_file.exists():
            self._restore(self.state_file)
        begun = time.perf_counter()
        self.pool = make_pool(shapes, config.pool, config.seed, config.device)
        self.seconds += time.perf_counter() - begun

    def go(self, report: Report) -> TrainedDifNet:
        """Run to the end of the schedule."""
        self.saved_at = self.seconds
        while self.step < self.config.steps:
            begun = time.perf_counter()
            loss = self._advance()
            self.step += 1
            self.seconds += time.perf_counter() - begun
            if self.step % LOG_EVERY == 0 or self.step == self.config.steps:
                self.log.write(step=self.step, seconds=self.seconds, loss=loss)
                report(self.step / self.config.steps, f"step {self.step}  loss {loss:.2f}")
        self._save()
        self.network.requires_grad_(False)
        self.network.zero_grad()  # frees the gradients
        return TrainedDifNet(self.network, self.codes.detach(), self.seconds)

    def _advance(self) -> float:
        """One update."""
        config = self.config
        count = min(config.batch, len(self.pool))
        rng = np.random.default_rng((config.seed, self.step))
        ids = torch.from_numpy(rng.choice(len(self.pool), count, replace=False))
        samples = self.pool.sample(ids, config.counts, step_generator(config.seed, self.step))

        def loss_of(layers: list[Layer], rows: slice) -> Tensor:
            return training_loss(
                self.network.fields(layers, samples.points[rows]), samples.part(rows), config.weights
            )

        self.optimizer.zero_grad()
        codes = self.codes[ids.to(self.codes.device)]
        loss = accumulate(self.network, codes, loss_of, config.weights, 1 / count)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {self.step}. Try a lower learning rate.")
        # Before the update: the loss of what is kept is known to be finite.
        if self.seconds - self.saved_at > 60 * config.checkpoint_minutes:
            self._save()
        self.optimizer.step()
        return loss

    def _save(self) -> None:
        if self.state_file is None:
            return
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors["codes"] = self.codes.detach()
        for key, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{key}.{name}": value for name, value in entry.items()}
        save_state(self.state_file, tensors, {**self.identity, "step": self.step, "seconds": self.seconds})
        self.saved_at = self.seconds

    def _restore(self, path: Path) -> None:
        state = load_state(path)
        for key, value in self.identity.items():
            if state.meta.get(key) != value:
                remedy = "Train with the same shapes and options, or give another folder to start anew."
                raise InputError(path, f"belongs to a run with another {key}", remedy)
        tensors = state.tensors
        self.network.load_state_dict({name: tensors[f"network.{name}"] for name in self.network.state_dict()})
        with torch.no_grad():
            self.codes.copy_(tensors["codes"])
        content = self.optimizer.state_dict()
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, key, entry = name.split(".")
                content["state"].setdefault(int(key), {})[entry] = value
        self.optimizer.load_state_dict(content)
        self.step, self.seconds = state.meta["step"], state.meta["seconds"]
        self.log.cut_after(self.step)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers of a step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
