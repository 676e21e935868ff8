"""What training reads: packed shapes and their warps, their features, start codes and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.cluster.vq import kmeans2
from torch import Tensor

from implicit_atlas.atlas.linear import DISTANCE_RESOLUTION, FEATURE_RESOLUTION, feature_case, fit_pca
from implicit_atlas.atlas.methods import ModelConfig
from implicit_atlas.atlas.modes import SurfaceModes
from implicit_atlas.errors import InputError, TrainingError
from implicit_atlas.shapes.sampling import ShapeSet
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.support.workers import START_SECONDS, Message, run_cases
from implicit_atlas.training.augment import warp_case
from implicit_atlas.training.config import TrainConfig
from implicit_atlas.training.modal_start import modal_start
from implicit_atlas.training.state import content_hash

RANDOM_DEVIATION = 0.1
# One core, a shape of 128³.
_WARP_SECONDS = 0.08
_FEATURE_SECONDS = 0.05


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Real shapes first, their warps after them.

    Args:
        packed: (n, R³ / 8) bits.
        features: (n, 16³) truncated signed distances.
        codes: (n, c) start codes.
        centres: (m, c) codes at which templates are selected first.
        real: number of real shapes.
        content_hash: of all the above that is not derived.
        modes: what modes start from, where the network has them.
    """

    packed: UInt8[np.ndarray, "n bytes"]
    resolution: int
    features: Float[np.ndarray, "n features"]
    codes: Float[np.ndarray, "n c"]
    centres: Float[np.ndarray, "m c"]
    real: int
    content_hash: str
    modes: SurfaceModes | None = None

    def target(self, device: torch.device) -> ShapeSet:
        """The shapes ready to be sampled."""
        return ShapeSet(self.packed, self.resolution, device)

    def batch(self, step: int, config: TrainConfig) -> Tensor:
        """Shapes of a step, without repetition: a share of real ones, then warps; by seed and step alone."""
        rng = np.random.default_rng((config.seed, step))
        warps = len(self.packed) - self.real
        share = config.real_share if warps else 1.0
        real = min(self.real, max(1, round(config.batch * share)))
        ids = rng.choice(self.real, real, replace=False)
        if warps:
            others = self.real + rng.choice(warps, min(warps, config.batch - real), replace=False)
            ids = np.concatenate([ids, others])
        return torch.from_numpy(ids)


def gather(
    shapes: Sequence[Shape],
    model: ModelConfig,
    config: TrainConfig,
    workers: int = 2,
    say: Callable[[str], None] | None = None,
) -> TrainingData:
    """Warp, measure and encode shapes for training a network, in some processes; `say` is told how far it is.

    Raises:
        InputError: there is no shape, or their resolutions differ.
    """
    if not shapes:
        raise InputError("training set", "holds no shape", "Give at least one mask.")
    resolutions = {shape.frame.resolution for shape in shapes}
    if len(resolutions) > 1:
        problem = f"mixes the resolutions {sorted(resolutions)}"
        raise InputError("training set", problem, "Prepare all shapes at one resolution.")
    resolution = resolutions.pop()
    real = [shape.packed for shape in shapes]
    strength = {"config": dataclasses.asdict(config.warp), "resolution": resolution}

    def copy(index: int) -> Message:
        shape = shapes[index % len(shapes)]
        frame = {"margin": shape.frame.margin, "kind": shape.frame.kind}
        return Message({**strength, **frame, "seed": config.seed * 100_003 + index}, shape.packed.tobytes())

    jobs = [copy(index) for index in range(config.warps)]
    volume = (resolution / 128) ** 3
    say = say or (lambda text: None)
    worth = _worth(workers, len(jobs) * _WARP_SECONDS * volume)
    warps = _in_order(warp_case, jobs, np.uint8, worth, lambda text: say(f"warping shapes: {text}"))
    packed = np.stack([*real, *warps])
    jobs = [Message({"resolution": resolution}, row.tobytes()) for row in packed]
    worth = _worth(workers, len(jobs) * _FEATURE_SECONDS * volume)
    told = _in_order(feature_case, jobs, np.float32, worth, lambda text: say(f"measuring shapes: {text}"))
    measured = np.stack(told)
    say("encoding shapes")
    features, distances = np.split(measured, [FEATURE_RESOLUTION**3], axis=1)
    nodes, size, count = model.mode_nodes, model.code_size, model.template_count
    if nodes and config.codes == "linear" and len(packed) > 1 and size > count:
        distances = distances.reshape(-1, *(DISTANCE_RESOLUTION,) * 3)
        clustered = count if config.templates == "clusters" else 1
        start = modal_start(distances, len(real), size, nodes, clustered, config.seed, config.shrinkage)
        modes, codes, centres = start.modes, start.codes, start.centres
        if clustered < count:
            modes = dataclasses.replace(modes, normals=np.repeat(modes.normals, count, axis=0))
    else:
        modes, codes, centres = None, _start_codes(features, size, config), None
    if centres is None or len(centres) < count:
        centres = _centres(codes[: len(real)], count, config.seed)
    return TrainingData(packed, resolution, features, codes, centres, len(real), content_hash(real), modes)


def _centres(codes: Float[np.ndarray, "n c"], count: int, seed: int) -> Float[np.ndarray, "m c"]:
    """Centres of codes by k-means, all different; none where there are no templates."""
    if not count:
        return codes[:0]
    codes = np.unique(codes.astype(np.float64), axis=0)
    rng = np.random.default_rng(seed)
    if len(codes) <= count:
        rows = np.arange(count) % len(codes)
        return (codes[rows] + rng.standard_normal((count, codes.shape[1])) * 1e-2).astype(np.float32)
    centres, _ = kmeans2(codes, count, minit="++", seed=rng)  # pyright: ignore[reportCallIssue]
    return centres.astype(np.float32)


def _worth(workers: int, seconds: float) -> int:
    """Processes for so much work: as many as save more than they take to start."""
    return max(1, min(workers, int(seconds / START_SECONDS)))


def _in_order(
    function: Callable[[Message], Message],
    cases: list[Message],
    dtype: type,
    workers: int,
    say: Callable[[str], None],
) -> list[np.ndarray]:
    """Answers of the cases as arrays, in the order of the cases; `say` is told how many there are."""
    answers: list[np.ndarray | None] = [None] * len(cases)
    for done, (index, answer) in enumerate(run_cases(function, cases, workers), start=1):
        if answer is None:
            raise TrainingError("a process that prepared training shapes died: give it more memory")
        answers[index] = np.frombuffer(answer.payload, dtype)
        say(f"{done} of {len(cases)}")
    return [answer for answer in answers if answer is not None]


def _start_codes(features: np.ndarray, code_size: int, config: TrainConfig) -> Float[np.ndarray, "n c"]:
    if config.codes == "linear" and len(features) > 1:
        return fit_pca(features, code_size, FEATURE_RESOLUTION).encode(features)
    rng = np.random.default_rng(config.seed)
    return (rng.standard_normal((len(features), code_size)) * RANDOM_DEVIATION).astype(np.float32)
