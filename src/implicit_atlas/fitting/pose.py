"""Where an organ lies in a scan: position, size and orientation of its cube, to be found together with its shape.

A mask brings its frame along; a few points do not. Their millimetres lead into the cube by x = Rᵀ (p - c) / (s / 2),
with a centre c, sizes s and a turn R that are free beside the code. Sizes have the log-normal distribution of the
training shapes' cubes; turns are small, as scans have about one orientation; of centres little is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_atlas.atlas.folder import AtlasConfig
from implicit_atlas.fitting.sizes import size_factor
from implicit_atlas.geometry.frame import Frame, FrameKind
from implicit_atlas.io.voxel_grid import TurnedGrid
from implicit_atlas.shapes.sampling import Observations

FREE, SIZES = 9, slice(3, 6)  # numbers of a pose: centre, logarithms of the sizes, vector of rotation
MIRROR = np.array([-1.0, 1.0, 1.0])
CENTRE = 0.25  # standard deviation of a centre about where it starts, as a share of the mean size
TURN = 0.12  # standard deviation of the rotation vector's entries, in radians
MISSING = 0.15  # of the mean size, along an axis of which the end may not have been seen
# Observations crowd where a cell, a 16th of an organ's mean size a side, holds several: what a shape cannot follow, it
# misses at neighbouring voxels alike. Of n a cell, each counts n to the power of -1.5.
CELLS, CROWDING = 16, 1.5


@dataclass(frozen=True, eq=False)
class PosePrior:
    """What is known of a cube before anything is seen.

    Args:
        log_size: (3,) mean logarithm of the cube's sizes in mm.
        factor: (3, 3) of the covariance of those logarithms.
        kind: of the training shapes' frames; "isotropic" cubes have one size.
        margin: of the training shapes' frames.
        resolution: of the frames that are made.
    """

    log_size: Float[Tensor, "3"]
    factor: Float[Tensor, "3 3"]
    kind: FrameKind
    margin: float
    resolution: int

    def starts(
        self, points_mm: Float[np.ndarray, "n 3"], occupancy: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "starts 9"]:
        """Numbers to search from: cubes of the mean size about the points' box or mean, or as large as their box.

        And those that have the box at one of their ends, along every axis that may not have been seen as a whole.
        """
        seen = of_organ(points_mm, occupancy)
        low, high = seen.min(0), seen.max(0)
        mean_size = np.exp(self.log_size.cpu().double().numpy())
        to_mean = (seen.mean(0) - (low + high) / 2) / (CENTRE * mean_size)
        extent = (high - low) * (1 + 2 * self.margin)
        factor = self.factor.cpu().double().numpy()
        own = np.linalg.lstsq(factor, np.log(np.maximum(extent / mean_size, 1 / 4)), rcond=None)[0].clip(
            -2, 2
        )
        starts = np.zeros((3, FREE))
        starts[1, :3], starts[2, 3:6] = to_mean.clip(-2, 2), own
        missing = 1 - extent / mean_size
        ends = np.diag(missing / (2 * CENTRE))[missing > MISSING]
        beyond = np.zeros((2 * len(ends), FREE))
        beyond[:, :3] = np.concatenate([ends, -ends])
        return np.concatenate([starts, beyond])


def pose_prior(config: AtlasConfig, device: torch.device | str = "cpu") -> PosePrior:
    """Distribution of the cubes that an atlas was trained on; where only their mean is known, its size within 15 %."""
    logs = np.log(np.array(config.sizes_mm))
    factor = size_factor(logs, config.frame)
    mean, factor = (torch.tensor(v, dtype=torch.float32, device=device) for v in (logs.mean(0), factor))
    return PosePrior(mean, factor, config.frame, config.margin, config.resolution)


@dataclass(frozen=True, eq=False)
class Poses:
    """Cubes of a batch of shapes, as functions of whitened numbers.

    Args:
        prior: their distribution.
        origin_mm: (n, 3) RAS points, in double precision, from which the millimetres of each shape are counted, so that
            single precision does and it does not matter where a scanner has its origin.
        mirrored: of each shape, whether its millimetres are counted to the left.
    """

    prior: PosePrior
    origin_mm: Float[np.ndarray, "n 3"]
    mirrored: Sequence[bool]

    def sizes_mm(self, free: Float[Tensor, "n 9"]) -> Float[Tensor, "n 3"]:
        """Sizes of the cubes along their axes."""
        return (self.prior.log_size + free[:, SIZES] @ self.prior.factor.T).exp()

    def growth(self, free: Float[Tensor, "n 9"]) -> Float[Tensor, " n"]:
        """Size of each cube beside the mean one: what a cube unit is, in units of the mean cube."""
        return (free[:, SIZES] @ self.prior.factor.T).mean(1).exp()

    def centres_mm(self, free: Float[Tensor, "n 9"]) -> Float[Tensor, "n 3"]:
        """Centres of the cubes, from the origins."""
        return free[:, :3] * (CENTRE * self.prior.log_size.exp())

    def to_cube(
        self, free: Float[Tensor, "n 9"], points_mm: Float[Tensor, "n points 3"]
    ) -> Float[Tensor, "n points 3"]:
        """Cube coordinates of millimetres from the origins."""
        turned = (points_mm - self.centres_mm(free)[:, None]) @ rotations(free[:, 6:] * TURN)
        return turned * (2 / self.sizes_mm(free))[:, None]

    def frames(self, free: Float[Tensor, "n 9"]) -> list[Frame]:
        """The cubes as frames, each on a grid of its own: the cube's lattice."""
        signs = torch.from_numpy(np.where(np.array(self.mirrored)[:, None], MIRROR, 1.0))
        centres = self.centres_mm(free).cpu().double() * signs + torch.from_numpy(self.origin_mm)
        sizes = self.sizes_mm(free).cpu().double()
        turns = rotations(free[:, 6:].cpu().double() * TURN)
        out = []
        side = self.prior.resolution
        for centre, size, turn, mirrored in zip(centres, sizes, turns, self.mirrored, strict=True):
            affine = np.eye(4)
            affine[:3, :3] = (turn * (size / side)).numpy()
            if mirrored:  # in space, and along the cube's first axis: the grid's axes stay right-handed
                affine[:3, :3] = MIRROR[:, None] * affine[:3, :3] * MIRROR
            affine[:3, 3] = centre.numpy() - affine[:3, :3].sum(1) * ((side - 1) / 2)
            grid = TurnedGrid((side, side, side), affine)  # its axes are the template's, at any angle
            out.append(
                Frame(grid, np.zeros(3), np.ones(3), side, self.prior.kind, self.prior.margin, mirrored)
            )
        return out


def counted_from_middle(observations: Sequence[Observations]) -> tuple[list[Observations], np.ndarray]:
    """Observations counted from the middle of the box of their points in and on the organ, and these middles (n, 3).

    Those of mirrored organs are counted to the left.
    """
    middles = []
    for seen in observations:
        points = of_organ(seen.points, seen.occupancy)
        middles.append((points.min(0) + points.max(0)) / 2)
    moved = [
        replace(seen, points=(seen.points - middle) * (MIRROR if seen.mirrored else 1.0))
        for seen, middle in zip(observations, middles, strict=True)
    ]
    return moved, np.stack(middles)


def uncrowded(seen: Observations, size_mm: Float[np.ndarray, "3"]) -> Observations:
    """Observations that weigh the less, the more weight one cell holds on average.

    Args:
        seen: in millimetres.
        size_mm: mean size of the organ.
    """
    cells, weight = len(np.unique(np.floor(seen.points * (CELLS / size_mm)), axis=0)), np.asarray(seen.weight)
    return replace(seen, weight=weight * min(1.0, cells / weight.sum()) ** CROWDING)


def of_organ(
    points_mm: Float[np.ndarray, "n 3"], occupancy: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "some 3"]:
    """The points inside and on the boundary; all of them where none is."""
    inside = occupancy >= 0.5
    return points_mm[inside] if inside.any() else points_mm


def rotations(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation about each vector by its length in radians; columns are where the axes go."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3))
