"""Dense correspondence through a template: where a place of one shape lies in another, both ways, with its error.

p ↦ q = p + 𝒟(d(h), p) leads from a shape into its template (Eq. 3). Nothing holds such a displacement along a surface,
though: places are carried by a smooth map of the shape's surface onto the template's instead (`alignment`). The way
back is solved for, and what is left of the equation is reported. Shapes are comparable where they have one template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer
from scipy.spatial import KDTree

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.correspondence.alignment import align
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import CodeFit
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.geometry.grid import as_numpy, lattice
from implicit_atlas.geometry.surface import CubeMesh, volume_mesh
from implicit_atlas.trained_atlas import TrainedAtlas

PointMap = Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, "n 3"]]

START_NODES = 48  # a side of the lattice on which the way back starts
ATTEMPTS = 4  # starts of a point
OUTSIDE = 1.25  # cube units: how far outside the cube points are looked for
STEPS = 12  # of Newton, each halved where it does not help
DIFFERENCE = 1e-3  # cube units between the points of a finite difference
SOLVED = 1e-3  # cube units that may be left; 0.06 voxels of 128


@dataclass(frozen=True, eq=False)
class Found:
    """Places in a shape, solved for.

    Args:
        points: (n, 3) cube coordinates.
        left: (n,) distance, in the template and in cube units, between where they lie there and where they should.
    """

    points: Float[np.ndarray, "n 3"]
    left: Float[np.ndarray, " n"]

    @property
    def solved(self) -> float:
        """Share of the points that were found."""
        return float((self.left <= SOLVED).mean())


def template_map(atlas: TrainedAtlas, found: CodeFit) -> PointMap:
    """Where cube points of a fit lie in its template: p + 𝒟(d(h), p) of Eq. 3, with what modes and residual add.

    Raises:
        InputError: the atlas has no templates.
    """
    network, expanded = atlas.network, atlas.expand(found)
    if not isinstance(network, Atlas):
        raise _no_templates(atlas)

    def moved(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        with torch.no_grad():
            where = torch.from_numpy(np.asarray(points, np.float32))[None].to(atlas.device)
            return as_numpy(where + network.displacement(expanded, where))[0]

    return moved


def from_template(mapped: PointMap, wanted: Float[np.ndarray, "n 3"]) -> Found:
    """Points p with mapped(p) = wanted, by Newton's method from the nearest of a lattice's nodes.

    Where the map folds there are several; the one near that node is found. Where it never comes there the nearest is
    kept, and `left` says how far it is. What was not found is tried again from the next nearest nodes.
    """
    nodes = as_numpy(lattice(START_NODES)).reshape(-1, 3).astype(np.float64)
    starts = nodes[KDTree(mapped(nodes)).query(wanted, k=ATTEMPTS)[1]]
    best = Found(starts[:, 0].copy(), np.full(len(wanted), np.inf))
    for attempt in range(ATTEMPTS):
        again = best.left > SOLVED
        if not again.any():
            break
        tried = _newton(mapped, starts[again, attempt], wanted[again])
        better = tried.left < best.left[again]
        rows = np.flatnonzero(again)[better]
        best.points[rows], best.left[rows] = tried.points[better], tried.left[better]
    return best


def _newton(mapped: PointMap, points: Float[np.ndarray, "n 3"], wanted: Float[np.ndarray, "n 3"]) -> Found:
    gap = wanted - mapped(points)
    for _ in range(STEPS):
        open_ = np.linalg.norm(gap, axis=1) > SOLVED / 10
        if not open_.any():
            break
        step = _newton_step(mapped, points[open_], gap[open_])
        points[open_], gap[open_] = _improved(mapped, points[open_], gap[open_], wanted[open_], step)
    return Found(points, np.linalg.norm(gap, axis=1))


def jacobians(mapped: PointMap, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """∂q/∂p by central differences."""
    columns = []
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = DIFFERENCE
        columns.append((mapped(points + step) - mapped(points - step)) / (2 * DIFFERENCE))
    return np.stack(columns, axis=-1).astype(np.float64)


def share_of_folds(mapped: PointMap, points: Float[np.ndarray, "n 3"]) -> float:
    """Share of points where the map turns space inside out: det J <= 0."""
    return float((np.linalg.det(jacobians(mapped, points)) <= 0).mean())


def _newton_step(mapped: PointMap, points: np.ndarray, gap: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Newton's step, by least squares with a little damping, so that folds do not send points away."""
    jacobian = jacobians(mapped, points)
    transposed = jacobian.transpose(0, 2, 1)
    normal = transposed @ jacobian + 1e-4 * np.eye(3)
    step = np.linalg.solve(normal, transposed @ gap[..., None])[..., 0]
    length = np.linalg.norm(step, axis=1, keepdims=True)
    return step * np.minimum(1, 4 / START_NODES / np.maximum(length, 1e-12))


def _improved(
    mapped: PointMap, points: np.ndarray, gap: np.ndarray, wanted: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The points after the step, a part of it, or half of what is left, where that brings them nearer."""
    best, best_gap = points.copy(), gap.copy()
    for moved in (step, step / 2, step / 8, gap / 2):  # the last helps where the map has a kink
        tried = np.clip(points + moved, -OUTSIDE, OUTSIDE)
        tried_gap = wanted - mapped(tried)
        better = np.linalg.norm(tried_gap, axis=1) < np.linalg.norm(best_gap, axis=1)
        best[better], best_gap[better] = tried[better], tried_gap[better]
    return best, best_gap


def reference_template(atlas: TrainedAtlas) -> int:
    """The template that most training shapes use.

    Raises:
        InputError: the atlas has none.
    """
    usage = atlas.template_usage()
    if not usage:
        raise _no_templates(atlas)
    return int(np.argmax(usage))


def _no_templates(atlas: TrainedAtlas) -> InputError:
    return InputError(atlas.config.model.method, "has no templates", "Use a method with a deformation.")


def template_mesh(atlas: TrainedAtlas, index: int, resolution: int = 64) -> CubeMesh:
    """Closed surface of a template, whose vertices are to be found in all shapes.

    Raises:
        InputError: no such template, or an empty one.
    """
    points = as_numpy(lattice(resolution)).reshape(-1, 3)
    mesh = volume_mesh(atlas.template_logits(index, points).reshape((resolution,) * 3))
    if not len(mesh.vertices):
        raise InputError(f"template {index}", "is empty", "Choose another template.")
    return mesh


def common_template(fits: list[Fit]) -> int:
    """The one template that all fits deform.

    Raises:
        InputError: they deform several, so that their places cannot be compared.
    """
    used = {fit.found.template for fit in fits}
    if len(used) != 1 or None in used:
        raise InputError("fits", "do not deform one common template", "Fit them with `template=`.")
    return int(used.pop())  # pyright: ignore[reportArgumentType]


def surface_map(atlas: TrainedAtlas, fit: Fit, template: CubeMesh) -> PointMap:
    """Where cube points of a fit lie in a template: smooth, and its surface goes to that of the template."""
    atlas.check_own(fit)
    surface = fit.placed().world_to_cube(fit.mesh().vertices)
    return align(surface, template, np.array(atlas.config.size_mm))


def transfer_points(
    atlas: TrainedAtlas, source: Fit, target: Fit, points_mm: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Places of one case in another, RAS mm, and how far off the equation was left, in mm of the target.

    Raises:
        InputError: fits of another atlas, that deform different templates or have no place in a scan; points that are
            not finite or not (n, 3).
    """
    points_mm = np.asarray(points_mm, np.float64)
    if points_mm.ndim != 2 or points_mm.shape[1] != 3 or not np.isfinite(points_mm).all():
        raise InputError("points", f"are {points_mm.shape} numbers, or not finite", "Give (n, 3) in RAS mm.")
    for fit in (source, target):
        atlas.check_own(fit)
    template = template_mesh(atlas, common_template([source, target]))
    mapped = surface_map(atlas, source, template)
    wanted = mapped(source.placed().world_to_cube(points_mm))
    return places_in(target, surface_map(atlas, target, template), wanted)


def places_in(
    fit: Fit, mapped: PointMap, wanted: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Places in a case, RAS mm, that a map brings to those in the template, and what was left in mm."""
    frame, found = fit.placed(), from_template(mapped, wanted)
    half_size_mm = float((frame.lattice_spacing_mm * frame.resolution).mean() / 2)
    return frame.cube_to_world(found.points), found.left * half_size_mm


@dataclass(frozen=True, eq=False)
class Labelled:
    """Places of a labelled case, in a template or in another common space, and their labels."""

    places: Float[np.ndarray, "n 3"]
    labels: Integer[np.ndarray, " n"]


def transfer_labels(
    sources: Sequence[Labelled], wanted: Float[np.ndarray, "m 3"]
) -> Integer[np.ndarray, " m"]:
    """Labels of places, by the vote of the nearest labelled places of every case."""
    names = np.unique(np.concatenate([source.labels for source in sources]))
    votes = np.zeros((len(names), len(wanted)))
    for source in sources:
        distance, nearest = KDTree(source.places).query(wanted, k=min(4, len(source.places)))
        distance, nearest = distance.reshape(len(wanted), -1), nearest.reshape(len(wanted), -1)
        weight = 1 / (distance + 1e-3)
        weight /= weight.sum(1, keepdims=True)
        for index, name in enumerate(names):
            votes[index] += ((source.labels[nearest] == name) * weight).sum(1)
    return names[votes.argmax(0)]
