"""The cube: lattices, jitter, and reading maps at points. The only module that calls grid_sample.

Component a of a point runs along axis a of an array. A lattice of resolution R is cell-centred: node i sits
at -1 + (2 i + 1) / R. Feature maps are corner-aligned: node i of n sits at -1 + 2 i / (n - 1), so that maps
of 2^k + 1 nodes nest.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from implicit_atlas.geometry import kernels

TINY = 1e-12  # keeps the gradient of a square root finite at 0


def lattice(resolution: int, device: torch.device | str = "cpu") -> Float[Tensor, "x y z 3"]:
    """Cell-centred lattice points of the cube, (R, R, R, 3)."""
    axis = (torch.arange(resolution, device=device, dtype=torch.float32) * 2 + 1) / resolution - 1
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def map_nodes(nodes: int, device: torch.device | str = "cpu") -> Float[Tensor, "x y z 3"]:
    """Positions of the corner-aligned nodes of a feature map, (n, n, n, 3)."""
    axis = torch.linspace(-1, 1, nodes, device=device)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def jittered_lattice(
    batch: int, resolution: int, jitter: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Float[Tensor, "batch x y z 3"]:
    """Lattices with uniform noise of `jitter` times the half cell; 1 covers the whole cell (paper §3.4)."""
    noise = torch.rand((batch, *(resolution,) * 3, 3), generator=generator, device=generator.device) * 2 - 1
    return lattice(resolution, device) + noise.to(device) * (jitter / resolution)


def voxel_at(points: Float[Tensor, "*any 3"], resolution: int) -> Int[Tensor, "*any"]:
    """Flat index of the voxel of an R³ lattice that holds each point (points outside take the nearest)."""
    cell = ((points + 1) * (resolution / 2)).floor().long().clamp_(0, resolution - 1)
    return (cell[..., 0] * resolution + cell[..., 1]) * resolution + cell[..., 2]


def read_bits(
    packed: UInt8[Tensor, "batch bytes"], voxel: Int[Tensor, "batch points"]
) -> Bool[Tensor, "batch points"]:
    """Occupancy of flat voxel indices, straight from packed bits (numpy.packbits order)."""
    byte = packed.gather(1, voxel >> 3)
    return ((byte >> (7 - (voxel & 7)).to(torch.uint8)) & 1).bool()


def sample_volume(
    volume: Float[Tensor, "x y z"], points: Float[Tensor, "points 3"]
) -> Float[Tensor, " points"]:
    """Trilinear value of a cell-centred volume at cube points; the nearest one outside."""
    where = points.flip(-1).view(1, -1, 1, 1, 3).to(volume.dtype)
    return F.grid_sample(volume[None, None], where, padding_mode="border", align_corners=False).view(-1)


def sample_distances(
    volumes: Float[Tensor, "m r r r"],
    owner: Int[Tensor, " batch"],
    points: Float[Tensor, "batch points 3"],
) -> Float[Tensor, "batch points"]:
    """Trilinear values of volume owner[b], distances on a cell-centred lattice, at points[b].

    Outside the cube the border's, less the distance to the cube.
    """
    inside = points.clamp(-1, 1)
    found = -((points - inside).square().sum(-1) + TINY).sqrt() + TINY**0.5
    for index in owner.unique().tolist():
        mine = (owner == index).nonzero()[:, 0]
        read = sample_volume(volumes[index], points[mine].flatten(0, 1))
        found = found.index_add(0, mine, read.view(len(mine), -1))
    return found


def query_reference(
    maps: Float[Tensor, "maps x y z hidden"],
    owner: Int[Tensor, " batch"],
    points: Float[Tensor, "batch points 3"],
    weight: Float[Tensor, "out hidden"],
    bias: Float[Tensor, " out"],
) -> Float[Tensor, "batch points out"]:
    """Read map owner[b] at points[b] (trilinear, clamped), then leaky ReLU and a linear layer."""
    where = points.flip(-1)[:, :, None, None]
    with torch.autocast(points.device.type, enabled=False):  # 8 bits of a displacement are too few
        mine = maps.float().permute(0, 4, 1, 2, 3)[owner]
        read = F.grid_sample(mine, where.float(), padding_mode="border", align_corners=True)
        return F.linear(F.leaky_relu(read[..., 0, 0].transpose(1, 2)), weight.float(), bias.float())


def _array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as a C-contiguous numpy array."""
    return tensor.detach().contiguous().numpy()


class _HeadOnCpu(torch.autograd.Function):
    """`query_reference` by the fused CPU kernels."""

    @staticmethod
    def forward(ctx, maps, owner, points, weight, bias):
        maps, points = maps.float().contiguous(), points.float().contiguous()
        out = torch.empty((*points.shape[:2], weight.shape[0]))
        m, o, p, w, b = (_array(t) for t in (maps, owner, points, weight, bias))
        kernels.head_forward(m, o, p, w, b, out.numpy(), kernels.get_threads())
        ctx.save_for_backward(maps, owner, points, weight)
        return out

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        maps, owner, points, weight = ctx.saved_tensors
        threads = kernels.get_threads()
        copies = threads if ctx.needs_input_grad[0] else 0
        grad_maps = torch.zeros((copies, *maps.shape))
        grad_points = torch.empty_like(points)
        grad_weight = torch.zeros((threads, *weight.shape))
        m, o, p, w, g = (_array(t) for t in (maps, owner, points, weight, grad))
        totals = (grad_maps.numpy(), grad_points.numpy(), grad_weight.numpy())
        kernels.head_backward(m, o, p, w, g, *totals, threads)
        total_maps = grad_maps.sum(0) if copies else None
        return total_maps, None, grad_points, grad_weight.sum(0), grad.sum((0, 1))


def query_maps(
    maps: Float[Tensor, "maps x y z hidden"],
    owner: Int[Tensor, " batch"],
    points: Float[Tensor, "batch points 3"],
    weight: Float[Tensor, "out hidden"],
    bias: Float[Tensor, " out"],
) -> Float[Tensor, "batch points out"]:
    """`query_reference`, by the fused kernels where the tensors are on a CPU or a CUDA device."""
    head = _HeadOnCpu if points.device.type == "cpu" else _head_on_cuda()
    if head is None or points.device.type not in ("cpu", "cuda"):
        return query_reference(maps, owner, points, weight, bias)
    return head.apply(maps, owner, points, weight, bias)  # pyright: ignore[reportReturnType]


@functools.cache
def _head_on_cuda() -> type[torch.autograd.Function] | None:
    """None where Triton is not installed: CPU builds of torch come without."""
    if importlib.util.find_spec("triton") is None:
        return None
    from implicit_atlas.geometry.cuda_kernels import HeadOnCuda

    return HeadOnCuda


def interpolate_maps(
    maps: Float[Tensor, "batch x y z k"], points: Float[Tensor, "batch points 3"]
) -> Float[Tensor, "batch points k"]:
    """Trilinear values of maps at their own points; the nearest face's outside the cube."""
    channels = maps.shape[-1]
    # leaky(r) - leaky(-r) = (1 + leak) r: the head of `query_maps` can hand on what it reads.
    ones = torch.eye(channels, device=maps.device) / (1 + kernels.LEAK)
    owner = torch.arange(len(maps), device=maps.device)
    signed, weight = torch.cat([maps, -maps], dim=-1), torch.cat([ones, -ones], dim=1)
    return query_maps(signed, owner, points, weight, torch.zeros(channels, device=maps.device))


def upsample_nested(maps: Float[Tensor, "batch c n n n"], nodes: int) -> Float[Tensor, "batch c k k k"]:
    """Trilinear, corner-aligned upsampling; exact for the interpolant where the node sets nest."""
    if maps.device.type == "cuda":
        return upsample_by_matrices(maps, nodes)
    return F.interpolate(maps, size=(nodes,) * 3, mode="trilinear", align_corners=True)


def upsample_by_matrices(maps: Float[Tensor, "batch c n n n"], nodes: int) -> Float[Tensor, "batch c k k k"]:
    """The same, an axis at a time, as products with the weights of the nodes; channels lie together in memory.

    On a GPU torch's own has a thread for each node of the result, which goes through all shapes and channels in turn,
    and adds its gradients in no fixed order.
    """
    count = maps.shape[-1]
    weights = _between_nodes(count, nodes, maps.device)
    found = maps.permute(0, 2, 3, 4, 1)
    for axis in (3, 2, 1):
        sizes = found.shape
        found = torch.matmul(weights.to(found.dtype), found.reshape(sizes[:axis].numel(), count, -1))
        found = found.view(*sizes[:axis], nodes, *sizes[axis + 1 :])
    return found.permute(0, 4, 1, 2, 3)


@functools.cache
def _between_nodes(count: int, nodes: int, device: torch.device) -> Float[Tensor, "nodes count"]:
    """Weights of `count` corner-aligned nodes at more of them."""
    place = torch.linspace(0, count - 1, nodes, device=device, dtype=torch.float64)
    apart = place[:, None] - torch.arange(count, device=device)
    return (1 - apart.abs()).clamp_min(0).float()


def set_threads(threads: int) -> None:
    """Threads of torch and of the CPU kernels (results are bitwise repeatable for one count)."""
    torch.set_num_threads(threads)
    kernels.set_threads(threads)


def as_numpy(tensor: Tensor) -> np.ndarray:
    """Detached copy on the CPU as a numpy array."""
    return tensor.detach().cpu().numpy()
