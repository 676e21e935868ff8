"""One cell of a table: a method learns a subset of an organ, fits unseen shapes, and both are scored.

A cell's result is kept under a hash of its configuration and of the shapes' content, so that it is run once. The
commit is written down beside it and does not count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells.completion import completion
from experiments.cells.data import HERE, Organ, Split, Subset
from experiments.cells.variants import DEFAULTS, VARIANTS, warps_of
from experiments.peers.classical import CLASSICAL, run_classical
from experiments.peers.difnet import NetworkConfig
from experiments.peers.difnet_run import METHOD as DIF_NET
from experiments.peers.difnet_run import run_difnet
from experiments.peers.difnet_training import DifNetConfig, for_device
from implicit_atlas.atlas.decoders import ConvConfig, MLPConfig, MLPDecoder
from implicit_atlas.atlas.methods import ModelConfig, method_of
from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.fitting.sparse import SparseConfig
from implicit_atlas.shapes.sampling import FEWER_POINTS, Observations, PointConfig, affordable_points
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.support.files import write_atomic
from implicit_atlas.tasks.evaluate import evaluate, evaluate_known
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import TrainConfig, default_config
from implicit_atlas.training.config import fast_precision
from implicit_atlas.training.learning import best_device, train

RESULTS = HERE / "results"
RUNS = HERE.parent / "runs"
# Where and how fast a cell was computed does not make it another cell.
NOT_HASHED = ("device", "precision", "checkpoint_minutes", "max_minutes")

SMALL_POINTS = PointConfig(lattice=6, band=256)
SMALL_MODES = 9  # nodes a side: those of 25 take 10 s to start
SMALL_CONV = ConvConfig(channels=(16, 8), hidden=16, groups=4)

Report = Callable[[float, str], None]


class OutOfTime(Exception):
    """The time limit of a queue came while a cell was training; its state is kept."""


@dataclass(frozen=True)
class Cell:
    """What is run.

    Args:
        method: a name of `implicit_atlas.atlas.methods.METHODS` or of `CLASSICAL`, or "dif-net".
        steps: length of the training schedule, the same for all methods of a table.
        iterations: of the fit of an unknown shape.
        variant: a name of `VARIANTS`: one change of the defaults.
        smoke: with small networks and few points, to show that it runs.
        noise: a name of `corrupt.NOISES`: learned from shapes so changed, scored against the clean ones.
    """

    method: str
    organ: Organ
    subset: Subset
    seed: int = 0
    steps: int = 2000
    iterations: int = 200
    variant: str = DEFAULTS
    smoke: bool = False
    noise: str = ""

    @property
    def completes(self) -> bool:
        """True where shapes are also completed: Figure 6 is drawn of all known shapes."""
        return self.subset == "train" and self.variant == DEFAULTS and not self.noise

    @property
    def is_classical(self) -> bool:
        """True for rows that learn no network."""
        return self.method in CLASSICAL

    def train_config(self, shapes: int) -> TrainConfig:
        """The product's defaults for so many shapes, with this cell's schedule; shrinkage and many warps aside."""
        config = default_config(shapes, best_device(), None, self.seed, self.method)
        # The same points on all devices, but for perceptrons, of which a CPU can ask fewer only.
        points = affordable_points(method_of(self.method).decoder == "mlp", best_device(), most=FEWER_POINTS)
        config = dataclasses.replace(config, steps=self.steps, points=points, warps=warps_of(shapes))
        config = dataclasses.replace(config, checkpoint_minutes=0.5, shrinkage=0.0)
        config = dataclasses.replace(config, **VARIANTS[self.variant].training)
        return dataclasses.replace(config, batch=2, warps=0, points=SMALL_POINTS) if self.smoke else config

    def model_config(self) -> ModelConfig:
        """The product's default network of the method."""
        config = dataclasses.replace(ModelConfig(method=self.method), **VARIANTS[self.variant].model)
        if not self.smoke:
            return config
        mlp = MLPConfig(width=32, layers=4, skip=2)
        decoders = dict.fromkeys(("conv", "template", "deformation"), SMALL_CONV)
        modes = min(config.modes, SMALL_MODES)
        return dataclasses.replace(config, code_size=16, templates=2, modes=modes, mlp=mlp, **decoders)

    def fit_config(self) -> FitConfig:
        """The paper's fit (Eq. 6) for all methods; the product's default one is a variant."""
        config = FitConfig(iterations=self.iterations, robustness=0.0, contenders=1, strays=0.0)
        config = dataclasses.replace(config, **VARIANTS[self.variant].fit)
        small = {"points": SMALL_POINTS, "iterations": self.iterations}
        return dataclasses.replace(config, **small) if self.smoke else config

    def sparse_config(self) -> SparseConfig:
        """The product's default completion."""
        return SparseConfig(iterations=self.iterations) if self.smoke else SparseConfig()

    def difnet_config(self) -> DifNetConfig:
        """DIF-Net's settings with this cell's schedule."""
        config = DifNetConfig(self.seed, self.steps, self.iterations)
        if not self.smoke:
            return for_device(config, best_device())
        network = NetworkConfig(16, deform_width=8, template_width=8, hyper_width=8, layers=1)
        return dataclasses.replace(
            config, batch=2, surface_points=64, free_points=64, pool=256, network=network
        )

    def learned_from(self, split: Split) -> tuple[Shape, ...]:
        """The training shapes, with their noise."""
        return split.training(self.subset, self.noise)

    def configuration(self, shapes: int) -> dict[str, Any]:
        """All that decides the result, as JSON values."""
        values: dict[str, Any] = {"method": self.method, "organ": self.organ, "subset": self.subset}
        if self.noise:  # results from before there was noise keep their names
            values["noise"] = self.noise
        if self.is_classical:
            return values
        if self.method == DIF_NET:
            return {**values, "training": _hashed(self.difnet_config())}
        training, model = self.train_config(shapes), self.model_config()
        values["training"] = _hashed(training)
        if not training.shrinkage:
            del values["training"]["shrinkage"]
        if not model.mode_nodes or training.codes == "random" or training.templates == "mean":
            del values["training"]["templates"]  # results from before there was a choice keep their names
        if not model.mode_nodes or training.codes == "random" or training.modes_share == 1:  # likewise
            del values["training"]["modes_share"]
        values["model"] = dataclasses.asdict(dataclasses.replace(model, modes=model.mode_nodes))
        values["fit"] = dataclasses.asdict(self.fit_config())
        if not values["fit"]["robustness"]:  # likewise
            del values["fit"]["robustness"], values["fit"]["contenders"]
        if not values["fit"]["strays"]:  # likewise
            del values["fit"]["strays"]
        if self.completes:
            values["sparse"] = dataclasses.asdict(self.sparse_config())
            del values["sparse"]["points"]  # of which no cell has more; likewise
        return values

    def key(self, split: Split) -> str:
        """Name of the result: readable, with the hash of configuration and content."""
        known = self.learned_from(split)
        content = [shape.content_hash for shape in (*known, *split.unknown)]
        title = self.method if self.variant == DEFAULTS else f"{self.method}-{self.variant}"
        return self._name(title, [self.configuration(len(known)), content])

    def training_key(self, split: Split) -> str:
        """Name of what is learned: cells that differ in their fits alone share it."""
        known = self.learned_from(split)
        learned = {
            key: v for key, v in self.configuration(len(known)).items() if key not in ("fit", "sparse")
        }
        return self._name(self.method, [learned, [shape.content_hash for shape in known]])

    def _name(self, title: str, content: list[Any]) -> str:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        title = f"{title}-{self.noise}" if self.noise else title
        return f"{self.organ}-{self.subset}-{title}-seed{self.seed}-{digest}"


def run_cell(
    cell: Cell, split: Split, folder: Path = RESULTS, runs: Path = RUNS, report: Report | None = None
) -> dict[str, Any]:
    """The cell's result, from its file where it was run before.

    Args:
        cell: what to run.
        split: the organ's shapes.
        folder: where results are kept.
        runs: where the states of unfinished trainings are kept.
        report: told how far it is.

    Returns:
        {"cell", "known", "unknown", "completion", "training", "commit"}; known and unknown as `evaluate --json`
        writes them, completion as `experiments.cells.completion` does.
    """
    path = folder / f"{cell.key(split)}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    report = report or (lambda share, text: None)
    shapes = cell.learned_from(split)
    if cell.is_classical:
        result = run_classical(cell.method, shapes, split.unknown, split.training(cell.subset))
    elif cell.method == DIF_NET:
        scored = (split.training(cell.subset), split.unknown)
        result = run_difnet(cell.difnet_config(), shapes, scored, runs / path.stem, report)
    else:
        result = _run_method(cell, split, runs, report)
    for problem in result["unknown"].get("problems", ()):  # where the data lies is nobody's business
        problem["path"] = Path(problem["path"]).name
    result = {"cell": dataclasses.asdict(cell), **result, "commit": _commit()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())
    return result


def _run_method(cell: Cell, split: Split, runs: Path, report: Report) -> dict[str, Any]:
    """Train, fit and complete; each part is kept in `runs` as soon as it is done."""
    clean, unknown = split.training(cell.subset), split.unknown
    atlas, config = _learned(cell, split, runs, report), cell.fit_config()
    for module in atlas.network.modules():  # perceptrons answer in the arithmetic that they were trained in
        if isinstance(module, MLPDecoder):
            module.in_halves = fast_precision(best_device()) == "bf16-mixed"

    def complete(seen: list[Observations]) -> list[np.ndarray | None]:
        found = atlas.complete(seen, cell.sparse_config(), report)
        return [fit.occupancy() if fit.failure is None else None for fit in found]

    def fits() -> dict[str, Any]:
        begun = time.perf_counter()
        found = evaluate(atlas, unknown, config, report=report).to_json()
        return {**found, "seconds": (time.perf_counter() - begun) / max(1, len(unknown))}

    parts = runs / cell.key(split)
    known = _once(parts / "known.json", lambda: evaluate_known(atlas, clean, report=report).to_json())
    found = _once(parts / "unknown.json", fits)
    completed = (
        _once(parts / "completion.json", lambda: completion(unknown, complete)) if cell.completes else {}
    )
    about = {
        "seconds": atlas.provenance["seconds"],
        "fit_seconds": found.pop("seconds"),
        "device": atlas.provenance["device"],
        "configuration": atlas.provenance["training"],
    }
    return {"known": known, "unknown": found, "completion": completed, "training": about}


def _learned(cell: Cell, split: Split, runs: Path, report: Report) -> TrainedAtlas:
    """The cell's atlas, from its folder where it was learned before."""
    run = runs / cell.training_key(split)
    folder, shapes = run / "model.atlas", cell.learned_from(split)
    if not folder.exists():
        config = cell.train_config(len(shapes))
        atlas = train(shapes, cell.model_config(), config, run=run, resume=True, progress=report)
        atlas.save(folder, f"# {run.name}\n\nLearned by a cell of an experiment.\n")
    return TrainedAtlas.load(folder).to(best_device())


def _once(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was computed before, or now."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(compute()).encode())
    return json.loads(path.read_text(encoding="utf-8"))


def run_queue(
    cells: Sequence[Cell],
    split: Split,
    minutes: float | None = None,
    folder: Path = RESULTS,
    runs: Path = RUNS,
) -> list[dict[str, Any] | None]:
    """Results of the cells in their order; None for those that the time limit left out.

    A cell that was training when the time ran out goes on from its state the next time.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes

    def report(share: float, text: str) -> None:
        if end is not None and time.monotonic() > end:
            raise OutOfTime

    results: list[dict[str, Any] | None] = []
    for cell in cells:
        path = folder / f"{cell.key(split)}.json"
        late = end is not None and time.monotonic() > end
        if late and not path.exists():
            results.append(None)
            continue
        try:
            begun = time.monotonic()
            results.append(run_cell(cell, split, folder, runs, report))
            print(f"{path.stem}: {time.monotonic() - begun:.0f} s", flush=True)
        except OutOfTime:
            print(f"{path.stem}: out of time, goes on from its state the next time", flush=True)
            results.append(None)
    return results


def _hashed(config: TrainConfig | DifNetConfig) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(config).items() if key not in NOT_HASHED}


def _commit() -> str:
    """The checkout's commit, with + where files differ from it."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown"
