"""Watching fits: the best code so far, when to stop, and whether what was found is worth anything."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_atlas.sampling import Samples

REGAIN = 1e-3  # a check counts as progress when the loss has fallen by this share
CLEARLY = 0.95  # a fit must lower the loss of the best constant answer at least to this share


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


def chance_loss(samples: Samples) -> Float[Tensor, " n"]:
    """Loss of the best constant answer for each whole mask."""
    share = samples.occupancy.mean(1)
    return F.binary_cross_entropy(share, share, reduction="none")


def failure_of(loss: float, mean_loss: float | None, chance: float) -> str | None:
    """Why a fit of this loss is not valid, beside the mean code's and the best constant answer's; None if it is.

    There is no mean code's (None) where a fit chooses a template and nothing else.
    """
    if not math.isfinite(loss):
        return "its values are not finite"
    if mean_loss is not None and loss >= mean_loss:
        return "it is no better than the mean shape"
    if loss >= CLEARLY * chance:
        return "it is hardly better than no shape at all"
    return None
