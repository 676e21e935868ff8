"""How to train: schedule, points, penalties; defaults adapt to the number of shapes and to the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from implicit_atlas.augment import WarpConfig
from implicit_atlas.errors import InputError
from implicit_atlas.losses import LossWeights
from implicit_atlas.sampling import PointConfig

FEW = 50  # below this many shapes, warped copies make up the number to WARPED
WARPED = 200


@dataclass(frozen=True)
class TrainConfig:
    """Options of one training run.

    Args:
        steps: length of the schedule; ignored where `max_minutes` is given.
        max_minutes: fit the schedule into this time.
        batch: shapes a step.
        real_share: share of a batch that real shapes take, the others being warps.
        codes: start codes: "pca" of low-resolution signed distances, or "random" (the paper).
        warps: number of warped copies, each with a code of its own.
        precision: Lightning Fabric's name of the arithmetic.
    """

    seed: int = 0
    steps: int = 2000
    max_minutes: float | None = None
    batch: int = 16
    real_share: float = 1.0
    learning_rate: float = 2e-3
    code_learning_rate: float = 0.1
    codes: Literal["pca", "random"] = "pca"
    warps: int = 0
    warp: WarpConfig = field(default_factory=WarpConfig)
    points: PointConfig = field(default_factory=PointConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    checkpoint_minutes: float = 1.0

    def __post_init__(self) -> None:
        remedy = "Give a positive number."
        if self.max_minutes is not None and not 0 < self.max_minutes < float("inf"):
            raise InputError("--max-minutes", f"{self.max_minutes} is not a time", remedy)
        if self.steps < 1 or self.batch < 1:
            raise InputError(
                "training", f"{self.steps} steps of {self.batch} shapes are nothing to do", remedy
            )


def default_config(
    shapes: int, device: Literal["cpu", "cuda", "mps"], max_minutes: float | None = None, seed: int = 0
) -> TrainConfig:
    """Options for a number of shapes on a device."""
    warps = max(0, WARPED - shapes) if shapes < FEW else 0
    return TrainConfig(
        seed=seed,
        max_minutes=max_minutes,
        warps=warps,
        real_share=0.25 if warps else 1.0,
        device=device,
        batch=16 if device == "cpu" else 64,
        steps=2000,
    )
