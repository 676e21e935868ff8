"""Smooth maps from one surface onto another: what is where along a surface, which a shape alone leaves open.

Coherent point drift (Myronenko and Song, "Point set registration", TPAMI 2010): the points of one surface move as a
smooth field says, a Gaussian process, to where those of the other most probably are. What is left to the other
surface is added along its normals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from implicit_atlas.geometry.far_apart import farthest_first
from implicit_atlas.geometry.surface import CubeMesh
from implicit_atlas.support.blas import one_thread

# Lengths are shares of the mean side of the cube; chosen on synthetic organs (docs/LOG.md, 2026-11-29, later).
LENGTH, DEVIATION = 1.0, 0.3  # of the process
POINTS = 400  # of each surface
RANK = 120  # of the process
FIRST, LAST = 0.08, 0.005  # how far apart points that belong together are, at first and at the least
STRAY = 0.02  # share of points that belong to none
STEPS = 40
SNAP_LENGTH, SNAP_NOISE, SNAPS = 0.1, 0.2, 2
SMALL = 1e-4  # share of the largest part of the process, below which one is left out
CHUNK = 1024  # places of which kernels are held at once


@dataclass(frozen=True, eq=False)
class SmoothMap:
    """Cube points moved by sums of Gaussians, one field after the other, in single precision.

    Args:
        scale: (3,) by which cube coordinates have one unit along all axes, the mean of which is 1.
        fields: centres, in that unit, weights and lengths.
    """

    scale: Float[np.ndarray, "3"]
    fields: tuple[tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k 3"], float], ...]

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where cube points go."""
        places = torch.from_numpy(np.asarray(points * self.scale, np.float32))
        out = torch.cat([self._moved(some) for some in places.split(CHUNK)]) if len(places) else places
        return out.numpy().astype(np.float64) / self.scale

    def _moved(self, places: torch.Tensor) -> torch.Tensor:
        for centres, weights, length in self.fields:
            apart = torch.cdist(places, torch.from_numpy(centres).float())
            kernel = torch.exp_(apart.square_().mul_(-1 / (2 * length**2)))
            places = places + kernel @ torch.from_numpy(weights).float()
        return places


@one_thread
def align(moving: Float[np.ndarray, "n 3"], fixed: CubeMesh, scale: Float[np.ndarray, "3"]) -> SmoothMap:
    """The smooth map of a surface onto another.

    Args:
        moving: points of a surface, in cube coordinates.
        fixed: the other one.
        scale: sizes of the cube along its axes, in any unit.
    """
    scale = np.asarray(scale, np.float64) / np.mean(scale)
    own, target = moving * scale, fixed.vertices * scale
    own, kept = own[farthest_first(own, POINTS, 0)], farthest_first(target, POINTS, 0)
    drift = _drift(own, target[kept])
    tree, normals = KDTree(target), _normals(target, fixed.faces)
    found = SmoothMap(scale, (drift,))
    for _ in range(SNAPS):
        places = found(own / scale) * scale
        nearest = tree.query(places)[1]
        normal = normals[nearest]
        left = ((target[nearest] - places) * normal).sum(1, keepdims=True) * normal
        length = 2 * SNAP_LENGTH
        kernel = np.exp(-cdist(places, places, "sqeuclidean") / (2 * length**2))
        weights = np.linalg.solve(kernel + SNAP_NOISE * np.eye(len(places)), left)
        found = SmoothMap(scale, (*found.fields, (places, weights, length)))
    return found


def _drift(
    own: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "m 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], float]:
    """Coherent point drift: centres, weights and length of the field that moves `own` to `target`."""
    length, deviation = 2 * LENGTH, 2 * DEVIATION
    kernel = np.exp(-cdist(own, own, "sqeuclidean") / (2 * length**2))
    values, vectors = np.linalg.eigh(kernel)
    kept = np.flatnonzero(values > SMALL * values[-1])[-RANK:]
    values, vectors = values[kept], vectors[:, kept]
    basis = deviation * vectors * np.sqrt(values)
    variance, box = (2 * FIRST) ** 2, np.prod(np.ptp(target, axis=0))
    places, amounts = own, np.zeros((basis.shape[1], 3))
    for _ in range(STEPS):
        share = np.exp(-cdist(places, target, "sqeuclidean") / (2 * variance))
        none = STRAY / (1 - STRAY) * len(own) * (2 * np.pi * variance) ** 1.5 / box
        share /= share.sum(0) + none
        weight = share.sum(1)
        matrix = basis.T @ (weight[:, None] * basis) + variance * np.eye(basis.shape[1])
        amounts = np.linalg.solve(matrix, basis.T @ (share @ target - weight[:, None] * own))
        places = own + basis @ amounts
        left = (share * cdist(places, target, "sqeuclidean")).sum() / (3 * share.sum())
        variance = max(float(left), (2 * LAST) ** 2)
    return own, deviation * (vectors / np.sqrt(values)) @ amounts, length


def _normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Unit normals of vertices, means of those of their faces by area."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    total = np.zeros_like(vertices)
    for corner in faces.T:
        np.add.at(total, corner, np.cross(b - a, c - a))
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
