"""Points to supervise with: jittered sub-lattices, a band around the surface, or whatever was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from implicit_atlas import grid
from implicit_atlas.errors import InputError
from implicit_atlas.shapes import unpack


@dataclass(frozen=True)
class PointConfig:
    """Where a shape is asked at in one step.

    `lattice`³ points of a jittered sub-lattice over the cube (paper §3.4; `jitter` 1 covers the whole cell, so that
    no voxel stays unseen), and `band` points around the surface, displaced from border voxels by a normal
    noise of `band_width_vox` (voxels of the shape's own lattice).
    """

    lattice: int = 32
    jitter: float = 1.0
    band: int = 16384
    band_width_vox: float = 2.0


FEWER_POINTS = PointConfig(lattice=20, band=8192)
"""Half of the points in the band and a third in all: on CPUs more steps are worth more than more points a step."""


@dataclass(frozen=True)
class Samples:
    """Points of a batch of shapes with what is known there.

    `lattice` leading points of each shape form a sub-lattice of lattice³ points (0: none do).
    """

    points: Float[Tensor, "batch points 3"]
    occupancy: Float[Tensor, "batch points"]
    weight: Float[Tensor, "batch points"]
    lattice: int = 0


@runtime_checkable
class Target(Protocol):
    """A set of shapes that can be sampled: full masks (`ShapeSet`) or sparse observations (`ObservationSet`)."""

    def __len__(self) -> int:
        """Number of shapes."""
        ...

    def sample(self, ids: Int[Tensor, " batch"], config: PointConfig, generator: torch.Generator) -> Samples:
        """Points of the shapes `ids`."""
        ...


class ShapeSet:
    """Full occupancies as packed bits, with their border voxels.

    Args:
        packed: (n, R³ / 8) as by numpy.packbits of the C-ordered cube.
        resolution: R.
        device: where sampling happens.
    """

    def __init__(
        self, packed: UInt8[np.ndarray, "n bytes"], resolution: int, device: torch.device | str = "cpu"
    ) -> None:
        self.resolution = resolution
        self.device = torch.device(device)
        self.packed = torch.from_numpy(np.array(packed)).to(device)
        borders = [border_voxels(unpack(row, resolution)) for row in packed]
        self.border = torch.from_numpy(np.concatenate(borders)).to(device)
        counts = torch.tensor([len(b) for b in borders])
        self.border_count = counts.to(device)
        self.border_start = (counts.cumsum(0) - counts).to(device)

    def __len__(self) -> int:
        return len(self.packed)

    def sample(self, ids: Int[Tensor, " batch"], config: PointConfig, generator: torch.Generator) -> Samples:
        """Lattice points first, band points after them, labelled straight from the bits."""
        ids = ids.to(self.device)
        points = grid.jittered_lattice(
            len(ids), config.lattice, config.jitter, generator, self.device
        ).flatten(1, 3)
        if config.band:
            points = torch.cat([points, self._band(ids, config, generator)], dim=1)
        voxel = grid.voxel_at(points, self.resolution)
        occupancy = grid.read_bits(self.packed[ids], voxel).float()
        return Samples(points, occupancy, torch.ones_like(occupancy), config.lattice)

    def _band(
        self, ids: Int[Tensor, " batch"], config: PointConfig, generator: torch.Generator
    ) -> Float[Tensor, "batch points 3"]:
        """Border voxels' centres with normal noise, kept inside the cube."""
        draw = torch.rand((len(ids), config.band), generator=generator).to(self.device)
        index = (draw * self.border_count[ids, None]).long() + self.border_start[ids, None]
        flat, r = self.border[index].long(), self.resolution
        voxel = torch.stack([flat // (r * r), flat // r % r, flat % r], dim=-1)
        noise = torch.randn(voxel.shape, generator=generator).to(self.device) * config.band_width_vox
        return (((voxel + noise) * 2 + 1) / r - 1).clamp_(-1, 1)


@dataclass(frozen=True, eq=False)
class Observations:
    """What is known of one shape: occupancy at points of the cube, each with a weight.

    A full mask, clicks, contour slices and a mask with a cropped border are all of this type.

    Args:
        points: (n, 3) cube coordinates.
        occupancy: (n,) 1 inside, 0 outside; 1/2 says "on the surface".
        weight: (n,) non-negative, one by default.

    Raises:
        InputError: fewer than four points, sizes that differ, or values that are not finite or out of range.
    """

    points: Float[np.ndarray, "n 3"]
    occupancy: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"] | None = None
    name: str = "observations"

    def __post_init__(self) -> None:
        count = len(self.points)
        weight = np.ones(count) if self.weight is None else np.asarray(self.weight)
        object.__setattr__(self, "weight", weight)
        remedy = "Give at least four finite points of the cube, each with an occupancy from 0 to 1."
        if self.points.shape != (count, 3) or self.occupancy.shape != (count,) or weight.shape != (count,):
            raise InputError(self.name, "points, occupancy and weight differ in size", remedy)
        if count < 4:
            raise InputError(self.name, f"only {count} points were observed", remedy)
        values = np.concatenate([self.points.ravel(), self.occupancy, weight])
        if not np.isfinite(values).all():
            raise InputError(self.name, "a point, an occupancy or a weight is not finite", remedy)
        if self.occupancy.min() < 0 or self.occupancy.max() > 1 or weight.min() < 0 or not weight.any():
            raise InputError(self.name, "an occupancy or a weight is out of range", remedy)


class ObservationSet:
    """Sparse observations of several shapes."""

    def __init__(self, observations: Sequence[Observations], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._all = [
            [
                torch.as_tensor(np.array(a), dtype=torch.float32, device=device)
                for a in (o.points, o.occupancy, o.weight)
            ]
            for o in observations
        ]

    def __len__(self) -> int:
        return len(self._all)

    def sample(self, ids: Int[Tensor, " batch"], config: PointConfig, generator: torch.Generator) -> Samples:
        """All points of each shape while they fit in the budget of `config`, else a random part; padded by weight 0."""
        budget = config.lattice**3 + config.band
        size = min(budget, max(len(self._all[i][0]) for i in ids.tolist()))
        rows = [self._row(self._all[i], size, generator) for i in ids.tolist()]
        points, occupancy, weight = (torch.stack(column) for column in zip(*rows, strict=True))
        return Samples(points, occupancy, weight)

    def _row(self, row: list[Tensor], size: int, generator: torch.Generator) -> list[Tensor]:
        count = len(row[0])
        if count >= size:
            keep = (
                torch.randperm(count, generator=generator)[:size].to(self.device)
                if count > size
                else slice(None)
            )
            return [part[keep] for part in row]
        return [torch.cat([part, part.new_zeros((size - count, *part.shape[1:]))]) for part in row]


def border_voxels(occupancy: Bool[np.ndarray, "x y z"]) -> Int[np.ndarray, " n"]:
    """Flat indices of occupied voxels with an empty neighbour by faces (beyond the cube is empty)."""
    padded = np.pad(occupancy, 1)
    inner = occupancy.copy()
    for axis in range(3):
        for shift in (-1, 1):
            inner &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    return np.flatnonzero(occupancy & ~inner).astype(np.int32)
