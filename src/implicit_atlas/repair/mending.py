"""What can be mended of a mask before a shape is fitted to it: stairs of thick slices, and what a plane cut off."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from implicit_atlas.completion.completion import complete
from implicit_atlas.completion.observe import Drawn
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.flat_ends import cut_ends
from implicit_atlas.geometry.outlines import stairs_of, without_stairs
from implicit_atlas.geometry.pieces import largest_pieces
from implicit_atlas.io import Mask, case_name
from implicit_atlas.trained_atlas import TrainedAtlas

# Whole hippocampi have flat ends, too. What the probable whole organ adds decides: where nothing was cut off, up to a
# twentieth of what it differs by elsewhere (a half at one blunt tail), where a tenth was, as much and more.
# What an end must add, as a share of the mask, and of what mask and whole organ differ by where it was seen.
LEAST, SURE = 0.015, 0.6


@dataclass(frozen=True, eq=False)
class Start:
    """A mask as a fit starts with it.

    Args:
        occupancy: of it, mended.
        slice_mm: thickness of slices whose stairs were smoothed, 0 where there were none.
        put_back: voxels beyond a flat end.
    """

    occupancy: Bool[np.ndarray, "x y z"]
    slice_mm: float = 0.0
    put_back: int = 0


def mended(atlas: TrainedAtlas, mask: Mask, pieces: int, mirrored: bool = False) -> Start:
    """A mask of so many pieces without the stairs of thick slices, or with what a plane cut off.

    `mirrored` says that it is a mirror image of the atlas's organs.
    """
    spacing_mm, occupancy = mask.grid.spacing_mm, mask.occupancy
    stairs = stairs_of(occupancy)
    if stairs is not None:
        occupancy = without_stairs(occupancy, spacing_mm, stairs)
        # Their first and last slices are flat ends that nobody cut off.
        return Start(occupancy, stairs.apart * float(spacing_mm[stairs.axis]))
    organ = largest_pieces(occupancy, pieces, spacing_mm)[0]
    whole = rounded_off(atlas, replace(mask, occupancy=organ), mirrored)
    return Start(occupancy | whole, 0.0, int((whole & ~occupancy).sum()))


def rounded_off(atlas: TrainedAtlas, mask: Mask, mirrored: bool = False) -> Bool[np.ndarray, "x y z"]:
    """An organ with what the probable whole one has beyond its flat end; as it is where that is hardly anything.

    What lies beyond the end is unobserved then, not background. Nothing is put back that is mostly a guess.
    """
    occupancy, spacing_mm = mask.occupancy, mask.grid.spacing_mm
    least = LEAST * occupancy.sum()
    ends = cut_ends(occupancy, spacing_mm)
    beyond = [end.beyond(mask.grid.shape, spacing_mm) & ~occupancy for end in ends]
    beyond = [one for one in beyond if one.sum() > least]  # or the volume ends there, too
    if not beyond:
        return occupancy
    seen = Drawn(mask, ~np.any(beyond, axis=0)).observations(case_name(mask.path))
    try:
        done = complete(atlas, [seen], mirror="all" if mirrored else "no")[0]
    except InputError:  # far too large for this organ, as the fit to it will say
        return occupancy
    if done.doubt is not None:
        return occupancy
    whole, found = occupancy.copy(), done.mask_on(mask.grid)
    wrong = (found != occupancy) & ~np.any(beyond, axis=0)
    least = max(least, SURE * wrong.sum())  # a model that knows the organ badly knows no ends
    for one in beyond:
        if (found & one).sum() > least:
            whole |= found & one
    return whole
