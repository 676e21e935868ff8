"""Agreement of two masks: DSC, and NSD, HD95, HD and ASSD by the definition of DeepMind's surface-distance.

Surface: the marching-cubes surface of the mask at 1/2, one element for each 2x2x2 neighbourhood of voxels
that it crosses, weighted by its area in mm^2 and located at the neighbourhood's centre. Distance: from an
element to the nearest element of the other surface, in mm. (Nikolov et al. 2018, "Deep learning to achieve
clinically applicable segmentation of head and neck anatomy for radiotherapy", arXiv:1809.04430.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.distance import squared_distance
from implicit_atlas.geometry.frame import occupied_box
from implicit_atlas.geometry.surface_elements import neighbourhood_codes, surface_areas

NSD_DEFINITION = (
    "DeepMind surface-distance: marching-cubes surface elements (sub-voxel) weighted by area, "
    "both surfaces pooled, distance <= tolerance"
)

NEAR_VOX = 6.0  # elements that are farther from the other surface are looked up in a distance transform


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, element by element, sorted from near to far.

    Args:
        truth_to_prediction_mm: (n,) distance of each element of the true surface, infinite to an empty mask.
        prediction_to_truth_mm: (m,) the same from the predicted surface.
        truth_areas_mm2: (n,) area of the true surface's elements, in the order of their distances.
        prediction_areas_mm2: (m,) the same for the predicted surface.
    """

    truth_to_prediction_mm: Float[np.ndarray, " n"]
    prediction_to_truth_mm: Float[np.ndarray, " m"]
    truth_areas_mm2: Float[np.ndarray, " n"]
    prediction_areas_mm2: Float[np.ndarray, " m"]

    @property
    def both_empty(self) -> bool:
        """True if neither mask has a surface; every score is then perfect."""
        return not len(self.truth_areas_mm2) and not len(self.prediction_areas_mm2)

    @property
    def one_empty(self) -> bool:
        """True if exactly one mask has a surface; every score is then the worst possible."""
        return bool(len(self.truth_areas_mm2)) != bool(len(self.prediction_areas_mm2))


@dataclass(frozen=True)
class Scores:
    """Agreement of one predicted mask with the truth.

    Args:
        dsc: Dice similarity coefficient, 0 to 1.
        nsd: normalised surface Dice at the stated tolerance, 0 to 1.
        hd95: 95th percentile of the surface distances, in the unit of the spacing.
        assd: average symmetric surface distance, in the unit of the spacing.
    """

    dsc: float
    nsd: float
    hd95: float
    assd: float


def dsc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Dice similarity coefficient 2|A and B| / (|A| + |B|), 0 to 1; two empty masks agree fully (1).

    Args:
        truth: mask (x, y, z), bool or integer (non-zero is inside).
        prediction: mask of the same shape.

    Raises:
        InputError: the shapes differ or an array is not a 3-D mask.
    """
    truth, prediction = _as_masks(truth, prediction)
    total = int(np.count_nonzero(truth)) + int(np.count_nonzero(prediction))
    return 2 * int(np.count_nonzero(truth & prediction)) / total if total else 1.0


def surface_distances(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> SurfaceDistances:
    """Distances from each surface's elements to the other surface.

    Args:
        truth: mask (x, y, z), bool or integer (non-zero is inside); what lies beyond the array is outside.
        prediction: mask of the same shape.
        spacing_mm: voxel size in mm along each axis.

    Returns:
        Distances in mm and areas in mm^2. An empty mask has no elements; distances to it are infinite.

    Raises:
        InputError: the shapes differ, an array is not a 3-D mask, or the spacing is not 3 positive numbers.
    """
    truth, prediction = _as_masks(truth, prediction)
    spacing = _checked_spacing(spacing_mm)
    box = occupied_box(truth | prediction)
    codes, other = neighbourhood_codes(truth[box]), neighbourhood_codes(prediction[box])
    forward, truth_areas = _sorted_distances(codes, other, spacing)
    backward, prediction_areas = _sorted_distances(other, codes, spacing)
    return SurfaceDistances(forward, backward, truth_areas, prediction_areas)


def nsd(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Normalised surface Dice: the share of both surfaces' area within a tolerance of the other surface.

    Two empty masks score 1, one empty mask 0.

    Raises:
        InputError: the tolerance is negative or not a number.
    """
    if not tolerance_mm >= 0:
        raise InputError("tolerance", f"{tolerance_mm} is not a distance", "Give a number of at least 0.")
    if distances.both_empty:
        return 1.0
    near = (
        distances.truth_areas_mm2[distances.truth_to_prediction_mm <= tolerance_mm].sum()
        + distances.prediction_areas_mm2[distances.prediction_to_truth_mm <= tolerance_mm].sum()
    )
    return float(near / (distances.truth_areas_mm2.sum() + distances.prediction_areas_mm2.sum()))


def hausdorff(distances: SurfaceDistances, percent: float = 100.0) -> float:
    """Hausdorff distance at a percentile: the larger of the two directions' area-weighted percentiles, in mm.

    Two empty masks are at distance 0, one empty mask at infinity.

    Raises:
        InputError: the percentile is outside 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise InputError("percent", f"{percent} is not a percentile", "Give a number from 0 to 100.")
    if distances.both_empty or distances.one_empty:
        return 0.0 if distances.both_empty else float("inf")
    return max(
        _weighted_percentile(distances.truth_to_prediction_mm, distances.truth_areas_mm2, percent),
        _weighted_percentile(distances.prediction_to_truth_mm, distances.prediction_areas_mm2, percent),
    )


def hd95(distances: SurfaceDistances) -> float:
    """Robust Hausdorff distance: the 95th percentile, in mm (see `hausdorff`)."""
    return hausdorff(distances, 95.0)


def assd(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance in mm: the mean of the two directions' area-weighted mean distances.

    Two empty masks are at distance 0, one empty mask at infinity.
    """
    if distances.both_empty or distances.one_empty:
        return 0.0 if distances.both_empty else float("inf")
    forward = np.average(distances.truth_to_prediction_mm, weights=distances.truth_areas_mm2)
    backward = np.average(distances.prediction_to_truth_mm, weights=distances.prediction_areas_mm2)
    return float((forward + backward) / 2)


def score(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float = 1.0,
) -> Scores:
    """All scores of one pair of masks.

    Args:
        truth: mask (x, y, z), bool or integer (non-zero is inside).
        prediction: mask of the same shape.
        spacing: voxel size along each axis, in mm, or (1, 1, 1) to measure in voxels as the protocol does.
        tolerance: NSD's tolerance, in the same unit.

    Raises:
        InputError: the shapes differ, an array is not a 3-D mask, or spacing or tolerance make no sense.
    """
    distances = surface_distances(truth, prediction, spacing)
    return Scores(dsc(truth, prediction), nsd(distances, tolerance), hd95(distances), assd(distances))


def _as_masks(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = _as_mask(truth, "truth"), _as_mask(prediction, "prediction")
    if truth.shape != prediction.shape:
        problem = f"its shape {prediction.shape} differs from the truth's {truth.shape}"
        raise InputError("prediction", problem, "Resample it to the truth's grid first.")
    return truth, prediction


def _as_mask(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 3:
        raise InputError(name, f"a mask must have 3 axes, this one has {values.ndim}", "Pass one 3-D mask.")
    if values.dtype != bool and not np.issubdtype(values.dtype, np.integer):
        problem = f"a mask must be bool or integer, this one is {values.dtype}"
        raise InputError(name, problem, "Threshold it first, for example values > 0.5.")
    return values.astype(bool, copy=False)


def _checked_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise InputError("spacing", f"{spacing} is not a voxel size", "Give three positive numbers in mm.")
    return spacing[0], spacing[1], spacing[2]


def _crossed(codes: np.ndarray) -> np.ndarray:
    """True for the neighbourhoods that the surface crosses: neither all empty (0) nor all full (255)."""
    return codes - np.uint8(1) < 254


def _sorted_distances(
    codes: np.ndarray, other_codes: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Distance to the other surface and area of each element, sorted by distance and then by area."""
    at, other_at = np.flatnonzero(_crossed(codes)), np.flatnonzero(_crossed(other_codes))
    areas = surface_areas(spacing_mm)[codes.ravel()[at]]
    if len(other_at) == 0:
        return np.full(len(at), np.inf), np.sort(areas)
    distances = np.zeros(len(at))
    apart = ~_crossed(other_codes.ravel()[at])
    distances[apart] = _nearest(at[apart], other_at, codes.shape, spacing_mm)
    order = np.lexsort((areas, distances))
    return distances[order], areas[order]


def _nearest(
    at: Int[np.ndarray, " n"],
    other_at: Int[np.ndarray, " m"],
    shape: tuple[int, ...],
    spacing_mm: tuple[float, float, float],
) -> Float[np.ndarray, " n"]:
    """Distance in mm from each element to the nearest of the others, both given by flat index."""
    spacing = np.array(spacing_mm)
    points, others = (np.stack(np.unravel_index(flat, shape), axis=1) for flat in (at, other_at))
    tree = KDTree(others * spacing, balanced_tree=False, compact_nodes=False)
    # A tree is slow where many elements are about equally far. There a distance transform serves, exact in single
    # precision as long as squared distances are whole numbers of one unit.
    even = len(set(spacing_mm)) == 1
    reach = NEAR_VOX * spacing_mm[0] if even else np.inf
    nearest = np.asarray(tree.query(points * spacing, distance_upper_bound=reach, workers=-1)[1])
    near = nearest < len(others)
    distances = np.empty(len(at))
    # From whole voxel offsets, so that a distance of exactly the tolerance is not spoilt by rounding.
    offsets = (points[near] - others[nearest[near]]) * spacing
    distances[near] = np.sqrt((offsets**2).sum(axis=1))
    if not near.all():
        empty = np.ones(shape, bool)
        empty.ravel()[other_at] = False
        squared = squared_distance(empty).ravel()[at[~near]]
        distances[~near] = np.sqrt(squared.astype(np.float64)) * spacing_mm[0]
    return distances


def _weighted_percentile(
    distances_mm: Float[np.ndarray, " n"], areas_mm2: Float[np.ndarray, " n"], percent: float
) -> float:
    covered = np.cumsum(areas_mm2) / np.sum(areas_mm2)
    return float(distances_mm[min(np.searchsorted(covered, percent / 100), len(distances_mm) - 1)])
