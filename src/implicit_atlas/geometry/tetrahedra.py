"""Delaunay's tetrahedra between points, and the cheapest cut that tells them apart into inside and outside.

Surfaces of scans are made so (Labatut, Pons and Keriven, "Robust and efficient surface reconstruction from range data",
Computer Graphics Forum 2009; the quality of facets is theirs).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial import Delaunay, KDTree

# Corners of the facet across from each corner.
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
CAPACITY = 1e8  # of the widest edge: capacities are whole numbers


@dataclass(frozen=True, eq=False)
class Cells:
    """Tetrahedra between points and a wide box around them.

    Args:
        mesh: of Delaunay.
        corners: (k, 4, 3) in mm.
        volume: (k,) in mm³.
        outer: (k,) those that reach the wide box.
        pairs: (f, 2) the two tetrahedra of each facet.
        facets: (f, 3) its points.
    """

    mesh: Delaunay
    corners: Float[np.ndarray, "k 4 3"]
    volume: Float[np.ndarray, " k"]
    outer: Bool[np.ndarray, " k"]
    pairs: Int[np.ndarray, "f 2"]
    facets: Int[np.ndarray, "f 3"]

    @classmethod
    def between(cls, points: Float[np.ndarray, "n 3"]) -> Cells:
        """Raises QhullError where there are none; all points must differ."""
        low, high = points.min(0), points.max(0)
        away = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(-1, 3)
        box = (low + high) / 2 + 1.5 * np.linalg.norm(high - low) * away
        mesh = Delaunay(np.concatenate([points, box]))
        corners = mesh.points[mesh.simplices]
        volume = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6
        cell, corner = np.nonzero(mesh.neighbors > np.arange(len(corners))[:, None])
        pairs = np.stack([cell, mesh.neighbors[cell, corner]], axis=1)
        facets = mesh.simplices[cell[:, None], OTHERS[corner]]
        outer = np.asarray((mesh.simplices >= len(points)).any(1))
        return cls(mesh, corners, volume, outer, pairs, facets)

    @cached_property
    def spacing_mm(self) -> float:
        """Median distance of a point from the next one."""
        points = self.mesh.points[:-8]
        return float(np.median(KDTree(points).query(points, k=2)[0][:, 1]))

    @cached_property
    def bareness(self) -> Float[np.ndarray, " f"]:
        """How far the middle of each facet is from its points, in spacings."""
        points = self.mesh.points[self.facets]
        away = np.linalg.norm(points - points.mean(1, keepdims=True), axis=2).min(1)
        return away / self.spacing_mm

    @cached_property
    def normals(self) -> Float[np.ndarray, "f 3"]:
        """Of each facet, as long as it is large, out of its first tetrahedron."""
        a, b, c = np.moveaxis(self.mesh.points[self.facets], 1, 0)
        normal = np.cross(b - a, c - a) / 2
        outwards = ((a - self.corners[self.pairs[:, 0]].mean(1)) * normal).sum(1)
        return normal * np.where(outwards < 0, -1, 1)[:, None]

    def roughness(self) -> Float[np.ndarray, " f"]:
        """Of each facet, 0 where the spheres of both tetrahedra touch it at most, up to 2; a surface's have little."""
        normal = self.normals
        unit = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        centre, radius = _spheres(self.corners)
        on_facet = self.mesh.points[self.facets[:, 0]]
        cosines = [
            side * ((on_facet - centre[cell]) * unit).sum(1) / radius[cell]
            for cell, side in ((self.pairs[:, 0], 1), (self.pairs[:, 1], -1))
        ]
        return 1 - np.min(cosines, axis=0).clip(-1, 1)


def _spheres(
    corners: Float[np.ndarray, "k 4 3"],
) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, " k"]]:
    """Centres and radii of the spheres through all corners; of flat tetrahedra, of ones about their middle."""
    edges = corners[:, 1:] - corners[:, :1]
    flat = np.abs(np.linalg.det(edges)) < 1e-9 * np.linalg.norm(edges, axis=2).prod(1)
    solvable = np.where(flat[:, None, None], np.eye(3), edges)
    offset = np.linalg.solve(solvable, (edges**2).sum(2)[..., None] / 2)[..., 0]
    centre = np.where(flat[:, None], corners.mean(1), corners[:, 0] + offset)
    return centre, np.maximum(np.linalg.norm(centre - corners[:, 0], axis=1), 1e-12)


def cut(
    pairs: Int[np.ndarray, "f 2"],
    between: Float[np.ndarray, " f"],
    pull: Float[np.ndarray, " k"],
    push: Float[np.ndarray, " k"],
) -> Bool[np.ndarray, " k"]:
    """Which nodes are on the source's side of a minimum cut; it costs what it severs.

    Args:
        pairs: nodes with an edge between them.
        between: what that edge costs.
        pull: what it costs that a node is not on the source's side.
        push: that it is.
    """
    count = len(pull)
    source, sink, nodes = count, count + 1, np.arange(count)
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    rows = np.concatenate([ends[:, 0], np.full(count, source), nodes])
    columns = np.concatenate([ends[:, 1], nodes, np.full(count, sink)])
    costs = np.concatenate([between, between, pull, push])
    whole = np.rint(costs * (CAPACITY / max(costs.max(), 1e-12))).astype(np.int32)
    graph = coo_array((whole, (rows, columns)), shape=(count + 2, count + 2)).tocsr()
    left = graph - maximum_flow(graph, source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    inside = np.zeros(count + 2, bool)
    inside[reached] = True
    return inside[:count]
