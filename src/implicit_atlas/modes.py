"""Surface modes: the part of a deformation that is linear in the code.

A network that has seen a few hundred shapes answers to some hundred directions of the code; the others hardly move
the surface, so that an unseen shape is fitted with a part of the numbers that it may use. With modes, entry k of the
code also adds h_k times the k-th of c displacement fields on a coarse lattice. They start as the displacements that
move the surfaces of the training shapes most, codes start as the shapes' coordinates in them, and both are learned.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array, hstack
from torch import Tensor, nn

from implicit_atlas.grid import sample_volume
from implicit_atlas.sampling import border_faces
from implicit_atlas.shapes import unpack

# Cube units of a weight of 1, so that an optimiser's steps suit weights and displacements alike.
UNIT = 2.0**-8
MOTION_VOX = 0.3  # root mean square motion of surfaces by a mode at coordinate 1, in voxels of the lattice
SURFACE_POINTS = 16_384  # of all shapes together
SMOOTHING_VOX = 3.0  # of the occupancy whose slope is the surface's normal
LEAST = 1e-4  # motions below this share of the largest are no motions
BAND = 0.1  # shapes are registered where the mean shape's distance is below this, in cube units
BAND_POINTS, LOOKS = 3000, 4
NOISE_VOX, PRIOR = 0.15, 3.0  # of a distance, and of a coordinate (standard deviations)


class Modes(nn.Module):
    """Displacements on a lattice, linear in the code.

    Args:
        code_size: c.
        nodes: of the lattice, a side.
    """

    def __init__(self, code_size: int, nodes: int) -> None:
        super().__init__()
        self.nodes = nodes
        self.weight = nn.Parameter(torch.zeros(nodes**3 * 3, code_size))

    def forward(self, codes: Float[Tensor, "batch c"]) -> Float[Tensor, "batch n n n 3"]:
        """Displacements of each code, in cube units."""
        return F.linear(codes, self.weight * UNIT).unflatten(1, (*(self.nodes,) * 3, 3))

    @torch.no_grad()
    def start(self, fields: Float[Tensor, "rows c"]) -> None:
        """Take displacement fields, one a column, in cube units."""
        self.weight.copy_(fields / UNIT)


def hats(points: Float[np.ndarray, "p 3"], nodes: int) -> csr_array:
    """Trilinear weights of corner-aligned nodes at points, (p, nodes³)."""
    place = np.clip((points + 1) * ((nodes - 1) / 2), 0, nodes - 1)
    cell = np.minimum(place.astype(np.int64), nodes - 2)
    part = place - cell
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        x, y, z = (cell + corner).T
        rows.append(np.arange(len(points)))
        columns.append((x * nodes + y) * nodes + z)
        values.append(np.where(corner, part, 1 - part).prod(1))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(entries, shape=(len(points), nodes**3))


def surface_modes(
    packed: UInt8[np.ndarray, "n bytes"], resolution: int, count: int, nodes: int, seed: int = 0
) -> Float[np.ndarray, "rows count"]:
    """The displacement fields on a lattice of nodes that move surfaces most, for displacements of one strength.

    They are the leading eigenvectors of the mean of (normal motion)² over the shapes' surfaces, scaled so that each
    moves them by MOTION_VOX in the root mean square.

    Args:
        packed: occupancies, packed bits.
        resolution: R of their lattice.
        count: number of fields; columns beyond the 3 nodes³ that there are stay zero.
        nodes: of the lattice, a side.
        seed: of the choice of surface points.

    Returns:
        (nodes³ · 3, count), in cube units; rows in C order of (x, y, z, component).
    """
    rng = np.random.default_rng(seed)
    each = -(-SURFACE_POINTS // len(packed))
    total = np.zeros((nodes**3 * 3,) * 2)
    for row in packed:
        points, normals = _surface(unpack(row, resolution), each, rng)
        weights = hats(points, nodes)
        motion = hstack([weights * normals[:, [axis]] for axis in range(3)])
        total += (motion.T @ motion).toarray() / (each * len(packed))
    size = len(total)
    kept = min(count, size)
    squares, fields = eigh(total, subset_by_index=(size - kept, size - 1))
    squares, fields = squares[::-1], fields[:, ::-1]
    scale = MOTION_VOX * 2 / resolution / np.sqrt(np.maximum(squares, LEAST * max(squares[0], 1e-30)))
    found = np.zeros((size, count))
    found[:, :kept] = (fields * scale).reshape(3, nodes**3, kept).swapaxes(0, 1).reshape(size, kept)
    return found


def _surface(
    occupancy: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "count 3"], Float[np.ndarray, "count 3"]]:
    """Random points on the surface, in cube units, and unit normals there."""
    r = occupancy.shape[0]
    faces = rng.choice(border_faces(occupancy), count)
    voxel = np.stack(np.unravel_index(faces // 3, (r,) * 3), axis=-1)
    smooth = gaussian_filter(occupancy.astype(np.float32), SMOOTHING_VOX, mode="nearest")
    slope = np.asarray(np.gradient(smooth))[:, *voxel.T].T
    normals = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)
    return ((voxel + np.eye(3)[faces % 3] / 2) * 2 + 1) / r - 1, normals


def coordinates(
    distances: Float[np.ndarray, "n s s s"],
    mean: Float[np.ndarray, "s s s"],
    fields: Float[np.ndarray, "rows count"],
    nodes: int,
    resolution: int,
) -> Float[np.ndarray, "n count"]:
    """Coordinates z of shapes in modes, so that the mean shape's distance at p + fields(p) · z is the shape's at p.

    Regularised Gauss-Newton steps over points near the mean surface.

    Args:
        distances: signed distances of the shapes, in cube units, on a cell-centred lattice.
        mean: of the shapes that count.
        fields: as `surface_modes` returns them.
        nodes: of their lattice, a side.
        resolution: R of the shapes, for the voxel in which noise is measured.
    """
    side = len(mean)
    near = np.flatnonzero(np.abs(mean) <= max(BAND, np.abs(mean).min()))
    if len(near) > BAND_POINTS:
        near = np.random.default_rng(0).choice(near, BAND_POINTS, replace=False)
    points = (np.stack(np.unravel_index(near, mean.shape), axis=-1) * 2 + 1) / side - 1
    moved = hats(points, nodes) @ fields.reshape(nodes**3, -1)
    moved = moved.reshape(len(points), 3, -1)
    slopes = np.asarray(np.gradient(mean, 2 / side))
    volumes = [torch.from_numpy(np.ascontiguousarray(v, np.float32)) for v in (mean, *slopes)]
    ridge = len(points) * (NOISE_VOX * 2 / resolution / PRIOR) ** 2
    found = np.zeros((len(distances), fields.shape[1]))
    for z, shape in zip(found, distances.reshape(len(distances), -1)[:, near], strict=True):
        for _ in range(LOOKS):
            at = torch.from_numpy((points + moved @ z).astype(np.float32))
            value, *slope = (sample_volume(volume, at).numpy() for volume in volumes)
            jacobian = np.einsum("pa,pak->pk", np.stack(slope, axis=-1), moved, optimize=True)
            normal = jacobian.T @ jacobian + ridge * np.eye(len(z))
            z += np.linalg.solve(normal, jacobian.T @ (shape - value) - ridge * z)
    return found


def modal_start(
    packed: UInt8[np.ndarray, "n bytes"],
    resolution: int,
    distances: Float[np.ndarray, "n s s s"],
    real: int,
    code_size: int,
    nodes: int,
) -> tuple[Float[np.ndarray, "rows c"], Float[np.ndarray, "n c"]]:
    """Modes of the real shapes, which come first, and start codes of all shapes.

    Codes are coordinates, scaled to unit mean square of an entry; modes are scaled against that.
    """
    fields = surface_modes(packed[:real], resolution, code_size, nodes)
    found = coordinates(distances, distances[:real].mean(0), fields, nodes, resolution)
    found -= found.mean(0)
    scale = np.sqrt(np.mean(found**2)) or 1.0
    return (fields * scale).astype(np.float32), (found / scale).astype(np.float32)
