"""What DIF-Net learns from: points of a shape's surface with normals, and free points with signed distances.

Distances are in cube units, negative inside, normals point outward. What lies beyond the cube is outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter
from torch import Tensor

from experiments.peers.classical import signed_distance
from implicit_atlas.geometry.grid import sample_volume
from implicit_atlas.shapes.sampling import border_faces
from implicit_atlas.shapes.shape import Shape

PAD_VOX = 4
SMOOTHING_VOX = 1.5  # of the distances that normals are taken from: those of a staircase have six directions
LIMIT = 0.5  # distances are cut off here, in cube units, as the authors do


@dataclass(frozen=True, eq=False)
class Samples:
    """Points of a step; the first of each shape lie on its surface, as many as there are normals.

    Args:
        points: (B, n, 3) cube coordinates.
        sdf: (B, n), 0 on the surface.
        normals: (B, s, 3) unit, outward.
    """

    points: Float[Tensor, "batch points 3"]
    sdf: Float[Tensor, "batch points"]
    normals: Float[Tensor, "batch surface 3"]

    @property
    def surface(self) -> int:
        """Number of points on the surface."""
        return self.normals.shape[1]

    def part(self, rows: slice) -> Samples:
        """Of some of the shapes."""
        return Samples(self.points[rows], self.sdf[rows], self.normals[rows])


@dataclass(frozen=True, eq=False)
class Pool:
    """Points to draw from, computed once.

    Args:
        surface: (n, p, 3) centres of border faces.
        normals: (n, p, 3).
        free: (q, 3), uniform in the cube, the same for all shapes.
        sdf: (n, q) at the free points.
    """

    surface: Float[Tensor, "shapes p 3"]
    normals: Float[Tensor, "shapes p 3"]
    free: Float[Tensor, "q 3"]
    sdf: Float[Tensor, "shapes q"]

    def __len__(self) -> int:
        """Number of shapes."""
        return len(self.surface)

    def sample(
        self,
        ids: Int[Tensor, " batch"],
        counts: tuple[int, int],
        generator: torch.Generator,
        shared: bool = False,
    ) -> Samples:
        """So many surface and free points of each shape; with `shared` a shape's do not depend on the others."""
        draws = 1 if shared else len(ids)
        device, rows = self.surface.device, ids.to(self.surface.device)[:, None]
        on = _draw(draws, counts[0], self.surface.shape[1], generator).to(device)
        off = _draw(draws, counts[1], len(self.free), generator).to(device)
        free = self.free[off].expand(len(ids), -1, -1)
        points = torch.cat([self.surface[rows, on], free], dim=1)
        sdf = torch.cat([points.new_zeros(points.shape[0], counts[0]), self.sdf[rows, off]], dim=1)
        return Samples(points, sdf, self.normals[rows, on])


def make_pool(
    shapes: Sequence[Shape], points: int, seed: int = 0, device: torch.device | str = "cpu"
) -> Pool:
    """Surface points with normals, and free points with distances, of each shape.

    Args:
        shapes: what to sample; of any resolution.
        points: of each kind and shape. Surface points are spread evenly over the border's faces.
        seed: of the free points.
        device: where the points are kept.
    """
    free = np.random.default_rng(seed).uniform(-1, 1, (points, 3)).astype(np.float32)
    parts = [_of_shape(shape.occupancy, free) for shape in shapes]
    surface, normals, sdf = (
        torch.from_numpy(np.stack(column)).to(device) for column in zip(*parts, strict=True)
    )
    return Pool(surface, normals, torch.from_numpy(free).to(device), sdf)


def face_centres(faces: Int[np.ndarray, " n"], nodes: int) -> Float[np.ndarray, "n 3"]:
    """Centres of `border_faces` of a cube of nodes³ voxels, in voxels of its lattice."""
    centres = np.stack(np.unravel_index(faces // 3, (nodes,) * 3), axis=-1).astype(np.float32)
    centres[np.arange(len(faces)), faces % 3] += 0.5
    return centres


def _of_shape(
    occupancy: Bool[np.ndarray, "r r r"], free: Float[np.ndarray, "q 3"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    resolution, count = len(occupancy), len(free)
    padded = np.pad(occupancy, PAD_VOX)
    scale = resolution / len(padded)
    distance = -signed_distance(padded, LIMIT * resolution / 2) * np.float32(2 / resolution)
    smooth = gaussian_filter(distance, SMOOTHING_VOX)
    faces = border_faces(padded)
    chosen = faces[((np.arange(count) + 0.5) * len(faces) / count).astype(np.int64)]
    centres = (face_centres(chosen, len(padded)) * 2 + 1) / np.float32(len(padded)) - 1
    normals = _slope(smooth, centres)
    surface = np.clip(centres / np.float32(scale), -1, 1)
    return surface.astype(np.float32), normals, _read(distance, free * np.float32(scale))


def _slope(volume: Float[np.ndarray, "x y z"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit vectors of steepest ascent, by central differences over two voxels."""
    steps = np.eye(3, dtype=np.float32) * np.float32(2 / len(volume))
    slope = np.stack([_read(volume, points + step) - _read(volume, points - step) for step in steps], axis=1)
    return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)


def _read(volume: Float[np.ndarray, "x y z"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    return sample_volume(torch.from_numpy(volume), torch.from_numpy(points)).numpy()


def _draw(draws: int, count: int, of: int, generator: torch.Generator) -> Int[Tensor, "draws count"]:
    return (torch.rand((draws, count), generator=generator) * of).long().clamp_(max=of - 1)
