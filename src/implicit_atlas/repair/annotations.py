"""Repair of annotations: what lies far from the most probable shape is corrected, detail near its surface stays.

First come stairs of thick slices and ends that were cut off by a plane (`implicit_atlas.repair.mending`), and in fine
scans outlines that are rougher than the shape's (`implicit_atlas.geometry.outlines`). A reconstruction alone would
repair the rest, too, and smooth away what 256 numbers do not say. So a voxel keeps its label then unless the shape
gives it the other one, the shape's surface is farther than `keep_mm`, and it is an enclosed hole or an island, or
mask and shape differ more around it than clean masks and their shapes do: holes are filled, islands dropped, outlines
that are far off brought near the shape (measured in docs/uses/repair.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import binary_fill_holes, gaussian_filter
from scipy.spatial import KDTree

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import FitConfig, at_once
from implicit_atlas.fitting.fit import WRONG_ORGAN, Fit, all_doubts, cut_mask, unlike_mask
from implicit_atlas.fitting.sizes import unlike_size
from implicit_atlas.generation import pieces_of
from implicit_atlas.geometry.outlines import depths, smoothed
from implicit_atlas.geometry.pieces import largest_pieces
from implicit_atlas.io import CaseFile, Mask, MaskFile, Problem, read_mask
from implicit_atlas.metrics import dsc
from implicit_atlas.repair.mending import Start, mended
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.sides import Mirror, sided
from implicit_atlas.support.console import Report
from implicit_atlas.trained_atlas import TrainedAtlas

KEEP_VOXELS = 0.6
"""Where no distance is given, it is this share of the mask's mean voxel size."""
# Of a fit to a mask that is not to be believed in every voxel: thirty times that of a reconstruction. More, and shapes
# of livers follow their masks too little for holes to be told from what they miss; less, and they follow the holes.
CODE_WEIGHT = 0.03
# Mask and shape are compared in units of what can be said: a voxel of the mask, or in fine scans, of voxels below
# `FINE` steps of the lattice of the shape's cube, `STEPS` of these. In coarser voxels, shapes miss little.
FINE, STEPS = 3.0, 5.0
# Root mean square distance between the surfaces of clean masks and their shapes, in these units, hardly exceeds this
# within windows of `AROUND` (a Gaussian's standard deviation): of `val`, 99 % of the surface of hippocampi is below
# 0.45 to 0.65, of livers, which shapes of few numbers follow less, below 0.5 to 0.7 and in one beyond.
NOISE, FINE_NOISE, AROUND = 0.6, 0.9, 5.0
NEAR = 2.0  # how far from the shape's surface the two are compared
REFUSED_DSC = 0.6  # between mask and shape: below it is no mask of this organ


@dataclass(frozen=True, eq=False)
class Repair:
    """A repaired mask.

    Args:
        mask: as it was.
        fit: the shape that it was compared with.
        occupancy: repaired, on the mask's grid.
        added: voxels that were background.
        removed: voxels that were not.
        likeness: DSC between mask and shape.
        slice_mm: thickness of slices whose stairs were smoothed, 0 where there were none.
        put_back: of the voxels that were added, those beyond a flat end.
        doubt: why the result is not to be trusted, or None.
    """

    mask: Mask
    fit: Fit
    occupancy: Bool[np.ndarray, "x y z"]
    added: int
    removed: int
    likeness: float
    slice_mm: float
    put_back: int
    doubt: str | None


def repair(  # noqa: PLR0913 (options of a main verb)
    atlas: TrainedAtlas,
    sources: Sequence[MaskFile],
    labels: Sequence[int] = (),
    keep_mm: float | None = None,
    on_problem: Callable[[Problem], object] = lambda problem: None,
    report: Report = lambda share, text: None,
    mirror: Mirror = "no",
) -> Iterator[Repair]:
    """Repair masks of an atlas's organ; what cannot be read or fitted goes to `on_problem`.

    The shape is fitted to a mask's largest pieces, as many as the organ has, so that islands do not widen its box.
    Memory grows with the masks of one batch (`FitConfig.batch`).

    Args:
        atlas: of that organ.
        sources: mask files.
        labels: that make up the organ; by default those of the atlas.
        keep_mm: labels nearer to the shape's surface stay, and no others; by default those within `KEEP_VOXELS` of a
            voxel, and all where mask and shape differ little.
        on_problem: told of what cannot be used.
        report: told how far it is.
        mirror: which are mirror images of the atlas's organs.

    Raises:
        InputError: a distance that is none.
    """
    if keep_mm is not None and not 0 <= keep_mm < np.inf:
        raise InputError("keep", f"{keep_mm} mm is not a distance", "Give millimetres, 0 or more.")
    # A hole is not to be followed.
    config = FitConfig(code_weight=CODE_WEIGHT, strays=0.0, batch=at_once(atlas.device.type))
    for first in range(0, len(sources), config.batch):
        begun = []
        for file in map(CaseFile.of, sources[first : first + config.batch]):
            try:
                mask = read_mask(file.path, tuple(labels) or atlas.config.labels)
                begun.append(_begun(atlas, mask, keep_mm, mirror, file.name))
            except InputError as error:
                on_problem(file.problem(error))

        def overall(share: float, text: str, done: int = first, count: int = len(begun)) -> None:
            report((done + share * count) / len(sources), text)

        yield from _repaired(atlas, begun, keep_mm, config, on_problem, overall)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A mask, what it says by itself, and that as a shape, with a doubt about its side and ends."""

    mask: Mask
    start: Start
    shape: Shape
    doubt: str | None


def _begun(atlas: TrainedAtlas, mask: Mask, keep_mm: float | None, mirror: Mirror, name: str) -> _Begun:
    most, start = pieces_of(atlas), Start(mask.occupancy)
    shape, doubt = sided(atlas, _shape_of(atlas, mask, mask.occupancy, most, name), mirror)
    if keep_mm is None:
        start = mended(atlas, mask, most, shape.frame.mirrored)
        whole = _shape_of(atlas, mask, start.occupancy, most, name)
        shape = whole.mirrored() if shape.frame.mirrored else whole
    return _Begun(mask, start, shape, all_doubts(doubt, cut_mask(mask)))


def _repaired(
    atlas: TrainedAtlas,
    begun: Sequence[_Begun],
    keep_mm: float | None,
    config: FitConfig,
    on_problem: Callable[[Problem], object],
    report: Report,
) -> Iterator[Repair]:
    most = pieces_of(atlas)
    fits = atlas.fit([one.shape for one in begun], config, report) if begun else []
    for one, fit in zip(begun, fits, strict=True):
        mask = one.mask
        if not np.isfinite(fit.found.code).all():
            on_problem(Problem(fit.name, mask.path, f"the fit failed: {fit.failure}"))
            continue
        # That a shape says little of a mask is for `doubt` to tell: the mask is not to be believed.
        trusted = replace(fit, found=replace(fit.found, failure=None))
        found = repaired(mask, trusted, keep_mm, most, one.start)
        if found.likeness < REFUSED_DSC:
            problem = all_doubts(found.doubt, one.doubt)
            on_problem(Problem(fit.name, mask.path, f"{problem}. {WRONG_ORGAN}"))
        else:
            size = unlike_size(atlas.config, trusted.placed())
            yield replace(found, doubt=all_doubts(found.doubt, one.doubt, size))


def _shape_of(
    atlas: TrainedAtlas, mask: Mask, occupancy: Bool[np.ndarray, "x y z"], pieces: int, name: str
) -> Shape:
    """The largest pieces of an occupancy on a mask's grid, in the atlas's frame."""
    organ = replace(mask, occupancy=largest_pieces(occupancy, pieces, mask.grid.spacing_mm)[0])
    return atlas.config.prepared.shape_of(organ, name, "")


def repaired(
    mask: Mask,
    fit: Fit,
    keep_mm: float | None = None,
    pieces: int = 1,
    start: Start | None = None,
) -> Repair:
    """The mask of an organ of so many pieces with what lies far from its shape corrected; see `repair`.

    `start` is what the mask itself says, as `mended` gives it; by default the mask as it is.
    """
    inside = fit.mask_on(mask.grid)
    start = start or Start(mask.occupancy)
    occupancy = start.occupancy
    if keep_mm is None:
        keep_mm = KEEP_VOXELS * float(mask.grid.spacing_mm.mean())
        if is_fine(mask, fit):  # in coarser voxels the shape says more than the outline itself
            occupancy = smoothed(occupancy, inside, mask.grid.spacing_mm)
        loose = loose_voxels(occupancy, pieces, mask.grid.spacing_mm)
        # A hole or an island says nothing of the outline around it.
        outline = np.where(loose, inside, occupancy)
        apart = noisy(outline, inside, mask.grid.spacing_mm, *unit_of(mask, fit)) | loose
        apart &= inside != occupancy
    else:
        apart = inside != occupancy
    where = np.argwhere(apart)
    points_mm = where @ mask.grid.affine[:3, :3].T + mask.grid.affine[:3, 3]
    far_mm = KDTree(fit.mesh().vertices).query(points_mm)[0] if len(where) else np.zeros(0)
    wrong = tuple(where[far_mm > keep_mm].T)
    occupancy = occupancy.copy()
    occupancy[wrong] = inside[wrong]
    added, removed = (
        int((a & ~b).sum()) for a, b in ((occupancy, mask.occupancy), (mask.occupancy, occupancy))
    )
    likeness = dsc(inside, mask.occupancy)
    return Repair(
        mask, fit, occupancy, added, removed, likeness, start.slice_mm, start.put_back, unlike_mask(likeness)
    )


def loose_voxels(
    occupancy: Bool[np.ndarray, "x y z"], pieces: int = 1, spacing_mm: Float[np.ndarray, "3"] | None = None
) -> Bool[np.ndarray, "x y z"]:
    """Pockets that a mask encloses, and islands: what is not of its largest pieces, as many as the organ has."""
    pockets = binary_fill_holes(occupancy) & ~occupancy
    return pockets | (occupancy & ~largest_pieces(occupancy, pieces, spacing_mm)[0])


def is_fine(mask: Mask, fit: Fit) -> bool:
    """Whether voxels say more than the shape follows."""
    return float(mask.grid.spacing_mm.mean()) < FINE * float(fit.placed().lattice_spacing_mm.mean())


def unit_of(mask: Mask, fit: Fit) -> tuple[float, float]:
    """In which mask and shape are compared, in mm, and how many of it are noise."""
    if is_fine(mask, fit):
        return STEPS * float(fit.placed().lattice_spacing_mm.mean()), FINE_NOISE
    return float(mask.grid.spacing_mm.mean()), NOISE


def noisy(
    occupancy: Bool[np.ndarray, "x y z"],
    shape: Bool[np.ndarray, "x y z"],
    spacing_mm: Float[np.ndarray, "3"],
    unit_mm: float,
    noise: float = NOISE,
) -> Bool[np.ndarray, "x y z"]:
    """Where a mask and its shape differ more than a clean mask's outline and its shape's do.

    Args:
        occupancy: the mask.
        shape: on the same grid.
        spacing_mm: of that grid.
        unit_mm: what is smaller, masks do not say or shapes do not follow.
        noise: how many units they may differ around a voxel, root mean square.
    """
    out = np.zeros(occupancy.shape, bool)
    extent = np.argwhere(occupancy | shape)
    margin = np.ceil(3 * unit_mm / spacing_mm).astype(int)
    first, last = np.maximum(extent.min(0) - margin, 0), extent.max(0) + margin + 1
    window = tuple(slice(low, high) for low, high in zip(first, last, strict=True))
    ours, theirs = (depths(volume[window], spacing_mm) / unit_mm for volume in (occupancy, shape))
    surfaces = ((np.abs(theirs) < NEAR) | (np.abs(ours) < 1)).astype(np.float32)
    # Windows are far wider than a unit, so that sums over blocks of one do.
    block = np.maximum(1, np.floor(unit_mm / spacing_mm)).astype(int)
    width = AROUND * unit_mm / (block * spacing_mm)
    squares, count = (
        gaussian_filter(block_sums(values, block), width)
        for values in (np.square(ours - theirs) * surfaces, surfaces)
    )
    found = squares > noise**2 * count
    for axis in range(3):
        found = found.repeat(block[axis], axis)
    out[window] = found[tuple(map(slice, ours.shape))]
    return out


def block_sums(values: Float[np.ndarray, "x y z"], block: Int[np.ndarray, "3"]) -> Float[np.ndarray, "i j k"]:
    """Sums over blocks of voxels; those at the ends may be smaller."""
    for axis in range(3):
        values = np.add.reduceat(values, np.arange(0, values.shape[axis], block[axis]), axis)
    return values
