"""Surface modes: the part of a deformation that is linear in the code.

A network that has seen a few hundred shapes answers to some hundred directions of the code; the others hardly move
the surface, so that an unseen shape is fitted with a part of the numbers that it may use. With modes, entry k of the
code also moves the template's surface by h_k times the k-th of c patterns of lengths along its normals. They start as
the smooth patterns that move the mean surface most (the leading Karhunen-Loève functions of a Gaussian process on it,
as in Lüthi et al., PAMI 2018), codes start as the shapes' coordinates in them and are learned. Of few shapes, patterns
are learned with them; of many, they stay as they are, since learned ones turn to what is peculiar to these shapes.

Templates start as the means of clusters of shapes, and a shape's coordinates are those from its own cluster's mean, so
that templates stay apart: were all coordinates taken from one mean, modes would leave templates nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array
from torch import Tensor, nn

from implicit_atlas.geometry.grid import sample_volume

# Cube units of a weight of 1, so that an optimiser's steps suit weights and lengths alike.
UNIT = 2.0**-8
KEPT = 3  # one node of so many has lengths, those nearest to the mean surface
SMOOTHING = 0.1  # of patterns, cube units
MOTION = 0.005  # root mean square motion of the mean surface by a pattern at coordinate 1, cube units
SURFACE_POINTS = 8192
SPARE, ROUNDS = (
    64,
    3,
)  # vectors beside those that are asked for, and pairs of products, of a subspace iteration
WHOLE = 512  # matrices up to this size are decomposed at once
LEAST = 1e-4  # motions below this share of the largest are no motions
BAND = 0.1  # shapes are registered where the mean shape's distance is below this, in cube units
BAND_POINTS, LOOKS = 3000, 4
NOISE, PRIOR = 0.0025, 3.0  # of a distance (cube units), and of a coordinate (standard deviations)


@dataclass(frozen=True, eq=False)
class SurfaceModes:
    """Patterns of motion along normals, at the nodes of a lattice that lie nearest to the mean surface.

    Args:
        kept: (k,) the nodes, as flat indices in C order of (x, y, z).
        normals: (m, k, 3) unit vectors there, towards the inside of each template.
        lengths: (k, c) of the patterns, in cube units.
        nodes: of the lattice, a side.
    """

    kept: Int[np.ndarray, " k"]
    normals: Float[np.ndarray, "m k 3"]
    lengths: Float[np.ndarray, "k c"]
    nodes: int

    def motions(self, points: Float[np.ndarray, "p 3"], template: int = 0) -> Float[np.ndarray, "p 3 c"]:
        """Displacements of a template's points by each pattern, trilinear between nodes."""
        weights, normals = hats(points, self.nodes)[:, self.kept], self.normals[template].T
        return np.stack([weights @ (normal[:, None] * self.lengths) for normal in normals], axis=1)


def kept_nodes(nodes: int) -> int:
    """Number of nodes with lengths, of a lattice with so many nodes a side."""
    return -(-(nodes**3) // KEPT)


class Modes(nn.Module):
    """Displacements of points of the template, linear in the code.

    Fresh ones move nothing and learn nothing: `start` says where they are and which way they move.

    Args:
        code_size: c.
        nodes: of the lattice, a side.
        templates: m.
    """

    kept: Int[Tensor, " k"]
    normals: Float[Tensor, "m k 3"]

    def __init__(self, code_size: int, nodes: int, templates: int = 1) -> None:
        super().__init__()
        self.nodes = nodes
        count = kept_nodes(nodes)
        self.weight = nn.Parameter(torch.zeros(count, code_size))
        self.register_buffer("kept", torch.arange(count))
        self.register_buffer("normals", torch.zeros(templates, count, 3))

    def forward(
        self, codes: Float[Tensor, "batch c"], template: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch n n n 3"]:
        """Displacements of each code's template at the nodes, in cube units."""
        lengths = F.linear(codes, self.weight * UNIT)
        return scattered(lengths[..., None] * self.normals[template], self.kept, self.nodes)

    def is_valid(self) -> bool:
        """True where the nodes are distinct ones of the lattice, in ascending order."""
        inside = bool(self.kept[0] >= 0) and bool(self.kept[-1] < self.nodes**3)
        return inside and bool((self.kept[1:] > self.kept[:-1]).all())

    @torch.no_grad()
    def start(self, modes: SurfaceModes) -> None:
        """Take patterns."""
        self.weight.copy_(torch.from_numpy(modes.lengths / UNIT))
        self.kept.copy_(torch.from_numpy(modes.kept))
        self.normals.copy_(torch.from_numpy(modes.normals))


def scattered(
    vectors: Float[Tensor, "batch k 3"], kept: Int[Tensor, " k"], nodes: int
) -> Float[Tensor, "batch n n n 3"]:
    """Vectors at some nodes of a lattice, by their flat indices, and zero at the others."""
    lattice = vectors.new_zeros(len(vectors), nodes**3, 3)
    return lattice.index_copy(1, kept, vectors).unflatten(1, (nodes,) * 3)


def node_places(nodes: int) -> Float[np.ndarray, "n3 3"]:
    """Where corner-aligned nodes lie in the cube, in C order of (x, y, z)."""
    axis = np.linspace(-1, 1, nodes)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


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


class DistanceMap:
    """A shape's signed distance (positive inside, cube units) with its slope, at any point."""

    def __init__(self, distance: Float[np.ndarray, "s s s"]) -> None:
        self.side = len(distance)
        slopes = np.asarray(np.gradient(gaussian_filter(distance, 1.0, mode="nearest"), 2 / self.side))
        self.array = distance
        self.volumes = [torch.from_numpy(np.ascontiguousarray(v, np.float32)) for v in (distance, *slopes)]

    def __call__(
        self, points: Float[np.ndarray, "p 3"]
    ) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "p 3"]]:
        """Distance and slope at points."""
        at = torch.from_numpy(points.astype(np.float32))
        value, *slope = (sample_volume(volume, at).numpy().astype(np.float64) for volume in self.volumes)
        return value, np.stack(slope, axis=-1)

    def near(self, reach: float) -> Int[np.ndarray, " m"]:
        """Flat indices of lattice points this near to the surface, or the nearest."""
        size = np.abs(self.array)
        return np.flatnonzero(size <= max(reach, size.min()))

    def place(self, flat: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m 3"]:
        """Where lattice points are."""
        return (np.stack(np.unravel_index(flat, self.array.shape), axis=-1) * 2 + 1) / self.side - 1

    def surface(self, count: int, rng: np.random.Generator) -> Float[np.ndarray, "count 3"]:
        """Points all over the surface, by Newton steps from random points near it."""
        cell = 1 / self.side
        points = self.place(rng.choice(self.near(2.5 * cell), count))
        points += rng.uniform(-cell, cell, points.shape)
        for _ in range(3):
            value, slope = self(points)
            steep = np.maximum(np.square(slope).sum(-1), 1e-3)
            points = np.clip(points - slope * (value / steep)[:, None], -1, 1)
        return points


def unit_vectors(vectors: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "m 3"]:
    """Vectors of length 1; very short ones stay short."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def surface_modes(
    mean: Float[np.ndarray, "s s s"],
    count: int,
    nodes: int,
    templates: Float[np.ndarray, "m s s s"] | None = None,
    seed: int = 0,
) -> SurfaceModes:
    """The smooth patterns that move a surface most, for sources of one strength at the nodes around it.

    A pattern is a sum of Gaussian bumps at the nodes whose cells the surface crosses. They are the leading
    eigenvectors of the mean (normal motion)² over the surface, so that the first are the widest, each scaled to move
    the surface by MOTION in the root mean square.

    Args:
        mean: signed distance, positive inside, in cube units, on a cell-centred lattice.
        count: number of patterns; those beyond the number of sources stay zero.
        nodes: of the lattice of nodes, a side.
        templates: of those that patterns move, each along its own normals; by default the mean alone.
        seed: of the choice of surface points.
    """
    shape, rng = DistanceMap(mean), np.random.default_rng(seed)
    where = node_places(nodes)
    kept = np.sort(np.argsort(np.abs(shape(where)[0]), kind="stable")[: kept_nodes(nodes)])
    inwards = unit_vectors(shape(where[kept])[1])
    points = shape.surface(SURFACE_POINTS, rng)
    weights = hats(points, nodes)[:, kept]
    at = unit_vectors(shape(points)[1])
    along = sum(weights.multiply(at[:, [a]]).multiply(inwards[None, :, a]) for a in range(3))
    along = csr_array(along)
    squared = along.T @ along / len(points)  # sparse: few nodes are near any one point
    sources = kept[weights.sum(0) > 1e-3]
    used = min(count, len(sources))
    squares, vectors = leading(
        lambda strengths: bumps(squared @ bumps(strengths, sources, kept, nodes), kept, sources, nodes),
        len(sources),
        used,
        rng,
    )
    lengths = np.zeros((len(kept), count))
    strengths = vectors * MOTION / np.sqrt(np.maximum(squares, LEAST * squares[0]))
    lengths[:, :used] = bumps(strengths, sources, kept, nodes)
    maps = [shape] if templates is None else [DistanceMap(template) for template in templates]
    normals = np.stack([unit_vectors(own(where[kept])[1]) for own in maps])
    return SurfaceModes(kept, normals, lengths, nodes)


def bumps(
    strengths: Float[np.ndarray, "n k"],
    sources: Int[np.ndarray, " n"],
    wanted: Int[np.ndarray, " m"],
    nodes: int,
) -> Float[np.ndarray, "m k"]:
    """Sums of Gaussian bumps of standard deviation `SMOOTHING` about some nodes, read at others; axis by axis."""
    apart = np.subtract.outer(*[np.linspace(-1, 1, nodes)] * 2)
    kernel = np.exp(-np.square(apart) / (2 * SMOOTHING**2))
    volume = np.zeros((nodes**3, strengths.shape[1]))
    volume[sources] = strengths
    for _ in range(3):  # each puts the axis that it has done last
        volume = kernel @ volume.reshape(nodes, -1)
        volume = volume.reshape(nodes, nodes, nodes, -1).transpose(1, 2, 0, 3)
    return volume.reshape(nodes**3, -1)[wanted]


def leading(
    product: Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]],
    size: int,
    count: int,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " count"], Float[np.ndarray, "n count"]]:
    """Largest eigenvalues, from the largest down, and eigenvectors of a symmetric matrix of falling spectrum.

    Subspace iteration with some vectors to spare (Halko, Martinsson and Tropp, 2011). Small matrices are decomposed as
    a whole: bumps of few nodes hardly overlap, so that their spectrum does not fall.

    Args:
        product: the matrix times columns.
        size: of the matrix.
        count: number of eigenvalues.
        rng: of the vectors to begin with.
    """
    basis = np.eye(size)
    if size > max(WHOLE, count + SPARE):
        basis = rng.standard_normal((size, count + SPARE))
        for _ in range(ROUNDS):
            basis = np.linalg.qr(product(product(basis)))[0]
    last = basis.shape[1] - 1
    values, turned = eigh(basis.T @ product(basis), subset_by_index=(last + 1 - count, last))
    return values[::-1], basis @ turned[:, ::-1]


def coordinates(
    distances: Float[np.ndarray, "n s s s"],
    mean: Float[np.ndarray, "s s s"],
    modes: SurfaceModes,
    template: int = 0,
) -> Float[np.ndarray, "n c"]:
    """Coordinates z of shapes in modes, so that the mean shape's distance at p + motions(p) · z is the shape's at p.

    Regularised Gauss-Newton steps over points near the mean surface.

    Args:
        distances: signed distances of the shapes, in cube units, on a cell-centred lattice.
        mean: of the shapes that count.
        modes: as `surface_modes` returns them.
        template: which of the modes' surfaces the mean is.
    """
    shape = DistanceMap(mean)
    near = shape.near(BAND)
    if len(near) > BAND_POINTS:
        near = np.random.default_rng(0).choice(near, BAND_POINTS, replace=False)
    points = shape.place(near)
    moved = modes.motions(points, template)
    ridge = len(points) * (NOISE / PRIOR) ** 2
    found = np.zeros((len(distances), moved.shape[-1]))
    for z, wanted in zip(found, distances.reshape(len(distances), -1)[:, near], strict=True):
        for _ in range(LOOKS):
            value, slope = shape(points + moved @ z)
            jacobian = np.einsum("pa,pak->pk", slope, moved, optimize=True)
            normal = jacobian.T @ jacobian + ridge * np.eye(len(z))
            z += np.linalg.solve(normal, jacobian.T @ (wanted - value) - ridge * z)
    return found
