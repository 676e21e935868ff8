"""Codes that fits of whole masks start from: the mean, the nearest training code, and a linear encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from implicit_atlas.atlas.linear import LinearEncoder, signed_distances
from implicit_atlas.shapes.shape import Shape


@dataclass(frozen=True, eq=False)
class Starts:
    """Candidate codes for each shape: (shapes, candidates, c); candidate 0 is the mean code.

    Every one is tried with every template, or with the one that is given.
    """

    codes: Float[np.ndarray, "n k c"]
    names: tuple[str, ...]
    template: int | None = None


def candidates(
    shapes: Sequence[Shape],
    encoder: LinearEncoder,
    codes: Float[np.ndarray, "n c"],
    template: int | None = None,
) -> Starts:
    """For every shape the mean of the training codes, the nearest of them and the linear encoding.

    Args:
        shapes: to be fitted.
        encoder: from shapes to codes.
        codes: of the training shapes.
        template: the one to try; all by default.
    """
    features = [signed_distances(shape.occupancy, encoder.resolution) for shape in shapes]
    linear = encoder.encode(np.stack(features))
    mean = np.repeat(codes.mean(0, keepdims=True), len(shapes), axis=0)
    distance = ((linear[:, None] - codes[None]) ** 2).sum(-1)
    nearest = codes[distance.argmin(1)]
    return Starts(np.stack([mean, nearest, linear], axis=1), ("mean", "nearest", "linear"), template)
