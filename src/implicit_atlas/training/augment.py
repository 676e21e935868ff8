"""Smooth random warps of training shapes: affine and elastic, put back into frames about their own bounding boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import zoom
from torch import Tensor

from implicit_atlas.geometry.frame import FrameKind
from implicit_atlas.geometry.kernels import warp_occupancy
from implicit_atlas.shapes.shape import unpack
from implicit_atlas.support.records import from_json
from implicit_atlas.support.workers import Message

LOOKS = 4  # at most, until the box is that of the sampled shape
REACH = 1.5  # a warp is looked for in [-REACH, REACH]³, so that it may leave the cube before its box is taken


@dataclass(frozen=True)
class WarpConfig:
    """Strength of the warps, in cube units (the cube's side is 2).

    `affine`: standard deviation of what is added to the entries of the identity matrix. `elastic`: standard
    deviations of the displacements on random lattices of `nodes` a side, upsampled by cubic splines.
    """

    affine: float = 0.08
    elastic: tuple[float, ...] = (0.08, 0.04)
    nodes: tuple[int, ...] = (4, 7)


def random_warp(
    config: WarpConfig, rng: np.random.Generator, nodes: int = 33
) -> tuple[Float[np.ndarray, "n n n 3"], Float[np.ndarray, "3 3"]]:
    """Random smooth displacement on a lattice over the reach, and a random matrix near the identity."""
    total = np.zeros((3, nodes, nodes, nodes), np.float32)
    for count, strength in zip(config.nodes, config.elastic, strict=True):
        coarse = rng.standard_normal((3, count, count, count)) * strength
        # Cubic upsampling of one axis, as a matrix.
        spline = np.asarray(zoom(np.eye(count), (nodes / count, 1), order=3))
        total += np.einsum("cxyz,ax,by,dz->cabd", coarse, spline, spline, spline, optimize=True)
    matrix = (np.eye(3) + rng.standard_normal((3, 3)) * config.affine).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(total, 0, -1)), matrix


def _box(inside: Bool[Tensor, "x y z"], axes: Float[Tensor, "r 3"]) -> tuple[Tensor, Tensor]:
    """Lowest and highest position of the occupied nodes of a lattice."""
    spans = [axes[inside.any(2).any(1), 0], axes[inside.any(2).any(0), 1], axes[inside.any(1).any(0), 2]]
    return torch.stack([s[0] for s in spans]), torch.stack([s[-1] for s in spans])


def warp(
    occupancy: Bool[np.ndarray, "r r r"],
    config: WarpConfig,
    seed: int,
    margin: float = 0.0,
    kind: FrameKind = "box",
) -> Bool[np.ndarray, "r r r"]:
    """A warped copy of a shape in the frame of its own bounding box, as that of the shape: see `frame_of_box`.

    A warp that leaves nothing (possible only at absurd strengths) returns the shape itself.
    """
    rng = np.random.default_rng(seed)
    padded = np.pad(occupancy.astype(np.uint8), 1)
    displacement, matrix = random_warp(config, rng)

    def inside_at(low: Tensor, high: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
        """Occupancy on a lattice from corner to corner, and the lattice's positions along each axis."""
        axes = low + torch.linspace(0, 1, nodes)[:, None] * (high - low)
        inside = np.empty((nodes,) * 3, bool)
        warp_occupancy(padded, displacement, np.float32(REACH), matrix, axes.numpy(), inside)
        return torch.from_numpy(inside), axes

    low, high = torch.full((3,), -REACH), torch.full((3,), REACH)
    # Each look is good to one pitch of its lattice: narrow the box twice, then read the shape in it.
    for nodes in (48, 64):
        inside, axes = inside_at(low, high, nodes)
        if not inside.any():
            return occupancy.copy()
        pitch = axes[1] - axes[0]
        low, high = _box(inside, axes)
        low, high = low - pitch * 0.75, high + pitch * 0.75
    low, high = low + pitch * 0.75, high - pitch * 0.75
    inside, axes = inside_at(low, high, occupancy.shape[0])
    for _ in range(LOOKS):
        if not inside.any():
            return occupancy.copy()
        low, high = _box(inside, axes)
        if torch.equal(torch.stack([low, high]), axes[[0, -1]]):
            break
        # A tip of the shape lay between the nodes of the first plane: take the box of what the nodes saw.
        inside, axes = inside_at(low, high, occupancy.shape[0])
    if margin or kind == "isotropic":
        half = (high - low) * (0.5 + margin)
        half = half.max().expand(3) if kind == "isotropic" else half
        middle = (low + high) / 2
        inside, _ = inside_at(middle - half, middle + half, occupancy.shape[0])
    return inside.numpy() if inside.any() else occupancy.copy()


def warp_case(case: Message) -> Message:
    """`warp` for a worker process: packed bits, resolution, strength, seed and frame in, packed bits out."""
    told = case.values
    config = from_json(WarpConfig, told["config"], "warp")
    occupancy = unpack(np.frombuffer(case.payload, np.uint8), told["resolution"])
    warped = warp(occupancy, config, told["seed"], told["margin"], told["kind"])
    return Message({}, np.packbits(warped).tobytes())
