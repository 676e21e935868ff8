"""Watching fits: the best code so far, when to stop, and whether what was found is worth anything."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_atlas.shapes.sampling import Samples

REGAIN = 1e-3  # a check counts as progress when the loss has fallen by this share
CLEARLY = 0.95  # a fit must lower the loss and errors of the best constant answer at least to this share


class Watch:
    """Keeps the best code of each shape and tells which still gain."""

    def __init__(self, codes: Float[Tensor, "n c"], patience: int) -> None:
        self.patience = patience
        self.best = codes.detach().clone()
        self.loss = torch.full((len(codes),), math.inf, device=codes.device)
        self.stale = torch.zeros(len(codes), dtype=torch.long, device=codes.device)
        self.iterations = np.zeros(len(codes), np.int64)
        self.active: Bool[Tensor, " n"] = torch.ones(len(codes), dtype=torch.bool, device=codes.device)

    def check(self, codes: Tensor, losses: Tensor, iteration: int) -> None:
        """Tell it the codes and their losses after so many iterations."""
        better = (losses < self.loss) & self.active
        gained = losses < self.loss * (1 - REGAIN)
        self.stale = torch.where(gained, 0, self.stale + 1)
        self.best = torch.where(better[:, None], codes.detach(), self.best)
        self.loss = torch.where(better, losses, self.loss)
        self.iterations[self.active.cpu().numpy()] = iteration
        self.active &= self.stale < self.patience


def errors(logits: Float[Tensor, "n points"], samples: Samples) -> Float[Tensor, " n"]:
    """Share of the points of each whole mask that are on the wrong side."""
    wrong = ((logits > 0) != (samples.occupancy > 0.5)).float()
    return (wrong * samples.weight).sum(1) / samples.weight.sum(1).clamp_min(1e-12)


def chance_errors(samples: Samples) -> Float[Tensor, " n"]:
    """The same of the best constant answer: all empty, or all full."""
    share = (samples.occupancy * samples.weight).sum(1) / samples.weight.sum(1).clamp_min(1e-12)
    return torch.minimum(share, 1 - share)


def chance_loss(samples: Samples) -> Float[Tensor, " n"]:
    """Cross entropy of the best constant answer for each whole mask."""
    share = samples.occupancy.mean(1)
    return F.binary_cross_entropy(share, share, reduction="none")


def doubt_of(loss: float, chance: float) -> str | None:
    """Why a fit of this loss, beside the best constant answer's, is not to be trusted; None if it is.

    What a shape cannot follow, its network denies with conviction. Of `val`, the loss of a few unusual organs is above
    that of a constant answer at 90 % DSC, as that of other organs is: a doubt, and no failure.
    """
    if loss < CLEARLY * chance:
        return None
    return "what the atlas cannot follow of it weighs more than what it can: another organ, or an unusual one"


def failure_of(loss: float, mean_loss: float | None, wrong: float, chance: float) -> str | None:
    """Why a fit of this loss and errors is not valid, beside the mean code's and the best constant answer's, or None.

    There is no mean code's loss (None) where a fit chooses a template and nothing else.
    """
    if not math.isfinite(loss):
        return "its values are not finite"
    if mean_loss is not None and loss >= mean_loss:
        return "it is no better than the mean shape"
    if wrong >= CLEARLY * chance:
        return "it is hardly better than no shape at all"
    return None
