"""How large an organ's cube is: the distribution of its sizes, and what the code says of them.

Proportions of a box go with the shape in it: a tilted or bent organ fills a higher one. Of how the logarithms of
hippocampi's heights vary, their codes say four fifths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from implicit_atlas.atlas.folder import AtlasConfig
from implicit_atlas.atlas.prior import MANY
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Frame, FrameKind
from implicit_atlas.shapes.shape import Shape

UNLIKE = 2.0  # times a side of the largest and of the smallest training shape: no organ of that kind
SIZE = 0.15  # standard deviation of the logarithm of a size, where only the mean is known
ALIKE = 5  # so many shapes' worth of independent sizes are mixed into the covariance
# Penalties of the regression, in units of the codes' mean squared distance from their mean; infinite is no regression.
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)


@dataclass(frozen=True, eq=False)
class SizePrior:
    """Normal distribution of the logarithms of a cube's sizes in mm, given the code.

    Args:
        mean: (3,) over the training shapes.
        code: (c,) their mean code.
        slopes: (3, c) change of the logarithms with the code.
        rest: (3, 3) factor of the covariance of what codes do not say.
    """

    mean: Float[np.ndarray, "3"]
    code: Float[np.ndarray, " c"]
    slopes: Float[np.ndarray, "3 c"]
    rest: Float[np.ndarray, "3 3"]

    def sizes_mm(
        self, code: Float[np.ndarray, " c"], numbers: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "3"]:
        """Sizes along the cube's axes, of a code and of standard normal numbers."""
        return np.exp(self.mean + self.slopes @ (code - self.code) + self.rest @ numbers)


def size_prior(config: AtlasConfig, codes: Float[np.ndarray, "n c"]) -> SizePrior:
    """Of the cubes that an atlas was trained on, and its training codes; codes say nothing where one mean is known."""
    logs, codes = np.log(np.array(config.sizes_mm)), codes.astype(np.float64)
    slopes, missed = np.zeros((3, codes.shape[1])), logs
    if len(logs) == len(codes):
        slopes, missed = regress(codes, logs)
    return SizePrior(logs.mean(0), codes.mean(0), slopes, size_factor(missed, config.frame))


def unlike_size(config: AtlasConfig, frame: Frame) -> str | None:
    """Why a shape's cube cannot be one of the atlas's organ, or None: shapes have no size, only their frames do."""
    side = float(np.exp(np.log(frame.lattice_spacing_mm * frame.resolution).mean()))
    sides = np.exp(np.log(np.array(config.sizes_mm)).mean(1))
    times = max(side / sides.max(), sides.min() / side)
    if times < UNLIKE:
        return None
    kind = "larger than the largest" if side > sides.max() else "smaller than the smallest"
    return (
        f"its box of {side:.3g} mm (geometric mean of its sides) is {times:.3g} times {kind} that the atlas learned, "
        f"{sides.min():.3g} to {sides.max():.3g} mm: are its voxels in millimetres?"
    )


def size_factor(logs: Float[np.ndarray, "n 3"], kind: FrameKind) -> Float[np.ndarray, "3 3"]:
    """Factor of the covariance of logarithms of sizes, with one of `SIZE` mixed in; "isotropic" cubes have one."""
    round_one = SIZE**2 * (np.ones((3, 3)) if kind == "isotropic" else np.eye(3))
    share = ALIKE / (ALIKE + len(logs) - 1)
    covariance = np.cov(logs.T) if len(logs) > 1 else round_one
    if kind == "isotropic":
        covariance = np.full((3, 3), covariance.mean())
    covariance = (1 - share) * covariance + share * round_one
    variance, axes = np.linalg.eigh(covariance)
    return axes * np.sqrt(variance.clip(min=0))


def regress(
    codes: Float[np.ndarray, "n c"], logs: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "3 c"], Float[np.ndarray, "n 3"]]:
    """Slopes of a ridge regression, and what it misses of each shape when that is left out.

    The penalty of each axis is that which misses least; of fewer than `MANY` shapes no slope is known.
    """
    about, target = codes - codes.mean(0), logs - logs.mean(0)
    count = len(codes)
    slopes, missed = np.zeros((3, codes.shape[1])), target * (count / max(1, count - 1))
    if count < MANY:
        return slopes, missed
    values, axes = np.linalg.eigh(about @ about.T)
    values = values.clip(min=0)
    least = np.full(3, np.inf)
    for penalty in PENALTIES:
        kept = 1 / (values + penalty * values.sum() / count) if np.isfinite(penalty) else 0 * values
        weights = axes @ (kept[:, None] * (axes.T @ target))
        leverage = (axes**2 * (values * kept)).sum(1) + 1 / count
        left_out = (target - about @ (about.T @ weights)) / (1 - leverage)[:, None]
        better = (left_out**2).sum(0) < least
        least = np.where(better, (left_out**2).sum(0), least)
        slopes[better], missed[:, better] = (weights.T @ about)[better], left_out[:, better]
    return slopes, missed


def check_shapes(config: AtlasConfig, shapes: Sequence[Shape]) -> None:
    """Refuse shapes that an atlas's fits cannot be compared with.

    Raises:
        InputError: other things than shapes, of different resolutions, or of other frames than the training shapes.
    """
    if isinstance(shapes, Shape):
        raise InputError("fit", "was given one shape", "Give a list of them: [shape].")
    for other in (shape for shape in shapes if not isinstance(shape, Shape)):
        remedy = "Give shapes: load_shapes(folder), or shape_from_array(array, affine)."
        raise InputError("fit", f"was given a {type(other).__name__}", remedy)
    resolutions = {shape.frame.resolution for shape in shapes}
    if len(resolutions) > 1:
        raise InputError("shapes", f"have resolutions {sorted(resolutions)}", "Prepare them at one.")
    if {(shape.frame.margin, shape.frame.kind) for shape in shapes} != {(config.margin, config.frame)}:
        problem = "were prepared with another margin or kind of frame than the atlas's training shapes"
        raise InputError("shapes", problem, "Load them by load_shapes(..., like=atlas.config.prepared).")
