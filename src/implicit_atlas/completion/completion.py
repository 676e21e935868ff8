"""Completion of an organ in a scan: the probable shape, how uncertain it is, and whether to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from implicit_atlas.completion.click_sides import TRUSTED, Beside, bare_share, beside_clicks
from implicit_atlas.completion.correction import (
    corrected,
    field_distances,
    misfit,
    moved_at_random,
    values_at,
)
from implicit_atlas.completion.mirrored import likelier_mirrored, on_likelier_sides, side_doubt
from implicit_atlas.completion.observe import as_clicks, check_span
from implicit_atlas.completion.rivals import MeanShape, rival_doubt
from implicit_atlas.completion.spaces import space_doubts
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.dense import Progress
from implicit_atlas.fitting.fit import Fit, all_doubts
from implicit_atlas.generation import pieces_of
from implicit_atlas.geometry.pieces import largest_pieces, without_specks, without_strays
from implicit_atlas.geometry.surface import to_world, volume_mesh
from implicit_atlas.io import Mesh
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import restore_on
from implicit_atlas.sides import Mirror, check_mirror, has_side
from implicit_atlas.trained_atlas import TrainedAtlas

SMALL = 0.4  # of their mean side: what spans less says little, or is in another unit
TRUSTED_LABELS = 0.85  # share of in and out labels that a shape must explain
TRUSTED_SHARE = 0.1  # of the organ's mean size, that clicks may lie on the wrong side of it or off it
# Share of 64 clicks on the boundary that atlases contradict before correction: hippocampi of `val` 0 to 2 %, the same
# clicks in the wrong space (LPS for RAS) 14 to 39 %.
TRUSTED_MOVED = 0.1
# Of `val`, shares of surface that lie farther than FAR: 64 clicks 1 to 2 %, three slices 1 to 13 %, one slice 58 to
# 75 %, half of a hippocampus 41 %; completions of the latter two are off by a third and by a quarter.
FAR = 0.2  # of the organ's mean size: what is farther from all that was observed is a guess
TRUSTED_GUESS = 0.25  # share of the surface that may be one
# Share of the surface without clicks, where these are on surfaces: of `val` 0 to 5 %, of shapes of a wrongly found
# pancreas 9 to 34 %.
TRUSTED_BARE = 0.1
OTHER = "of another organ, or of the other side (--mirror auto)"


@dataclass(frozen=True, eq=False)
class Completion:
    """A shape that was completed.

    Args:
        fit: the most probable shape, with its place in the scan, and where other searches ended.
        mean: of these; None where the fit failed.
        draws: other shapes that are probable; none where none were asked for.
        seen: what was observed, in RAS millimetres.
        pieces: that the organ is of.
        labels_kept: share of in and out labels that the shape agrees with; None without such labels.
        boundary_mm: mean distance of clicks on the boundary from the shape; None without such clicks.
        moved: share of clicks that the mean grossly contradicts, before its surface was moved to them.
        beside: places at both sides of clicks on the boundary, in RAS millimetres.
        turned: share of those that the mean has on the wrong side.
        guessed: share of the surface that is far from all that was observed; None where the fit failed.
        doubt: why the shape is not to be trusted, or None.
    """

    fit: Fit
    mean: MeanShape | None = field(repr=False)
    draws: tuple[Fit, ...]
    seen: Observations = field(repr=False)
    pieces: int
    labels_kept: float | None
    boundary_mm: float | None
    guessed: float | None
    doubt: str | None
    moved: float = 0.0
    beside: Beside = field(default_factory=Beside.nothing, repr=False)
    turned: float = 0.0

    @property
    def whole(self) -> MeanShape:
        """The mean.

        Raises:
            FitError: the fit failed.
        """
        self.fit.found.checked(self.fit.name)
        assert self.mean is not None  # of a fit that did not fail
        return self.mean

    def field_of(self, draw: Fit) -> Float[np.ndarray, "r r r"]:
        """A draw on the lattice of its cube: positive inside, corrected by clicks.

        A draw is corrected by clicks that are moved at random by what they may be off: by the clicks themselves, draws
        would agree more than the clicks tell (64 on hippocampi: 84 % of the true surface covered, and not 90).
        """
        number = next(k for k, each in enumerate(self.draws, start=1) if each is draw)
        return corrected(draw.logits(), draw.placed(), *moved_at_random(self.seen, self.beside, number))

    @cached_property
    def corrected(self) -> Float[np.ndarray, "r r r"]:
        """The mean, corrected by clicks, on its lattice: positive inside."""
        whole = self.whole
        return corrected(whole.values, whole.frame, self.seen, self.beside)

    @cached_property
    def values(self) -> Float[np.ndarray, "r r r"]:
        """The same without specks and stray pieces.

        As many pieces stay as the organ is of, and those in which something was observed to be inside.
        """
        frame = self.whole.frame
        values = without_specks(self.corrected)
        own, _ = largest_pieces(values > 0, self.pieces)
        beside = self.beside.points[self.beside.distance_mm > 0]
        inside = frame.world_to_cube(np.concatenate([self.seen.points[self.seen.occupancy > 0.5], beside]))
        nodes = np.rint((inside + 1) * (frame.resolution / 2) - 0.5).astype(int)
        nodes = nodes[((nodes >= 0) & (nodes < frame.resolution)).all(1)]
        own[tuple(nodes.T)] = True
        return without_strays(values, own)

    def mask_on(self, grid: Grid) -> Bool[np.ndarray, "x y z"]:
        """The shape on any voxel grid; empty where it lies outside."""
        return restore_on(self.values, self.whole.frame, grid, 0.0)

    def mesh(self) -> Mesh:
        """Its closed surface in world millimetres (RAS)."""
        return to_world(volume_mesh(self.values), self.whole.frame)

    @cached_property
    def draw_vertices(self) -> list[Float[np.ndarray, "_ 3"]]:
        """Surface points of each draw in world millimetres (RAS)."""
        return [to_world(volume_mesh(self.field_of(draw)), draw.placed()).vertices for draw in self.draws]

    def probability_on(self, grid: Grid) -> Float[np.ndarray, "x y z"]:
        """Share of the shapes, the mean and the draws, that hold each voxel of a grid."""
        total = restore_on(self.corrected, self.whole.frame, grid, 0.0).astype(np.float32)
        for draw in self.draws:
            total += restore_on(self.field_of(draw), draw.placed(), grid, 0.0)
        return total / (1 + len(self.draws))

    def spread_mm(self, vertices_mm: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, " v"]:
        """Root mean square distance of each vertex of the shape's mesh from the surfaces of the draws.

        Raises:
            InputError: there are no draws.
        """
        if not self.draws:
            raise InputError(self.fit.name, "was completed without draws", "Ask for some, for example 8.")
        squares = [KDTree(vertices).query(vertices_mm)[0] ** 2 for vertices in self.draw_vertices]
        return np.sqrt(np.mean(squares, axis=0))


def complete(
    atlas: TrainedAtlas,
    observations: Sequence[Observations],
    draws: int = 0,
    progress: Progress | None = None,
    mirror: Mirror = "no",
) -> list[Completion]:
    """Complete organs that were observed in part, in RAS millimetres of their scans.

    Args:
        atlas: of that organ.
        observations: what is known of each.
        draws: how many other probable shapes to find, each at about half the cost of the first.
        progress: told how far it is.
        mirror: "no": as `Observations.mirrored` says; "all": all are mirror images of the atlas's organs; "auto": those
            that are likelier so, at twice the cost.

    Raises:
        InputError: nothing was observed, points that cannot be of one such organ, no number of draws, or no way to
            mirror.
    """
    if draws < 0:
        raise InputError("draws", f"{draws} are none", "Give 0 or more.")
    check_mirror(mirror)
    observations = as_clicks(observations)
    for seen in observations:
        check_span(seen, atlas.config.size_mm)
    if mirror != "no":
        observations = [replace(seen, mirrored=mirror == "all") for seen in observations]
    completed = _searched(atlas, observations, draws, progress)
    more = likelier_mirrored(atlas, observations, [each.fits[0] for each in completed])
    if mirror == "auto":
        observations, completed, sides = on_likelier_sides(
            observations,
            completed,
            more,
            search=lambda images: _searched(atlas, images, draws, None),
            fit_of=lambda found: found.fits[0],
        )
    else:
        sides = [side_doubt(seen.mirrored, value) for seen, value in zip(observations, more, strict=True)]
    pieces = pieces_of(atlas)
    found = [_judged(atlas, seen, pieces, each) for seen, each in zip(observations, completed, strict=True)]
    either = mirror == "auto" and has_side(atlas)
    spaces = space_doubts(atlas, observations, [done.fit for done in found], either)
    return [
        replace(done, doubt=all_doubts(space, done.doubt, side))
        for done, side, space in zip(found, sides, spaces, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Searched:
    """A shape and its draws, the mean of its ends, what is beside clicks, and how much of that is on its wrong side."""

    fits: list[Fit]
    mean: MeanShape | None
    beside: Beside
    turned: float

    @classmethod
    def of(cls, fits: list[Fit], seen: Observations, size_mm: float, again: bool = False) -> _Searched:
        """Look at both sides of the clicks; `again`, of which an earlier shape was on the wrong ones."""
        mean = None if fits[0].failure is not None else MeanShape.of(fits[0])
        if mean is None or not (seen.occupancy == 0.5).any():
            return cls(fits, mean, Beside.nothing(), 0.0)
        distance = field_distances(mean.values, mean.frame.lattice_spacing_mm)

        def off_surface(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
            return values_at(distance, mean.frame, points)

        beside = beside_clicks(seen, off_surface, size_mm, again)
        return cls(fits, mean, beside, beside.turned(off_surface, size_mm))


def _searched(
    atlas: TrainedAtlas, observations: Sequence[Observations], draws: int, progress: Progress | None
) -> list[_Searched]:
    """Shapes and their draws.

    Where a shape does not agree with both sides of clicks, it is searched for once more with these as labels, and the
    more probable one is kept, what labels say counted: by the clicks alone, poorer ends were kept (256 clicks on the
    boundary of pancreases 89.72 instead of 90.30 DSC). Sides and spaces are judged by the clicks alone.
    """
    size_mm = float(np.mean(atlas.config.size_mm))
    fits = atlas.complete_and_draw(observations, draws, progress=progress)
    found = [_Searched.of(each, seen, size_mm) for each, seen in zip(fits, observations, strict=True)]
    again = [i for i, each in enumerate(found) if each.turned > TRUSTED]
    if not again:
        return found
    labelled = [found[i].beside.labels_with(observations[i]) for i in again]
    for i, each in zip(again, atlas.complete_and_draw(labelled, draws), strict=True):
        if each[0].failure is None and each[0].found.improbability < found[i].fits[0].found.improbability:
            found[i] = _Searched.of(each, observations[i], size_mm, again=True)
    return found


def _judged(atlas: TrainedAtlas, seen: Observations, pieces: int, found: _Searched) -> Completion:
    fit, draws = found.fits[0], tuple(draw for draw in found.fits[1:] if draw.failure is None)
    doubt = f"the fit failed: {fit.failure}"
    mean = found.mean
    done = Completion(
        fit, mean, draws, seen, pieces, None, None, None, doubt, 0.0, found.beside, found.turned
    )
    if mean is None:
        return done
    labelled, clicked = np.abs(seen.occupancy - 0.5) > 0.25, seen.occupancy == 0.5
    mesh = done.mesh()
    surface, kept, near_mm = mesh.vertices, None, None
    if labelled.any():
        inside = values_at(done.values, mean.frame, seen.points[labelled]) > 0
        kept = float((inside == (seen.occupancy[labelled] > 0.5)).mean())
    if clicked.any():
        near_mm = float(KDTree(surface).query(seen.points[clicked])[0].mean())
    far_mm = FAR * float(np.mean(atlas.config.size_mm))
    guessed = float((KDTree(seen.points).query(surface)[0] > far_mm).mean())
    off_mm, gross = misfit(mean.values, mean.frame, seen)
    done = replace(
        done,
        labels_kept=kept,
        boundary_mm=near_mm,
        guessed=guessed,
        moved=float(gross.mean()),
    )
    return replace(done, doubt=_doubt(done, mesh, float(np.mean(atlas.config.size_mm)), off_mm))


def _doubt(done: Completion, mesh: Mesh, size_mm: float, off_mm: Float[np.ndarray, " n"]) -> str | None:
    """Why not to trust it; clicks lie so far off the atlas's own shape, before its surface was moved to them."""
    kept, near_mm, guessed = done.labels_kept, done.boundary_mm, done.guessed or 0.0
    span_mm = float(np.linalg.norm(np.ptp(done.seen.points, axis=0)))
    if span_mm < SMALL * size_mm:
        return f"all that was observed spans {span_mm:.3g} mm, of organs of {size_mm:.3g} mm: check its unit"
    if kept is not None and kept < TRUSTED_LABELS:
        return f"it contradicts {100 * (1 - kept):.0f} % of the labels: they contradict each other, or are {OTHER}"
    if near_mm is not None and near_mm > TRUSTED_SHARE * size_mm:
        return f"clicks on the boundary lie {near_mm:.1f} mm from it on average: they may be {OTHER}"
    if done.moved > TRUSTED_MOVED:
        share = f"the atlas's own shape contradicts {100 * done.moved:.0f} % of the clicks"
        return f"{share}: they may be in the wrong space (LPS or RAS), or {OTHER}"
    if done.turned > TRUSTED:
        share = (
            f"the atlas's own shape has inside and outside of {100 * done.turned:.0f} % of the clicks swapped"
        )
        return f"{share}: look at it, and click inside the organ, too"
    bare, far_mm = bare_share(done.seen, mesh)
    if bare > TRUSTED_BARE:
        share = f"{100 * bare:.0f} % of its surface lies more than {far_mm:.1f} mm from all clicks"
        return f"{share}, which lie closer together elsewhere: look at it, and click there, too"
    if off_mm.max() > TRUSTED_SHARE * size_mm:
        x, y, z = done.seen.points[off_mm.argmax()]
        side = "from" if done.seen.occupancy[off_mm.argmax()] == 0.5 else "on the wrong side of"
        far = f"lies {off_mm.max():.1f} mm {side} the atlas's own shape"
        return f"the click at ({x:.1f}, {y:.1f}, {z:.1f}) mm RAS {far}: check it"
    if guessed > TRUSTED_GUESS:
        return f"{100 * guessed:.0f} % of its surface lies more than {FAR * size_mm:.0f} mm from all that was observed"
    return rival_doubt(done.whole.overlap)
