"""Whether clicks are in the space that their file says: LPS and RAS are half a turn about the long axis apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from implicit_atlas.completion.click_sides import MOST
from implicit_atlas.completion.mirrored import SURE, more_probable, turned
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.trained_atlas import TrainedAtlas

# When to look for clicks in the other space, too. Improbability a labelled click, 16 to 256 of hippocampi and livers of
# `val`: 0.25 to 0.62; in the wrong space 0.59 to 2.30. So some in the right one are searched for twice; none of 27 was
# called wrong then. Moved clicks on the boundary: 0 to 2 %, and 14 to 39 %.
SUSPECT_CLICK, SUSPECT_MOVED = 0.45, 0.05
HALF_TURN = np.array([-1.0, -1.0, 1.0])  # from RAS to LPS, and back
TURNED = (
    "with the signs of x and y swapped its clicks would be far more probable: they may be in the wrong space "
    "(LPS or RAS)"
)


def space_doubts(
    atlas: TrainedAtlas,
    observations: Sequence[Observations],
    fits: Sequence[Fit],
    moved: Sequence[float],
    either: bool = False,
) -> list[str | None]:
    """Doubts about clicks that their shapes explain badly, and those of the other space better.

    Args:
        atlas: of the organ.
        observations: in RAS millimetres.
        fits: the shape that was found of each.
        moved: share of the clicks of each that its shape contradicts.
        either: of which side the organs are is not known. Clicks in the wrong space look somewhat like the other side.
    """
    doubts: list[str | None] = [None] * len(fits)
    suspects = [i for i, fit in enumerate(fits) if _suspect(observations[i], fit, moved[i])]
    if not suspects:
        return doubts
    others = [replace(observations[i], points=observations[i].points * HALF_TURN) for i in suspects]
    if either:
        suspects = 2 * suspects
        others += turned(others)
    for i, fit in zip(suspects, atlas.complete_in_scan(others), strict=True):
        if more_probable(fits[i], fit) > SURE:
            doubts[i] = TURNED
    return doubts


def _suspect(seen: Observations, fit: Fit, moved: float) -> bool:
    count = len(seen.points)
    badly = fit.found.improbability > SUSPECT_CLICK * count
    return fit.failure is None and count <= MOST and (badly or moved > SUSPECT_MOVED)
