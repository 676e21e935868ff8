"""GPU kernels: what `kernels` does on a CPU, for tensors on a CUDA device.

A program reads the maps for a block of points: the channels of a node lie together, so that each of a cell's corners is
one read of a whole line of memory, and nothing per point and channel is stored. `grid.query_reference` writes these
values out, several hundred bytes a point. Gradients of maps are added up by atomic operations, in no fixed order.

Compiled by Triton, which comes with CUDA builds of torch.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from implicit_atlas.geometry.kernels import LEAK

BLOCK = 64  # points of a program


@triton.jit
def _cell(u, nodes):
    """Cell and fraction of coordinates in [-1, 1] on corner-aligned nodes, clamped; NaN gives a NaN fraction."""
    last = (nodes - 1).to(tl.float32)
    at = (u + 1) * last * 0.5
    at = tl.where(at < 0, 0.0, at)
    at = tl.where(at > last, last, at)
    cell = at.to(tl.int32)
    cell = tl.minimum(tl.maximum(cell, 0), nodes - 2)
    return cell, at - cell.to(tl.float32)


@triton.jit
def _share(fraction, far):
    """Weight of the near (0) or far (1) end of a cell."""
    return far * fraction + (1 - far) * (1 - fraction)


@triton.jit
def _interpolated(  # noqa: PLR0913
    maps, base, i, j, k, fx, fy, fz, nodes, channel, both,
    C: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Trilinear values of all channels at a block of points."""
    value = tl.zeros((BLOCK, PADDED), tl.float32)
    for corner in tl.static_range(8):
        dx, dy, dz = corner // 4, corner // 2 % 2, corner % 2
        share = _share(fx, dx) * _share(fy, dy) * _share(fz, dz)
        node = base + ((i + dx) * nodes + j + dy) * nodes + k + dz
        read = tl.load(maps + node[:, None] * C + channel[None, :], mask=both, other=0.0)
        value += share[:, None] * read
    return value


@triton.jit
def _forward(  # noqa: PLR0913
    maps, owner, points, weight, bias, out, count, nodes,
    C: tl.constexpr, PADDED: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr, LEAK: tl.constexpr,
):  # fmt: skip
    shape = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = p < count
    row = shape * count + p
    i, fx = _cell(tl.load(points + row * 3, mask=real, other=0.0), nodes)
    j, fy = _cell(tl.load(points + row * 3 + 1, mask=real, other=0.0), nodes)
    k, fz = _cell(tl.load(points + row * 3 + 2, mask=real, other=0.0), nodes)
    base = tl.load(owner + shape) * nodes * nodes * nodes
    channel = tl.arange(0, PADDED)
    used = channel < C
    both = real[:, None] & used[None, :]
    value = _interpolated(maps, base, i, j, k, fx, fy, fz, nodes, channel, both, C, PADDED, BLOCK)
    value = tl.where(value > 0, value, value * LEAK)
    for o in tl.static_range(OUTPUTS):
        head = tl.load(weight + o * C + channel, mask=used, other=0.0)
        total = tl.sum(value * head[None, :], 1) + tl.load(bias + o)
        tl.store(out + row * OUTPUTS + o, total, mask=real)


@triton.jit
def _backward(  # noqa: PLR0913
    maps, owner, points, weight, grad, grad_maps, grad_points, grad_weight, count, nodes,
    C: tl.constexpr, PADDED: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr, LEAK: tl.constexpr,
    WANT_MAPS: tl.constexpr,
):  # fmt: skip
    shape = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = p < count
    row = shape * count + p
    x = tl.load(points + row * 3, mask=real, other=0.0)
    y = tl.load(points + row * 3 + 1, mask=real, other=0.0)
    z = tl.load(points + row * 3 + 2, mask=real, other=0.0)
    i, fx = _cell(x, nodes)
    j, fy = _cell(y, nodes)
    k, fz = _cell(z, nodes)
    base = tl.load(owner + shape) * nodes * nodes * nodes
    channel = tl.arange(0, PADDED)
    used = channel < C
    both = real[:, None] & used[None, :]
    value = _interpolated(maps, base, i, j, k, fx, fy, fz, nodes, channel, both, C, PADDED, BLOCK)
    slope = tl.where(value > 0, 1.0, LEAK)
    hidden = value * slope
    delta = tl.zeros((BLOCK, PADDED), tl.float32)
    program = shape * tl.num_programs(0) + tl.program_id(0)
    for o in tl.static_range(OUTPUTS):
        head = tl.load(weight + o * C + channel, mask=used, other=0.0)
        g = tl.load(grad + row * OUTPUTS + o, mask=real, other=0.0)
        delta += g[:, None] * head[None, :]
        tl.store(
            grad_weight + (program * OUTPUTS + o) * C + channel, tl.sum(g[:, None] * hidden, 0), mask=used
        )
    delta *= slope
    gx = tl.zeros((BLOCK,), tl.float32)
    gy = tl.zeros((BLOCK,), tl.float32)
    gz = tl.zeros((BLOCK,), tl.float32)
    for corner in tl.static_range(8):
        dx, dy, dz = corner // 4, corner // 2 % 2, corner % 2
        sx, sy, sz = _share(fx, dx), _share(fy, dy), _share(fz, dz)
        node = base + ((i + dx) * nodes + j + dy) * nodes + k + dz
        at = node[:, None] * C + channel[None, :]
        along = tl.sum(tl.load(maps + at, mask=both, other=0.0) * delta, 1)
        gx += along * sy * sz * (2 * dx - 1)
        gy += along * sx * sz * (2 * dy - 1)
        gz += along * sx * sy * (2 * dz - 1)
        if WANT_MAPS:
            tl.atomic_add(grad_maps + at, (sx * sy * sz)[:, None] * delta, mask=both, sem="relaxed")
    half = (nodes - 1).to(tl.float32) * 0.5  # where reading is clamped, it does not depend on the coordinate
    tl.store(grad_points + row * 3, tl.where(tl.abs(x) <= 1, gx * half, 0.0), mask=real)
    tl.store(grad_points + row * 3 + 1, tl.where(tl.abs(y) <= 1, gy * half, 0.0), mask=real)
    tl.store(grad_points + row * 3 + 2, tl.where(tl.abs(z) <= 1, gz * half, 0.0), mask=real)


class HeadOnCuda(torch.autograd.Function):
    """`grid.query_reference` by the kernels above, in single precision."""

    @staticmethod
    def forward(ctx, maps: Tensor, owner: Tensor, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: D102
        maps, points = maps.float().contiguous(), points.float().contiguous()
        weight, bias = weight.float().contiguous(), bias.float().contiguous()
        out = points.new_empty((*points.shape[:2], len(weight)))
        grid, sizes = _launch(maps, points, weight)
        if out.numel():
            _forward[grid](maps, owner, points, weight, bias, out, points.shape[1], maps.shape[1], **sizes)
        ctx.save_for_backward(maps, owner, points, weight)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # noqa: D102  # pyright: ignore[reportIncompatibleMethodOverride]
        maps, owner, points, weight = ctx.saved_tensors
        grad = grad.float().contiguous()
        grid, sizes = _launch(maps, points, weight)
        want_maps: bool = ctx.needs_input_grad[0]
        grad_maps = torch.zeros_like(maps) if want_maps else maps.new_empty(1)
        grad_points = torch.zeros_like(points)
        grad_weight = weight.new_zeros((grid[0] * grid[1], *weight.shape))
        if grad.numel():
            _backward[grid](
                maps, owner, points, weight, grad, grad_maps, grad_points, grad_weight,
                points.shape[1], maps.shape[1], WANT_MAPS=want_maps, **sizes,
            )  # fmt: skip
        return grad_maps if want_maps else None, None, grad_points, grad_weight.sum(0), grad.sum((0, 1))


def _launch(maps: Tensor, points: Tensor, weight: Tensor) -> tuple[tuple[int, int], dict[str, int | float]]:
    """Programs, and what kernels are compiled for."""
    outputs, channels = weight.shape
    grid = (triton.cdiv(points.shape[1], BLOCK), points.shape[0])
    padded = max(8, triton.next_power_of_2(channels))
    return grid, {"C": channels, "PADDED": padded, "OUTPUTS": outputs, "BLOCK": BLOCK, "LEAK": LEAK}
