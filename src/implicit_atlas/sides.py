"""Organs of the other side: left and right ones are mirror images, and an atlas may have learned one of them only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float

from implicit_atlas.atlas.linear import WORKING, signed_distances
from implicit_atlas.errors import InputError
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.trained_atlas import TrainedAtlas

Mirror = Literal["no", "auto", "all"]
"""Which organs are taken for mirror images of the atlas's: none, those that clearly are, or all."""

# A shape and its mirror image are encoded linearly, and their distances from the mean code compared. An atlas has a
# side where the mean shape's mirror image is farther than so many times the median of the training codes: hippocampi,
# livers and pancreases 2.8 to 3.6, prostates 0.7, kidneys of both sides 1.0.
SIDED, FEW = 1.5, 5
# Then a shape is of the other side where its image's distance is below this share of its own. Of `val`, with atlases of
# `train`, images of hippocampi and livers come to 0.21 to 0.58, the shapes themselves to 1.7 to 4.7; with five training
# shapes one hippocampus of 39 is missed, and no shape of 89 wrongly found.
NEARER = 0.75

_has_side: WeakKeyDictionary[TrainedAtlas, bool] = WeakKeyDictionary()


def sided(atlas: TrainedAtlas, shape: Shape, mirror: Mirror) -> tuple[Shape, str | None]:
    """A shape as an atlas is to see it, mirrored or not, and the doubt whether that is right.

    Raises:
        InputError: no way to mirror.
    """
    check_mirror(mirror)
    ratio = side_ratio(atlas, shape) if has_side(atlas) else 1.0
    if mirror == "all" or (mirror == "auto" and ratio < NEARER):
        doubt = "as it is, it is nearer to the atlas's organs: it is of their side (no --mirror), or turned"
        return shape.mirrored(), doubt if ratio * NEARER > 1 else None
    doubt = "its mirror image is nearer to the atlas's organs: of the other side (--mirror auto), or turned"
    return shape, doubt if ratio < NEARER else None


def has_side(atlas: TrainedAtlas) -> bool:
    """Whether an atlas's organs differ from their mirror images, and all are of one side; of few, that is not known."""
    if len(atlas.codes) < FEW:
        return False
    if atlas not in _has_side:
        mean = atlas.codes.mean(0)
        occupancy = atlas.shape_of("mean", mean).occupancy(WORKING)
        (image,) = _codes(atlas, [occupancy[::-1]])
        typical = np.median(np.linalg.norm(atlas.codes - mean, axis=1))
        _has_side[atlas] = bool(np.linalg.norm(image - mean) > SIDED * typical)
    return _has_side[atlas]


def side_ratio(atlas: TrainedAtlas, shape: Shape) -> float:
    """Distance of a shape's mirror image from an atlas's mean, as a multiple of the shape's own."""
    occupancy = shape.occupancy
    codes = _codes(atlas, [occupancy, occupancy[::-1]])
    itself, image = np.linalg.norm(codes - atlas.codes.mean(0), axis=1)
    return float(image / max(itself, 1e-6))


def check_mirror(mirror: str) -> None:
    """Refuse what is no way to mirror.

    Raises:
        InputError: naming those that there are.
    """
    if mirror not in get_args(Mirror):
        raise InputError("mirror", f"'{mirror}' is unknown", f"Use one of {', '.join(get_args(Mirror))}.")


def _codes(atlas: TrainedAtlas, occupancies: Sequence[Bool[np.ndarray, "r r r"]]) -> Float[np.ndarray, "n c"]:
    features = [signed_distances(occupancy, atlas.encoder.resolution) for occupancy in occupancies]
    return atlas.encoder.encode(np.stack(features))
