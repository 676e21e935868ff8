"""On which side of clicks on a boundary the organ lies: the best cut through the tetrahedra between them.

Clicks without labels do not say which side of them is inside, and a shape that fills the bend of an organ passes
through them, too. Delaunay's tetrahedra of all clicks are told apart into inside and outside, so that facets between
the two are faces that a surface through the clicks has, and that a shape that was found agrees where it can: the
minimum cut of a graph, by which surfaces of scans are made (Labatut, Pons and Keriven, "Robust and efficient surface
reconstruction from range data", Computer Graphics Forum 2009; the quality of facets is theirs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial import Delaunay, KDTree, QhullError

from implicit_atlas.sampling import Observations

Distance = Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, " n"]]

# Chosen on `val` of pancreas and hippocampus (docs/LOG.md, 2026-11-29, later).
SOFT = (
    3 / 64
)  # of half the organ's mean size: how far off its surface may be where a shape is hardly believed
PULL = 3.0  # how much a shape counts beside what facets say
APART = 0.5  # of the distance to the next click: how far from a click its two sides are told
SURE = 0.25  # of that distance: by how much it may be off
MOST = 2048  # clicks
# Clicks along curves leave the normals of facets open, and would spoil shapes between them. Of a click and its nearest
# ones, how wide they are beside how long: 5 % of random clicks have less than 0.4, of clicks on sparse contours 70 %.
NEAREST, WIDE, ENOUGH = 8, 0.4, 0.7
PLACES = 8  # in a tetrahedron, at which a shape is asked
OTHERS = np.array(
    [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
)  # corners of the facet across from each corner
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
        """Raises QhullError where there are none."""
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

    def normals(self) -> Float[np.ndarray, "f 3"]:
        """Of each facet, as long as it is large, out of its first tetrahedron."""
        a, b, c = np.moveaxis(self.mesh.points[self.facets], 1, 0)
        normal = np.cross(b - a, c - a) / 2
        outwards = ((a - self.corners[self.pairs[:, 0]].mean(1)) * normal).sum(1)
        return normal * np.where(outwards < 0, -1, 1)[:, None]

    def roughness(self) -> Float[np.ndarray, " f"]:
        """Of each facet, 0 where the spheres of both tetrahedra touch it at most, up to 2; a surface's have little."""
        normal = self.normals()
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


@dataclass(frozen=True, eq=False)
class Beside:
    """Places at both sides of clicks on a boundary.

    Args:
        points: (n, 3) RAS millimetres.
        distance_mm: (n,) to the boundary, positive inside.
        spread_mm: (n,) by how much that may be off.
    """

    points: Float[np.ndarray, "n 3"]
    distance_mm: Float[np.ndarray, " n"]
    spread_mm: Float[np.ndarray, " n"]

    @classmethod
    def nothing(cls) -> Beside:
        """No places."""
        return cls(np.zeros((0, 3)), np.zeros(0), np.zeros(0))

    def labels_with(self, seen: Observations) -> Observations:
        """What was observed, and these places as inside or outside."""
        count = len(self.points)
        return replace(
            seen,
            points=np.concatenate([seen.points, self.points]),
            occupancy=np.concatenate([seen.occupancy, np.where(self.distance_mm > 0, 1.0, 0.0)]),
            weight=np.concatenate([np.asarray(seen.weight), np.ones(count)]),
            spread=np.concatenate([seen.spreads, np.full(count, np.inf)]),
        )


def beside_clicks(seen: Observations, distance: Distance, size_mm: float) -> Beside:
    """Places at both sides of the clicks on the boundary; fewer where that is not sure, none of clicks along curves.

    Args:
        seen: in RAS millimetres.
        distance: of a shape that was found, in mm from its surface, positive inside.
        size_mm: mean size of the organ.
    """
    clicks = seen.points[seen.occupancy == 0.5]
    if not 4 <= len(clicks) <= MOST:
        return Beside.nothing()
    if _wide(clicks).mean() < ENOUGH:
        return Beside.nothing()
    middle = clicks.mean(0)  # scanners' origins may be far away
    clicks = clicks - middle
    try:
        cells = Cells.between(clicks)
    except QhullError:
        return Beside.nothing()
    inside = _inside(cells, lambda points: distance(points + middle), SOFT * size_mm / 2)
    found = _both_sides(cells, clicks, inside)
    return replace(found, points=found.points + middle)


def _wide(clicks: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Which clicks have others in all directions of a surface, not along a curve alone."""
    _, near = KDTree(clicks).query(clicks, k=min(NEAREST + 1, len(clicks)))
    about = clicks[near] - clicks[near].mean(1, keepdims=True)
    length, width, _ = np.linalg.svd(about, compute_uv=False).T
    return width > WIDE * length


def _inside(cells: Cells, distance: Distance, soft_mm: float) -> Bool[np.ndarray, " k"]:
    """Which tetrahedra the minimum cut leaves inside."""
    mixed = np.random.default_rng(0).dirichlet(np.ones(4), PLACES)
    places = np.einsum("pc,kcd->kpd", mixed, cells.corners)
    said = np.tanh(distance(places.reshape(-1, 3)) / soft_mm).reshape(-1, PLACES).mean(1)
    pull = PULL / soft_mm * cells.volume * said
    pull[cells.outer] = 0
    push = np.maximum(-pull, 0)
    area = np.linalg.norm(cells.normals(), axis=1)
    rough = area * cells.roughness()
    rough[cells.outer[cells.pairs].all(1)] = 0
    push[cells.outer] = max(np.maximum(pull, 0).sum(), 1e-12)  # more than can flow
    return _cut(cells.pairs, rough, np.maximum(pull, 0), push)


def _cut(
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


def _both_sides(cells: Cells, clicks: Float[np.ndarray, "n 3"], inside: Bool[np.ndarray, " k"]) -> Beside:
    """Places beside the clicks along the normals of the cut; those that lie in such tetrahedra."""
    first, second = inside[cells.pairs].T
    outwards = cells.normals() * (first.astype(float) - second)[:, None]
    normal = np.zeros((len(cells.mesh.points), 3))
    for corner in range(3):
        np.add.at(normal, cells.facets[:, corner], outwards)
    normal = normal[: len(clicks)]
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    next_mm = KDTree(clicks).query(clicks, k=2)[0][:, 1]
    step_mm = APART * np.maximum(next_mm, np.median(next_mm))
    found = []
    for within, side in ((True, -1), (False, 1)):
        points = clicks + side * step_mm[:, None] * normal / np.maximum(length, 1e-12)
        right = (inside[cells.mesh.find_simplex(points)] == within) & (length[:, 0] > 0)
        found.append((points[right], -side * step_mm[right], SURE * step_mm[right]))
    return Beside(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
