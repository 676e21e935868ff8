"""Of which side an organ is of which little was seen: its mirror image is completed, too, and the likelier one kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from implicit_atlas.fitting.fit import Fit
from implicit_atlas.fitting.sparse import SparseConfig
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.sides import has_side
from implicit_atlas.trained_atlas import TrainedAtlas

# A short search of the right side is likelier than a whole one of the wrong one: by 3.8 to 59 in logarithms (24 and 64
# clicks on the boundary, 64 labelled ones, three slices of eight hippocampi of `val`), and one of the wrong side less
# likely than a whole one of the right one, by 5.6 to 84. It costs a quarter of a whole one.
ROUGH = 7  # iterations of it
SURE = 3.0  # by how much the logarithms of two probabilities must differ, of two spaces or sides
SHORT = 20.0  # what a short search may lack
UNSURE = "of which side it is was not seen: say --mirror no or all"
OTHER_SIDE = (
    "its mirror image would be far more probable: is it of the other side (--mirror auto), or another space?"
)
OWN_SIDE = (
    "as it is, it would be far more probable: is it of the atlas's side (no --mirror), or another space?"
)


Found = TypeVar("Found")


def likelier_mirrored(
    atlas: TrainedAtlas, observations: Sequence[Observations], fits: Sequence[Fit]
) -> list[float]:
    """By how much organs would be more probable mirrored than as they were completed, in logarithms, at the least.

    Of atlases without a side, and where nothing is found, that is minus infinity.
    """
    if not has_side(atlas):
        return [-np.inf] * len(fits)
    images = atlas.complete_in_scan(turned(observations), SparseConfig(iterations=ROUGH))
    return [more_probable(fit, image) for fit, image in zip(fits, images, strict=True)]


def turned(observations: Sequence[Observations]) -> list[Observations]:
    """The same of organs that are of the other side."""
    return [replace(seen, mirrored=not seen.mirrored) for seen in observations]


def more_probable(fit: Fit, image: Fit) -> float:
    """By how much the image is more probable, in logarithms."""
    if image.failure is not None:
        return -np.inf
    return np.inf if fit.failure is not None else fit.found.unguided - image.found.unguided


def side_doubt(mirrored: bool, more: float) -> str | None:
    """The doubt about the side of an organ that was completed as it was told; `more` as `likelier_mirrored` says it."""
    if more < SURE:
        return None
    return OWN_SIDE if mirrored else OTHER_SIDE


def on_likelier_sides(
    observations: Sequence[Observations],
    completed: Sequence[Found],
    more: Sequence[float],
    search: Callable[[list[Observations]], list[Found]],
    fit_of: Callable[[Found], Fit],
) -> tuple[list[Observations], list[Found], list[str | None]]:
    """What is likelier, each completion or its mirror image, which is searched for where it may be; doubts which it is.

    Args:
        observations: what was observed.
        completed: the shapes that were found.
        more: by how much the images are more probable, as `likelier_mirrored` says it.
        search: finds shapes.
        fit_of: the most probable shape of what was found.
    """
    seen, found = list(observations), list(completed)
    doubts: list[str | None] = [None] * len(found)
    near = [i for i, value in enumerate(more) if value > -SHORT]
    images = turned([seen[i] for i in near])
    for i, told, image in zip(near, images, search(images) if images else [], strict=True):
        value = more_probable(fit_of(found[i]), fit_of(image))
        doubts[i] = UNSURE if abs(value) < SURE else None
        if value > 0:
            seen[i], found[i] = told, image
    return seen, found, doubts
