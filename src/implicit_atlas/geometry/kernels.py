"""CPU kernels: trilinear reading of feature maps with a two-layer head, warping, and distances.

The first compute what `grid.query_reference` computes with `grid_sample` and a linear layer, about ten times
faster on CPU: channels lie together in memory, nothing per point and channel is stored, and the backward
pass writes to one private gradient buffer a thread instead of using atomics. Results are deterministic for
a given number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import config, get_num_threads, njit, prange, set_num_threads

LEAK = 0.01  # slope of the leaky ReLU for negative arguments (torch's default)
FAST = {
    "reassoc",
    "contract",
    "nsz",
}  # what vectorised sums need; NaN keeps its meaning, so that it comes out
# Where sums may be reordered, numba's freshly compiled code and what it keeps of it can differ in the last bit.
# The backward kernel's do not (tested); the forward kernel keeps the order of its sums.
IN_ORDER = FAST - {"reassoc"}


def _one() -> int:
    return 1


def _can_cache() -> bool:
    """False where numba finds no folder to keep compiled code in: each process then compiles anew, in some seconds."""
    try:
        njit(cache=True)(_one)
    except RuntimeError:
        return False
    return True


CACHED = _can_cache()


@njit(fastmath=FAST)
def _cell(u, nodes):
    """Cell index and fraction of a coordinate u in [-1, 1] on `nodes` corner-aligned nodes (clamped).

    Where u is NaN the fraction is NaN and the index is still one of a cell.
    """
    last = np.float32(nodes - 1)
    t = (u + np.float32(1)) * last * np.float32(0.5)
    if t < 0:
        t = np.float32(0)
    elif t > last:
        t = last
    cell = max(0, min(int(t), nodes - 2))
    return cell, t - np.float32(cell)


@njit(fastmath=FAST)
def _inside(u):
    """1 inside the cube and 0 outside, where reading is clamped and so does not depend on the coordinate."""
    return np.float32(1) if abs(u) <= np.float32(1) else np.float32(0)


@njit(parallel=True, fastmath=IN_ORDER, cache=CACHED)
def head_forward(maps, owner, points, weight, bias, out, threads):  # noqa: PLR0913
    """out[b, p] = weight · leaky(interpolate(maps[owner[b]], points[b, p])) + bias.

    Shapes: maps (m, n, n, n, c), owner (b,) int64, points (b, p, 3), weight (o, c), bias (o,), out (b, p, o).
    """
    leak = np.float32(LEAK)
    shapes, count, outputs = out.shape
    nodes, channels = maps.shape[1], maps.shape[4]
    for worker in prange(threads):
        hidden = np.empty(channels, np.float32)
        for job in range(worker * shapes * count // threads, (worker + 1) * shapes * count // threads):
            b = job // count
            p = job - b * count
            m = maps[owner[b]]
            i, fx = _cell(points[b, p, 0], nodes)
            j, fy = _cell(points[b, p, 1], nodes)
            k, fz = _cell(points[b, p, 2], nodes)
            gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
            w0, w1, w2, w3 = gx * gy * gz, gx * gy * fz, gx * fy * gz, gx * fy * fz
            w4, w5, w6, w7 = fx * gy * gz, fx * gy * fz, fx * fy * gz, fx * fy * fz
            a0, a1, a2, a3 = m[i, j, k], m[i, j, k + 1], m[i, j + 1, k], m[i, j + 1, k + 1]
            a4, a5, a6, a7 = m[i + 1, j, k], m[i + 1, j, k + 1], m[i + 1, j + 1, k], m[i + 1, j + 1, k + 1]
            for c in range(channels):
                v = w0 * a0[c] + w1 * a1[c] + w2 * a2[c] + w3 * a3[c]
                v += w4 * a4[c] + w5 * a5[c] + w6 * a6[c] + w7 * a7[c]
                hidden[c] = v if v > 0 else v * leak
            for o in range(outputs):
                total = bias[o]
                row = weight[o]
                for c in range(channels):
                    total += row[c] * hidden[c]
                out[b, p, o] = total


@njit(parallel=True, fastmath=FAST, cache=CACHED)
def head_backward(maps, owner, points, weight, grad, grad_maps, grad_points, grad_weight, threads):  # noqa: C901, PLR0913
    """Gradients of `head_forward`; hidden values are computed again rather than stored.

    Shapes: as there; grad (b, p, o); grad_maps (threads, m, n, n, n, c) or (0, ...) where it is not wanted;
    grad_points (b, p, 3); grad_weight (threads, o, c). Buffers of one thread are summed by the caller.
    """
    leak = np.float32(LEAK)
    shapes, count, outputs = grad.shape
    nodes, channels = maps.shape[1], maps.shape[4]
    want_maps = grad_maps.shape[0] > 0
    half = np.float32(nodes - 1) * np.float32(0.5)
    for worker in prange(threads):
        delta = np.empty(channels, np.float32)
        hidden = np.empty(channels, np.float32)
        mine = grad_weight[worker]
        for job in range(worker * shapes * count // threads, (worker + 1) * shapes * count // threads):
            b = job // count
            p = job - b * count
            m = maps[owner[b]]
            i, fx = _cell(points[b, p, 0], nodes)
            j, fy = _cell(points[b, p, 1], nodes)
            k, fz = _cell(points[b, p, 2], nodes)
            gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
            w0, w1, w2, w3 = gx * gy * gz, gx * gy * fz, gx * fy * gz, gx * fy * fz
            w4, w5, w6, w7 = fx * gy * gz, fx * gy * fz, fx * fy * gz, fx * fy * fz
            a0, a1, a2, a3 = m[i, j, k], m[i, j, k + 1], m[i, j + 1, k], m[i, j + 1, k + 1]
            a4, a5, a6, a7 = m[i + 1, j, k], m[i + 1, j, k + 1], m[i + 1, j + 1, k], m[i + 1, j + 1, k + 1]
            for c in range(channels):
                delta[c] = np.float32(0)
            for o in range(outputs):
                g = grad[b, p, o]
                row = weight[o]
                for c in range(channels):
                    delta[c] += g * row[c]
            for c in range(channels):
                v = w0 * a0[c] + w1 * a1[c] + w2 * a2[c] + w3 * a3[c]
                v += w4 * a4[c] + w5 * a5[c] + w6 * a6[c] + w7 * a7[c]
                slope = np.float32(1) if v > 0 else leak
                delta[c] *= slope
                hidden[c] = v * slope
            for o in range(outputs):
                g = grad[b, p, o]
                row = mine[o]
                for c in range(channels):
                    row[c] += g * hidden[c]
            d0 = d1 = d2 = d3 = d4 = d5 = d6 = d7 = np.float32(0)
            for c in range(channels):
                d = delta[c]
                d0 += a0[c] * d
                d1 += a1[c] * d
                d2 += a2[c] * d
                d3 += a3[c] * d
                d4 += a4[c] * d
                d5 += a5[c] * d
                d6 += a6[c] * d
                d7 += a7[c] * d
            grad_points[b, p, 0] = (
                _inside(points[b, p, 0])
                * half
                * (gy * gz * (d4 - d0) + gy * fz * (d5 - d1) + fy * gz * (d6 - d2) + fy * fz * (d7 - d3))
            )
            grad_points[b, p, 1] = (
                _inside(points[b, p, 1])
                * half
                * (gx * gz * (d2 - d0) + gx * fz * (d3 - d1) + fx * gz * (d6 - d4) + fx * fz * (d7 - d5))
            )
            grad_points[b, p, 2] = (
                _inside(points[b, p, 2])
                * half
                * (gx * gy * (d1 - d0) + gx * fy * (d3 - d2) + fx * gy * (d5 - d4) + fx * fy * (d7 - d6))
            )
            if want_maps:
                target = grad_maps[worker, owner[b]]
                r0, r1, r2, r3 = (
                    target[i, j, k],
                    target[i, j, k + 1],
                    target[i, j + 1, k],
                    target[i, j + 1, k + 1],
                )
                r4, r5, r6, r7 = (
                    target[i + 1, j, k],
                    target[i + 1, j, k + 1],
                    target[i + 1, j + 1, k],
                    target[i + 1, j + 1, k + 1],
                )
                for c in range(channels):
                    d = delta[c]
                    r0[c] += w0 * d
                    r1[c] += w1 * d
                    r2[c] += w2 * d
                    r3[c] += w3 * d
                    r4[c] += w4 * d
                    r5[c] += w5 * d
                    r6[c] += w6 * d
                    r7[c] += w7 * d


@njit
def _nodes_of(axis, nodes):
    """Cells and fractions of many coordinates, see `_cell`."""
    cells, parts = np.empty(len(axis), np.int64), np.empty(len(axis), np.float32)
    for i in range(len(axis)):
        cells[i], parts[i] = _cell(axis[i], nodes)
    return cells, parts


@njit
def _half_full(padded, u, v, w):
    """True where the trilinear value of a padded 0/1 volume at padded voxel coordinates exceeds 1/2."""
    p, q, r = int(u), int(v), int(w)
    near = padded[p : p + 2, q : q + 2, r : r + 2]
    a0, a1, a2, a3 = near[0, 0, 0], near[0, 0, 1], near[0, 1, 0], near[0, 1, 1]
    a4, a5, a6, a7 = near[1, 0, 0], near[1, 0, 1], near[1, 1, 0], near[1, 1, 1]
    count = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7
    if count in (0, 8):  # most of a volume
        return count == 8
    fu, fv, fw = u - np.float32(p), v - np.float32(q), w - np.float32(r)
    gu, gv, gw = np.float32(1) - fu, np.float32(1) - fv, np.float32(1) - fw
    low = gv * (gw * a0 + fw * a1) + fv * (gw * a2 + fw * a3)
    high = gv * (gw * a4 + fw * a5) + fv * (gw * a6 + fw * a7)
    return gu * low + fu * high > np.float32(0.5)


@njit(cache=CACHED)
def warp_occupancy(padded, lattice, reach, matrix, axes, out):
    """out[i, j, k]: is the point matrix · x + lattice(x / reach) inside, x = (axes[i, 0], axes[j, 1], axes[k, 2])?

    Shapes: padded (r + 2, r + 2, r + 2) uint8, the occupancy with a border of zeros; lattice (n, n, n, 3), read
    trilinearly on corner-aligned nodes; matrix (3, 3); axes (o, 3); out (o, o, o) bool.
    """
    one, half = np.float32(1), np.float32(0.5)
    side = np.float32(padded.shape[0] - 2)
    nodes, count = lattice.shape[0], axes.shape[0]
    ci, fi = _nodes_of(axes[:, 0] / reach, nodes)
    cj, fj = _nodes_of(axes[:, 1] / reach, nodes)
    ck, fk = _nodes_of(axes[:, 2] / reach, nodes)
    row = np.empty((nodes, 3), np.float32)
    for i in range(count):
        a, x = ci[i], axes[i, 0]
        for j in range(count):
            b, y = cj[j], axes[j, 1]
            # The lattice between four of its columns, then along the column.
            for n in range(nodes):
                for e in range(3):
                    low = (one - fj[j]) * lattice[a, b, n, e] + fj[j] * lattice[a, b + 1, n, e]
                    high = (one - fj[j]) * lattice[a + 1, b, n, e] + fj[j] * lattice[a + 1, b + 1, n, e]
                    row[n, e] = (one - fi[i]) * low + fi[i] * high
            for k in range(count):
                c, f, z = ck[k], fk[k], axes[k, 2]
                g = one - f
                u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + g * row[c, 0] + f * row[c + 1, 0]
                v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + g * row[c, 1] + f * row[c + 1, 1]
                w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + g * row[c, 2] + f * row[c + 1, 2]
                # From the cube to voxels: centres at whole numbers, the border of zeros at 0.
                u = (u + one) * half * side + half
                v = (v + one) * half * side + half
                w = (w + one) * half * side + half
                out[i, j, k] = (
                    0 <= u < side + one
                    and 0 <= v < side + one
                    and 0 <= w < side + one
                    and _half_full(padded, u, v, w)
                )


@njit(parallel=True, cache=CACHED)
def nearest_along(squares, nearest, count, stride, apart):
    """A distance transform along one axis, in place: the least of squares and squared distances on each line.

    It is the lower envelope of the parabolas about the voxels of a line (Felzenszwalb and Huttenlocher, 2012).

    Args:
        squares: (n,) squared distances so far, infinite where there is none.
        nearest: (n,) what they are distances to.
        count: voxels of a line.
        stride: from one of them to the next in the flat arrays.
        apart: the distance between them.
    """
    lines = squares.size // count
    for line in prange(lines):
        first = line // stride * stride * count + line % stride
        low = np.empty(count, np.int64)  # voxels whose parabolas are lowest somewhere, in their order
        ends = np.empty(count, np.float64)  # where each begins to be
        value = np.empty(count, np.float64)
        which = np.empty(count, np.int64)
        kept = 0
        for i in range(count):
            value[i] = squares[first + i * stride]
            which[i] = nearest[first + i * stride]
            if value[i] == np.inf:
                continue
            begin = -np.inf
            while kept:
                j = low[kept - 1]
                begin = (i + j) / 2 + (value[i] - value[j]) / (2 * apart * apart * (i - j))
                if begin > ends[kept - 1]:
                    break
                kept -= 1
                begin = -np.inf
            low[kept], ends[kept] = i, begin
            kept += 1
        at = 0
        for i in range(count if kept else 0):
            while at + 1 < kept and ends[at + 1] < i:
                at += 1
            j = low[at]
            squares[first + i * stride] = value[j] + ((i - j) * apart) ** 2
            nearest[first + i * stride] = which[j]


def get_threads() -> int:
    """Number of threads of the kernels."""
    return get_num_threads()


def set_threads(threads: int) -> None:
    """Set the number of threads of the kernels, at most what the machine has."""
    most: int = config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
    set_num_threads(max(1, min(threads, most)))
