"""Strays: points far from a shape's surface that its fit gets wrong.

The points of an iteration lie near the surface or, few, all over the cube. A thin piece that a fit puts where there is
nothing holds hardly any of them, and a loss that forgives what cannot be followed forgives it, too. So the fit is asked
on a finer lattice now and then, and what is wrong there, among neighbours that all have one label, is in every later
iteration, by cross entropy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_atlas.shapes.sampling import PointConfig, Samples

LATTICE = PointConfig(lattice=40, band=0)
TOGETHER = 1 << 14  # points of a shape that are asked at once
MOST = 1 / 16  # of the points of an iteration are new ones at a time
KEPT = 8  # times so many stay, the newest: a place that cannot be followed is found again and again


class Strays:
    """What was found of several shapes so far; of a shape that has fewer than others, the rest counts nothing."""

    def __init__(self, shapes: int, device: torch.device) -> None:
        self.points: Float[Tensor, "n s 3"] = torch.zeros((shapes, 0, 3), device=device)
        self.occupancy: Float[Tensor, "n s"] = torch.zeros((shapes, 0), device=device)
        self.counts: Float[Tensor, "n s"] = torch.zeros((shapes, 0), device=device)

    def __len__(self) -> int:
        """Most of a shape."""
        return self.points.shape[1]

    def add(self, samples: Samples, logits: Float[Tensor, "n points"], most: int) -> bool:
        """Take the strays of `LATTICE`'s points, at most so many of a shape; False where there are none."""
        wrong = ((logits > 0) != (samples.occupancy > 0.5)) & far_from_surface(samples)
        size = min(most, int(wrong.sum(1).max()))
        rows = torch.argsort(wrong.float(), dim=1, descending=True, stable=True)[:, :size]
        points = samples.points.gather(1, rows[..., None].expand(-1, -1, 3))
        self.points = torch.cat([self.points, points], dim=1)
        self.occupancy = torch.cat([self.occupancy, samples.occupancy.gather(1, rows)], dim=1)
        self.counts = torch.cat([self.counts, wrong.gather(1, rows).float()], dim=1)
        self._keep(KEPT * most)
        return size > 0

    def _keep(self, most: int) -> None:
        """The newest of each shape, whatever others have."""
        longest = min(most, int(self.counts.sum(1).max()))
        # What counts nothing comes first.
        newest = torch.argsort(self.counts, dim=1, stable=True)[:, len(self) - longest :]
        self.points = self.points.gather(1, newest[..., None].expand(-1, -1, 3))
        self.occupancy, self.counts = self.occupancy.gather(1, newest), self.counts.gather(1, newest)

    def loss(self, logits: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
        """Sum of the cross entropies of a shape's strays."""
        each = F.binary_cross_entropy_with_logits(logits, self.occupancy, reduction="none")
        return (each * self.counts).sum(1)


def far_from_surface(samples: Samples) -> Bool[Tensor, "n points"]:
    """Whether all neighbours of a point of the samples' lattice have its label."""
    side = samples.lattice
    labels = samples.occupancy[:, : side**3].unflatten(1, (1, side, side, side))
    most, least = F.max_pool3d(labels, 3, 1, 1), -F.max_pool3d(-labels, 3, 1, 1)
    return (most == least).flatten(1)
