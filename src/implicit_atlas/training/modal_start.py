"""Where a network with modes starts: templates from clusters of shapes, codes as the shapes' coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2

from implicit_atlas.atlas.modes import SurfaceModes, coordinates, surface_modes
from implicit_atlas.support.blas import one_thread

# Entry of a code that says which template its shape deforms, in root mean squares of the entries that move surfaces.
CHOICE = 3.0
SMALL = 0.25  # of an even share of the shapes: clusters smaller than this are outliers

Distances = Float[np.ndarray, "n s s s"]


@dataclass(frozen=True, eq=False)
class ModalStart:
    """What modes, codes and the selection of templates start from.

    Args:
        modes: around the mean shape, with the normals of every template.
        codes: (n, c); coordinates from the mean of a shape's own cluster, and last, where there are several templates,
            m entries of which the cluster's own is `CHOICE` and the others are zero.
        centres: (m, c) codes for `Atlas.start_selection`.
    """

    modes: SurfaceModes
    codes: Float[np.ndarray, "n c"]
    centres: Float[np.ndarray, "m c"]


@one_thread
def modal_start(  # noqa: PLR0913 (sizes and options of the start)
    distances: Distances,
    real: int,
    code_size: int,
    nodes: int,
    templates: int = 1,
    seed: int = 0,
    shrinkage: float = 0.0,
) -> ModalStart:
    """Start of modes and codes; codes have unit mean square, and modes are scaled against that.

    Args:
        distances: signed distances of the real shapes, which come first, and of their warps, in cube units.
        real: number of real shapes.
        code_size: c, larger than the number of templates.
        nodes: of the lattice of modes, a side.
        templates: m.
        seed: of the clustering.
        shrinkage: shapes that the mean of all counts as, against those of a cluster.
    """
    means, owner = clusters(distances, real, templates, seed)
    means = shrunk(means, owner[:real], distances[:real], shrinkage)
    choices = templates if templates > 1 else 0
    modes = surface_modes(distances[:real].mean(0), code_size - choices, nodes, means, seed)
    found = np.zeros((len(distances), code_size))
    for template, mean in enumerate(means):
        own = np.flatnonzero(owner == template)
        if not len(own):  # a template that repeats another
            continue
        found[own, : code_size - choices] = coordinates(distances[own], mean, modes, template)
    scale = np.sqrt(np.mean(found[:, : code_size - choices] ** 2)) or 1.0
    lengths = np.zeros((len(modes.lengths), code_size))
    lengths[:, : code_size - choices] = modes.lengths * scale
    codes, centres = found / scale, np.zeros((templates, code_size))
    if choices:
        chosen = code_size - choices + np.arange(templates)
        codes[np.arange(len(codes)), chosen[owner]] = CHOICE
        # As `start_selection` weighs centres, the scores of a code's own template and of another differ by ten.
        centres[np.arange(templates), chosen] = code_size / CHOICE
    return ModalStart(replace(modes, lengths=lengths), codes.astype(np.float32), centres.astype(np.float32))


def shrunk(
    means: Float[np.ndarray, "m s s s"],
    owner: Int[np.ndarray, " real"],
    distances: Distances,
    shrinkage: float,
) -> Float[np.ndarray, "m s s s"]:
    """Means of clusters, drawn towards the mean of all shapes, the smaller the cluster the more."""
    whole = distances.mean(0, dtype=np.float64)
    members = np.maximum(np.bincount(owner, minlength=len(means)), 1)  # a mean that repeats another has none
    weight = members / (members + shrinkage)
    return whole + weight[:, None, None, None] * (means - whole)


def clusters(
    distances: Distances, real: int, count: int, seed: int
) -> tuple[Float[np.ndarray, "m s s s"], Int[np.ndarray, " n"]]:
    """Mean distances of clusters of the real shapes, and the cluster that each shape is nearest to.

    With fewer real shapes than clusters, each shape is a cluster, and the clusters beyond them repeat these. Of more,
    an outlier is no cluster: shapes in clusters of less than `SMALL` of an even share are left out, and the others
    divided anew; the left out belong to the nearest.
    """
    flat = distances.reshape(len(distances), -1)
    known = flat[:real].astype(np.float64)
    means = known[np.arange(count) % real] if real <= count else _common_means(known, count, seed)
    apart = np.array([[np.square(shape - mean).sum() for shape in flat] for mean in means])
    return means.reshape(count, *distances.shape[1:]), apart.argmin(0)


def _common_means(known: Float[np.ndarray, "r v"], count: int, seed: int) -> Float[np.ndarray, "m v"]:
    """Means of clusters, none of which is a few outliers."""
    rest, least = known, SMALL * len(known) / count
    while True:
        means, owner = kmeans2(rest, count, minit="++", seed=np.random.default_rng(seed))  # pyright: ignore[reportCallIssue]
        outliers = (np.bincount(owner, minlength=count) < least)[owner]
        # None where shapes are alike and clusters are empty.
        if not outliers.any() or (~outliers).sum() < max(count + 1, len(known) / 2):
            return means
        rest = rest[~outliers]
