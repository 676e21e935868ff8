"""Whether clicks are in the space that their file says: LPS and RAS are half a turn about the long axis apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from implicit_atlas.completion.click_sides import MOST
from implicit_atlas.completion.mirrored import ROUGH, SURE, more_probable, turned
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.fitting.sparse import SparseConfig
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.trained_atlas import TrainedAtlas

SHORT = 30.0  # what a short search may lack: 256 clicks on a pancreas 26, in logarithms
HALF_TURN = np.array([-1.0, -1.0, 1.0])  # from RAS to LPS, and back
TURNED = (
    "with the signs of x and y swapped its clicks would be far more probable: they may be in the wrong space "
    "(LPS or RAS)"
)


def space_doubts(
    atlas: TrainedAtlas, observations: Sequence[Observations], fits: Sequence[Fit], either: bool = False
) -> list[str | None]:
    """Doubts about clicks that would be more probable in the other space.

    A short search there says whether a whole one is worth its time. How improbable clicks are of the shape that was
    found does not: of pancreases, which are thin, some wrong ones fit as well as right ones of hippocampi.

    Args:
        atlas: of the organ.
        observations: in RAS millimetres.
        fits: the shape that was found of each.
        either: of which side the organs are is not known. Clicks in the wrong space look somewhat like the other side.
    """
    doubts: list[str | None] = [None] * len(fits)
    asked = [i for i, fit in enumerate(fits) if fit.failure is None and len(observations[i].points) <= MOST]
    others = [replace(observations[i], points=observations[i].points * HALF_TURN) for i in asked]
    if either:
        asked, others = 2 * asked, others + turned(others)
    short = _more_probable(atlas, [fits[i] for i in asked], others, SparseConfig(iterations=ROUGH))
    near = [k for k, more in enumerate(short) if -SHORT < more <= SURE]
    whole = _more_probable(atlas, [fits[asked[k]] for k in near], [others[k] for k in near])
    for k, more in (*enumerate(short), *zip(near, whole, strict=True)):
        if more > SURE:
            doubts[asked[k]] = TURNED
    return doubts


def _more_probable(
    atlas: TrainedAtlas,
    fits: Sequence[Fit],
    others: Sequence[Observations],
    config: SparseConfig | None = None,
) -> list[float]:
    """By how much other observations are more probable than those of the fits, in logarithms."""
    found = atlas.complete_in_scan(others, config) if others else []
    return [more_probable(fit, other) for fit, other in zip(fits, found, strict=True)]
