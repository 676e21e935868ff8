"""On which side of clicks on a boundary the organ lies: the best cut through the tetrahedra between them.

Clicks without labels do not say which side of them is inside, and a shape that fills the bend of an organ passes
through them, too, or one that bulges out of it. Delaunay's tetrahedra of all clicks are told apart into inside and
outside, so that facets between the two are faces that a surface through the clicks has, without gaps that the clicks
have not, and that a shape that was found agrees where it can: a minimum cut (`implicit_atlas.geometry.tetrahedra`).
It tells places at both sides of the clicks and, where they leave no gap, places far off them at which the shape is
wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import label
from scipy.spatial import KDTree, QhullError

from implicit_atlas.geometry.tetrahedra import Cells, cut
from implicit_atlas.io import Mesh
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.support.blas import one_thread

Distance = Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, " n"]]

# Chosen on `val` of pancreas and hippocampus (docs/LOG.md, 2026-11-29). A shape is hardly believed where its surface is
# nearer than this, of half the organ's mean size.
SOFT = 3 / 64
GROSS = 1.5 / 64  # how far on the wrong side a place is contradicted, likewise
# Share of places beside clicks on the boundary that are grossly on a shape's wrong side: hippocampi and pancreases of
# `val` 0 to 3 %, one pancreas that was wrongly found 5 to 10 %.
TRUSTED = 0.035
FAR_AWAY = 4.0  # spacings of the clicks from them, where a surface has none
PULL = 3.0  # how much a shape counts beside what facets say
PLACES = 8  # in a tetrahedron, at which a shape is asked
APART = 0.5  # of the distance to the next click: how far from a click its two sides are told
SURE = 0.25  # of that distance: by how much it may be off
MOST = 2048  # clicks; masks have more points, which shapes follow, and what was drawn stays as it is
# Clicks along curves leave the normals of facets open, and would spoil shapes between them. Of a click and its nearest
# ones, how wide they are beside how long: 5 % of random clicks have less than 0.4, of clicks on sparse contours 70 %.
NEAREST, WIDE, ENOUGH = 8, 0.4, 0.7
# In spacings of the clicks, from where facets between them cost more, and which no surface has.
BARE, TRULY_BARE = 1.5, 3.0
# Share of such facets where a cut closes an organ of which an end was not clicked, from which on it is no boundary: of
# all that a shape adds there, or of all of the cut. Of clicks on whole organs of `val` 0 to 2 % of the cut.
OPEN, ALL_OPEN = 0.15, 0.1
# Where a shape is wrong far off the clicks: how far, in their spacings; how far around them it is looked at, of their
# extent, at how many places an axis; how far apart such places are, of their distance from the clicks; how many.
FAR_OFF, AROUND, ACROSS, SPARSE, MOST_FAR_OFF = 3.5, 0.5, 48, 0.3, 256


@dataclass(frozen=True, eq=False)
class Beside:
    """Places at both sides of clicks on a boundary, and far off them where a shape is wrong.

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

    def turned(self, distance: Distance, size_mm: float) -> float:
        """Share of them that a shape has grossly on the wrong side."""
        if not len(self.points):
            return 0.0
        wrong_mm = -np.sign(self.distance_mm) * distance(self.points)
        return float((wrong_mm > GROSS * size_mm / 2).mean())

    def labels_with(self, seen: Observations) -> Observations:
        """What was observed, and these places as inside or outside."""
        count = len(self.points)
        return replace(
            seen,
            points=np.concatenate([seen.points, self.points]),
            occupancy=np.concatenate([seen.occupancy, np.where(self.distance_mm > 0, 1.0, 0.0)]),
            weight=np.concatenate([np.asarray(seen.weight), np.ones(count)]),
            spread=np.concatenate([seen.spreads, np.full(count, np.inf)]),
            guides=count,
        )


@one_thread
def beside_clicks(
    seen: Observations, distance: Distance, size_mm: float, contradicted: bool = False
) -> Beside:
    """Places at both sides of the clicks on the boundary; fewer where that is not sure, none of clicks along curves.

    Of a shape that is wrong beside many of them there are those, too, far off the clicks at which it is, where they
    leave no gap: of one that is right the clicks may have left out an end, and it knows that.

    Args:
        seen: in RAS millimetres.
        distance: of a shape that was found, in mm from its surface, positive inside.
        size_mm: mean size of the organ.
        contradicted: whether an earlier shape was wrong beside many of them.
    """
    given = seen.points[seen.occupancy == 0.5]
    clicks = np.unique(given, axis=0)
    if len(clicks) < 4 or len(given) > MOST or _wide(clicks).mean() < ENOUGH:
        return Beside.nothing()
    middle = clicks.mean(0)  # scanners' origins may be far away
    clicks = clicks - middle
    try:
        cells = Cells.between(clicks)
    except QhullError:
        return Beside.nothing()

    def there(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        return distance(points + middle)

    inside = _inside(cells, there, SOFT * size_mm / 2)
    parts = [*_both_sides(cells, clicks, inside)]
    beside = Beside(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    if contradicted or beside.turned(there, size_mm) > TRUSTED:
        parts.append(_far_off(cells, clicks, inside, there))
    points, distance_mm, spread_mm = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Beside(points + middle, distance_mm, spread_mm)


def bare_share(seen: Observations, surface: Mesh) -> tuple[float, float]:
    """Share of a surface in RAS mm that is far from all clicks on the boundary, and from how many mm on.

    That is four times as far as half of them are from the next one. Of clicks along curves the share is 0.
    """
    clicks = np.unique(seen.points[seen.occupancy == 0.5], axis=0)
    if len(clicks) < 4 or _wide(clicks).mean() < ENOUGH:
        return 0.0, float("inf")
    near = KDTree(clicks)
    far_mm = FAR_AWAY * float(np.median(near.query(clicks, k=2)[0][:, 1]))
    corners = surface.vertices[surface.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return float(area[near.query(corners.mean(1))[0] > far_mm].sum() / area.sum()), far_mm


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
    area = np.linalg.norm(cells.normals, axis=1)
    rough = area * cells.roughness() * np.maximum(cells.bareness / BARE, 1) ** 2
    rough[cells.outer[cells.pairs].all(1)] = 0
    push[cells.outer] = max(np.maximum(pull, 0).sum(), 1e-12)  # more than can flow
    return cut(cells.pairs, rough, np.maximum(pull, 0), push)


Places = tuple[Float[np.ndarray, "p 3"], Float[np.ndarray, " p"], Float[np.ndarray, " p"]]


def _both_sides(
    cells: Cells, clicks: Float[np.ndarray, "n 3"], inside: Bool[np.ndarray, " k"]
) -> Iterator[Places]:
    """Places beside the clicks along the normals of the cut; those that lie in such tetrahedra."""
    first, second = inside[cells.pairs].T
    outwards = cells.normals * (first.astype(float) - second)[:, None]
    normal = np.zeros((len(cells.mesh.points), 3))
    for corner in range(3):
        np.add.at(normal, cells.facets[:, corner], outwards)
    normal = normal[: len(clicks)]
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    next_mm = KDTree(clicks).query(clicks, k=2)[0][:, 1]
    step_mm = APART * np.maximum(next_mm, cells.spacing_mm)
    for within, side in ((True, -1), (False, 1)):
        points = clicks + side * step_mm[:, None] * normal / np.maximum(length, 1e-12)
        right = (inside[cells.mesh.find_simplex(points)] == within) & (length[:, 0] > 0)
        yield points[right], -side * step_mm[right], SURE * step_mm[right]


def _far_off(
    cells: Cells, clicks: Float[np.ndarray, "n 3"], inside: Bool[np.ndarray, " k"], distance: Distance
) -> Places:
    """Places far off the clicks at which a shape is on the other side than the cut, the farthest first."""
    low, high = clicks.min(0), clicks.max(0)
    around = AROUND * (high - low)
    axes = np.linspace(low - around, high + around, ACROSS).T
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    within = inside[cells.mesh.find_simplex(points)]
    away_mm = KDTree(clicks).query(points)[0]
    wrong = (within != (distance(points) > 0)) & (away_mm > FAR_OFF * cells.spacing_mm)
    sure = _bounded(cells, inside, points, wrong)
    points, within, away_mm = points[sure], within[sure], away_mm[sure]
    chosen: list[int] = []
    for i in np.argsort(-away_mm):
        near_mm = max(SPARSE * away_mm[i], cells.spacing_mm)
        if not chosen or np.linalg.norm(points[chosen] - points[i], axis=1).min() > near_mm:
            chosen.append(i)
        if len(chosen) == MOST_FAR_OFF:
            break
    signed_mm = np.where(within, 1, -1) * away_mm
    return points[chosen], signed_mm[chosen], SURE * away_mm[chosen]


def _bounded(
    cells: Cells,
    inside: Bool[np.ndarray, " k"],
    points: Float[np.ndarray, "p 3"],
    wrong: Bool[np.ndarray, " p"],
) -> Bool[np.ndarray, " p"]:
    """Which wrong places of a lattice are in parts that are next to clicks, not to where the cut closes an end."""
    severed = inside[cells.pairs[:, 0]] != inside[cells.pairs[:, 1]]
    middle = cells.mesh.points[cells.facets[severed]].mean(1)
    area = np.linalg.norm(cells.normals[severed], axis=1)
    bare = area * (cells.bareness[severed] > TRULY_BARE)
    if not wrong.any() or bare.sum() > ALL_OPEN * area.sum():
        return np.zeros(len(points), bool)
    step_mm = (points.max(0) - points.min(0)).max() / (ACROSS - 1)
    parts, count = label(wrong.reshape((ACROSS,) * 3), np.ones((3, 3, 3)))  # pyright: ignore
    parts = np.asarray(parts, np.int64).ravel()
    part_of = np.concatenate([parts[wrong], [0]])  # of none, where no place is near
    reach_mm = FAR_OFF * cells.spacing_mm + 1.5 * step_mm
    near = part_of[KDTree(points[wrong]).query(middle, distance_upper_bound=reach_mm)[1]]
    touched, closing = (np.bincount(near, amount, count + 1) for amount in (area, bare))
    bounded = (touched > 0) & (closing <= OPEN * touched)
    bounded[0] = False
    return bounded[parts]
