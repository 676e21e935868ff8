"""How to train: schedule, points, penalties; defaults adapt to the number of shapes and to the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from implicit_atlas.atlas.losses import LossWeights
from implicit_atlas.atlas.methods import DEFAULT_METHOD, method_of
from implicit_atlas.errors import InputError
from implicit_atlas.shapes.sampling import PointConfig, affordable_points
from implicit_atlas.support.records import check_choices
from implicit_atlas.training.augment import WarpConfig

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed"]

FEW = 50
POOL = 200  # warped copies fill few shapes up to this many
# Of many shapes. With as many warps as shapes, what is learned after 1500 steps no longer helps unseen ones (91 livers,
# 1500 and 3000 steps: 97.43 and 97.43 DSC; with this many 97.46 and 97.57).
MANY_WARPS = 1000
FEW_SHRINKAGE = 3.0  # for few shapes; clusters of many are hardly moved by it
STEPS_A_WARP = 3  # of many: a shorter schedule has fewer copies, so that each is seen as often, 24 times
WARPS_A_MINUTE = 50  # of a time budget: they take half of it on a slow core, and a fourth on two


@dataclass(frozen=True)
class TrainConfig:
    """Options of one training run.

    Args:
        seed: of all random numbers.
        steps: length of the schedule; ignored where `max_minutes` is given.
        max_minutes: fit the schedule into this time.
        batch: shapes a step.
        real_share: share of a batch that real shapes take, the others being warps where there are any.
        hidden_learning_rate: of the hidden layers' weights (Muon); `learning_rate` is of the others (Adam).
        modes_share: of `learning_rate`, for the patterns of modes; 0 keeps them as they start.
        code_learning_rate: of the codes (sparse Adam).
        codes: start codes: "linear" (coordinates in the network's modes, where it has them; else a PCA of
            low-resolution signed distances), or "random" (the paper).
        templates: where templates start, in networks with modes: at the means of "clusters" of shapes, or all at the
            "mean" shape.
        shrinkage: of clusters' means towards the mean of all shapes: they count as so many shapes, and a cluster as its
            own. A template that is one shape would have to be rid of all that is peculiar to it.
        warps: number of warped copies, each with a code of its own.
        warp: how strong warps are.
        points: of a shape in a step.
        losses: weights of the penalties; those of the method, where it has any.
        device: where it is learned.
        precision: Lightning Fabric's name of the arithmetic.
        checkpoint_minutes: between states that are saved.

    Raises:
        InputError: a value out of range.
    """

    seed: int = 0
    steps: int = 3000
    max_minutes: float | None = None
    batch: int = 16
    real_share: float = 0.5
    learning_rate: float = 2e-3
    hidden_learning_rate: float = 3e-3
    modes_share: float = 1.0
    code_learning_rate: float = 0.1
    codes: Literal["linear", "random"] = "linear"
    templates: Literal["clusters", "mean"] = "clusters"
    shrinkage: float = 0.0
    warps: int = 0
    warp: WarpConfig = field(default_factory=WarpConfig)
    points: PointConfig = field(default_factory=PointConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    device: Device = "cpu"
    precision: Precision = "32-true"
    checkpoint_minutes: float = 1.0

    def __post_init__(self) -> None:
        remedy = "Give a positive number."
        check_minutes(self.max_minutes)
        check_choices(self, "training")
        if self.warps < 0:
            raise InputError("--warps", f"{self.warps} is not a number of copies", "Give 0 or more.")
        if self.seed < 0 or not 0 <= self.real_share <= 1:
            problem = f"has seed {self.seed} and a real share of {self.real_share}"
            raise InputError("training", problem, "Give a seed of 0 or more, and a share from 0 to 1.")
        if self.steps < 1 or self.batch < 1:
            raise InputError(
                "training", f"{self.steps} steps of {self.batch} shapes are nothing to do", remedy
            )
        if self.warps and self.batch <= max(1, round(self.batch * self.real_share)):
            problem = f"has no place for copies in {self.batch} shapes a step, {self.real_share} of them real"
            raise InputError("training", problem, "Give a smaller real_share, a larger batch, or no warps.")


def check_minutes(minutes: float | None) -> None:
    """Refuse what is not a time.

    Raises:
        InputError: it is not positive, or not finite.
    """
    if minutes is not None and not 0 < minutes < float("inf"):
        raise InputError("--max-minutes", f"{minutes} is not a time", "Give a positive number.")


def default_config(
    shapes: int,
    device: Device,
    max_minutes: float | None = None,
    seed: int = 0,
    method: str = DEFAULT_METHOD,
    steps: int | None = None,
) -> TrainConfig:
    """Options for a number of shapes on a device, for a method of `implicit_atlas.atlas.methods`.

    Of a short time, and of few steps with many shapes, warped copies take a part only.

    Raises:
        InputError: there is no such method, or that is not a time.
    """
    check_minutes(max_minutes)
    few = shapes < FEW
    steps = TrainConfig.steps if steps is None else steps
    warps = POOL - shapes if few else MANY_WARPS
    if max_minutes is not None:
        warps = min(warps, int(WARPS_A_MINUTE * max_minutes))
    elif not few:
        warps = min(warps, max(shapes, steps // STEPS_A_WARP))
    return TrainConfig(
        seed=seed,
        steps=steps,
        max_minutes=max_minutes,
        batch=10 if few else 16,
        # Learned on many shapes, patterns turn to these and away from unseen ones.
        modes_share=1.0 if few else 0.0,
        shrinkage=FEW_SHRINKAGE if few else 0.0,
        warps=warps,
        device=device,
        points=affordable_points(method_of(method).decoder == "mlp", device, most=PointConfig()),
        precision=fast_precision(device),
    )


def fast_precision(device: Device) -> Precision:
    """bfloat16 maps where the processor computes with them (half of a step's time), else single precision."""
    if device == "cpu":
        return "bf16-mixed" if torch.backends.mkldnn.is_available() and _has_bf16() else "32-true"
    return "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported() else "32-true"


def _has_bf16() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch that is supported
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
