"""Points to supervise with: jittered sub-lattices, a band around the surface, or whatever was observed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from implicit_atlas.errors import InputError
from implicit_atlas.geometry import grid
from implicit_atlas.shapes.shape import unpack


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
FEWEST_POINTS = PointConfig(lattice=10, band=2048)
"""For perceptrons on CPUs, which take two million products a point where reading a map takes a few hundred."""


def affordable_points(costly: bool, device: torch.device | str, most: PointConfig) -> PointConfig:
    """Points of a step: `most`, or fewer on CPUs, by what a point costs (`costly`: a perceptron's)."""
    if torch.device(device).type != "cpu":
        return most
    return FEWEST_POINTS if costly else FEWER_POINTS


@dataclass(frozen=True)
class Samples:
    """Points of a batch of shapes with what is known there.

    `lattice` leading points of each shape form a sub-lattice of lattice³ points (0: none do). `spread` is the standard
    deviation of the points' distance to the boundary, infinite where nothing is said of it.
    """

    points: Float[Tensor, "batch points 3"]
    occupancy: Float[Tensor, "batch points"]
    weight: Float[Tensor, "batch points"]
    lattice: int = 0
    spread: Float[Tensor, "batch points"] | None = None


@runtime_checkable
class Target(Protocol):
    """A set of shapes that can be sampled: full masks (`ShapeSet`) or sparse observations (`ObservationSet`)."""

    def __len__(self) -> int:
        """Number of shapes."""
        ...

    def sample(
        self,
        ids: Int[Tensor, " batch"],
        config: PointConfig,
        generator: torch.Generator,
        shared: bool = False,
    ) -> Samples:
        """Points of the shapes `ids`; with `shared`, every shape gets the points that it would get alone."""
        ...


class ShapeSet:
    """Full occupancies as packed bits, with the faces of their border.

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
        faces = [border_faces(unpack(row, resolution)) for row in packed]
        self.faces = torch.from_numpy(np.concatenate(faces)).to(device)
        counts = torch.tensor([len(f) for f in faces])
        self.face_count = counts.to(device)
        self.face_start = (counts.cumsum(0) - counts).to(device)

    def __len__(self) -> int:
        return len(self.packed)

    def sample(
        self,
        ids: Int[Tensor, " batch"],
        config: PointConfig,
        generator: torch.Generator,
        shared: bool = False,
    ) -> Samples:
        """Lattice points first, band points after them, labelled straight from the bits.

        With `shared` the shapes have one set of random numbers, so that the points of a shape do not depend on
        the others.
        """
        ids = ids.to(self.device)
        draws = 1 if shared else len(ids)
        points = grid.jittered_lattice(draws, config.lattice, config.jitter, generator, self.device)
        points = points.flatten(1, 3).expand(len(ids), -1, -1)
        if config.band:
            source = {"generator": generator, "device": generator.device}
            part = torch.rand((draws, config.band), **source).to(self.device)
            noise = torch.randn((draws, config.band, 3), **source).to(self.device)
            band = self._band(ids, part, noise * config.band_width_vox)
            points = torch.cat([points, band], dim=1)
        points = points.contiguous()
        voxel = grid.voxel_at(points, self.resolution)
        occupancy = grid.read_bits(self.packed[ids], voxel).float()
        return Samples(points, occupancy, torch.ones_like(occupancy), config.lattice)

    def _band(
        self,
        ids: Int[Tensor, " batch"],
        part: Float[Tensor, "draws band"],
        noise_vox: Float[Tensor, "draws band 3"],
    ) -> Float[Tensor, "batch band 3"]:
        """Centres of border faces with noise, kept inside the cube.

        Faces lie half a voxel from the voxels on both sides: points around the inner voxels would favour the inside,
        and shapes would come out too large. One draw from each of `band` equal parts of the list of faces: spread
        evenly, and in the order in which maps lie in memory.
        """
        band, r = part.shape[1], self.resolution
        share = (part + torch.arange(band, device=self.device)) / band
        count = self.face_count[ids, None]
        index = (share * count).long().minimum(count - 1) + self.face_start[ids, None]
        face = self.faces[index]
        flat, axis = face // 3, (face % 3).long()
        voxel = torch.stack([flat // (r * r), flat // r % r, flat % r], dim=-1)
        half = F.one_hot(axis, 3) * 0.5
        return (((voxel + half + noise_vox) * 2 + 1) / r - 1).clamp_(-1, 1)


@dataclass(frozen=True, eq=False)
class Observations:
    """What is known of one shape: occupancy at points of the cube, or of a scan, each with a weight.

    A full mask, clicks, contour slices and a mask with a cropped border are all of this type.

    Args:
        points: (n, 3) cube coordinates; RAS millimetres for `TrainedAtlas.complete_in_scan`.
        occupancy: (n,) 1 inside, 0 outside; 1/2 says "on the surface".
        weight: (n,) non-negative, one by default.
        spread: standard deviation of the points' distance to the boundary, in their own unit, where they were picked
            close to it (clicks, contours); of each point (infinite where nothing is said) or of all; None says only
            that points on the surface lie on it.
        mirrored: the organ is a mirror image of the atlas's, of the other side; for points in millimetres.
        guides: so many of the last points were not observed, and only guide the search for the shape.

    Raises:
        InputError: fewer than four different points, sizes that differ, or values that are not finite or out of range.
    """

    points: Float[np.ndarray, "n 3"]
    occupancy: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"] | None = None
    name: str = "observations"
    spread: float | Float[np.ndarray, " n"] | None = None
    mirrored: bool = False
    guides: int = 0

    def __post_init__(self) -> None:
        for name in ("points", "occupancy"):
            try:
                object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
            except (TypeError, ValueError) as error:
                raise InputError(
                    self.name, f"{name} are no numbers ({error})", "Give arrays of them."
                ) from error
        if self.points.ndim != 2 or self.occupancy.ndim != 1:
            problem = f"are arrays of {self.points.ndim} and {self.occupancy.ndim} axes"
            raise InputError(self.name, f"points and occupancy {problem}", "Give (n, 3) and (n,).")
        count = len(self.points)
        weight = np.ones(count) if self.weight is None else np.asarray(self.weight)
        object.__setattr__(self, "weight", weight)
        remedy = "Give at least four different points, with finite coordinates and labels from 0 to 1."
        if self.points.shape != (count, 3) or self.occupancy.shape != (count,) or weight.shape != (count,):
            raise InputError(self.name, "points, occupancy and weight differ in size", remedy)
        if count < 4:
            raise InputError(self.name, f"only {count} points were observed", remedy)
        values = np.concatenate([self.points.ravel(), self.occupancy, weight])
        if not np.isfinite(values).all():
            raise InputError(self.name, "a point, an occupancy or a weight is not finite", remedy)
        if len(np.unique(self.points, axis=0)) < 4:
            raise InputError(self.name, "fewer than four places were observed", remedy)
        if self.occupancy.min() < 0 or self.occupancy.max() > 1 or weight.min() < 0 or not weight.any():
            raise InputError(self.name, "an occupancy or a weight is out of range", remedy)
        sizes = () if self.spread is None else np.shape(self.spread)
        if sizes not in ((), (count,)) or not (self.spreads >= 0).all():
            raise InputError(self.name, "the spread is not a distance", "Give it in the points' own unit.")

    def unguided(self) -> Observations:
        """What was observed, without the points that only guide a search."""
        if not self.guides:
            return self
        kept = slice(len(self.points) - self.guides)
        arrays = (
            self.points[kept],
            self.occupancy[kept],
            np.asarray(self.weight)[kept],
            self.name,
            self.spreads[kept],
        )
        return Observations(*arrays, self.mirrored)

    def seed(self, *numbers: int) -> int:
        """Of random numbers that are this case's own, whatever is done beside it: of its name and its points."""
        return zlib.crc32(repr((numbers, self.name)).encode() + self.points.tobytes())

    @property
    def spreads(self) -> Float[np.ndarray, " n"]:
        """The spread of each point."""
        if self.spread is None:
            return np.where(self.occupancy == 0.5, 0.0, np.inf)
        return np.broadcast_to(np.asarray(self.spread, np.float64), len(self.points))


class ObservationSet:
    """Sparse observations of several shapes."""

    def __init__(self, observations: Sequence[Observations], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.total = torch.tensor([float(np.sum(np.asarray(o.weight))) for o in observations], device=device)
        self._all = [
            [
                torch.as_tensor(np.array(a), dtype=torch.float32, device=device)
                for a in (o.points, o.occupancy, o.weight, o.spreads)
            ]
            for o in observations
        ]

    def __len__(self) -> int:
        return len(self._all)

    def sample(
        self,
        ids: Int[Tensor, " batch"],
        config: PointConfig,
        generator: torch.Generator,
        shared: bool = False,
    ) -> Samples:
        """All points of each shape while they fit in the budget of `config`, else a random part; padded by weight 0."""
        budget = config.lattice**3 + config.band
        size = min(budget, max(len(self._all[i][0]) for i in ids.tolist()))
        state, rows = generator.get_state(), []
        for i in ids.tolist():
            if shared:
                generator.set_state(state)
            rows.append(self._row(self._all[i], size, generator))
        points, occupancy, weight, spread = (torch.stack(column) for column in zip(*rows, strict=True))
        return Samples(points, occupancy, weight, spread=spread)

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


def border_faces(occupancy: Bool[np.ndarray, "x y z"]) -> Int[np.ndarray, " n"]:
    """Faces between an occupied and an empty voxel, as 3 * (flat index of the lower voxel) + axis, sorted.

    A volume that is all occupied or all empty has no border: there every face counts.
    """
    found = []
    uniform = occupancy.all() or not occupancy.any()
    for axis in range(3):
        lower, upper = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        change = np.zeros_like(occupancy)
        change[lower] = uniform or occupancy[lower] != occupancy[upper]
        found.append(np.flatnonzero(change) * 3 + axis)
    faces = np.sort(np.concatenate(found))
    return faces.astype(np.int32 if occupancy.size * 3 < 2**31 else np.int64)
