"""What is known of an organ in a scan, as observations in millimetres: clicks, annotated slices, cut-off masks.

Voxels that nobody looked at are unobserved, not background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter, minimum_filter

from implicit_atlas.completion.drawn_slices import Slices, drawn_slices
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.pose import of_organ
from implicit_atlas.geometry.flat_ends import cut_ends
from implicit_atlas.io import Landmarks, Mask
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.sampling import Observations

Seen = Literal["slices", "volume"]

CLICK_MM = 1.0  # how near to the boundary a click on it is taken to be (standard deviation)
NEAR, FAR = 6000, 2000  # voxels of a mask that are observed: next to its border, and elsewhere
REACH_VOXELS = 2  # voxels as near as this to the other side are next to the border
SPAN = 2.5  # clicks of an organ may span so many times the mean size of the training shapes' boxes
MARGIN_SHARE = 0.5  # of the organ's box on each side, from which background voxels are taken
SEED = 0


def from_landmarks(landmarks: Landmarks, spread_mm: float = CLICK_MM) -> Observations:
    """Clicks: inside, outside or on the boundary as the file says; all on the boundary where it says nothing.

    Args:
        landmarks: at least four points.
        spread_mm: standard deviation of the distance between the boundary and a click on it.

    Raises:
        InputError: fewer than four points, or a spread that is no distance.
    """
    try:
        return from_points(landmarks.points_mm, landmarks.occupancy, spread_mm, landmarks.path.name)
    except InputError as error:
        raise InputError(landmarks.path, error.problem, error.remedy) from error


def from_points(
    points_mm: Float[np.ndarray, "n 3"],
    inside: Float[np.ndarray, " n"] | None = None,
    spread_mm: float = CLICK_MM,
    name: str = "points",
) -> Observations:
    """Points in memory, as `from_landmarks` has them of a file.

    Args:
        points_mm: at least four, in RAS millimetres of the scan.
        inside: 1 inside, 0 outside, 1/2 on the boundary; by default all are on the boundary.
        spread_mm: standard deviation of the distance between the boundary and a point on it.
        name: of the case.

    Raises:
        InputError: fewer than four points, values that are not finite or out of range, or a spread that is no distance.
    """
    if not 0 < spread_mm < np.inf:
        raise InputError("spread", f"{spread_mm} mm is not a distance", "Give a positive number of mm.")
    labels = np.full(len(points_mm), 0.5) if inside is None else np.asarray(inside)
    return Observations(points_mm, labels, name=name, spread=np.where(labels == 0.5, spread_mm, np.inf))


def as_clicks(observations: Any) -> list[Observations]:
    """Observations, of which points on the boundary lie as near to it as clicks where nothing says how near.

    Raises:
        InputError: what was given is no list of observations.
    """
    several: list[Any] = list(observations) if isinstance(observations, Sequence) else [None]
    if any(not isinstance(seen, Observations) for seen in several):
        remedy = "Give a list of them: [from_points(points_mm)], [from_landmarks(read_landmarks(file))]."
        raise InputError("complete", f"a {type(observations).__name__} is no list of observations", remedy)
    return [
        replace(seen, spread=np.where(seen.occupancy == 0.5, CLICK_MM, np.inf))
        if seen.spread is None and (seen.occupancy == 0.5).any()
        else seen
        for seen in several
    ]


def from_mask(mask: Mask, seen: Seen, name: str) -> Observations:
    """A mask of which a part was observed: voxels near its border, and some of the others.

    Args:
        mask: the organ as far as it is known.
        seen: "slices": all of each slice that was drawn, in one direction or in several (`drawn_slices`); "volume": the
            whole volume, so that an organ that touches its border goes on beyond it; of one that does not, all but
            what lies beyond its flat ends.
        name: of the case.

    Raises:
        InputError: "slices" of a mask whose slices are all annotated.
    """
    return Drawn.of(mask, seen).observations(name)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A mask of which a part was drawn, to which a completion adds the rest.

    Args:
        mask: the organ as far as it is known.
        observed: voxels that were drawn, or seen to be empty.
        ends: True where the volume ends within the organ, so that what is added needs a larger grid.
        slices: those that were drawn, by the axis of the array across them; none where not slices were.
    """

    mask: Mask
    observed: Bool[np.ndarray, "x y z"]
    ends: bool = False
    slices: Slices = field(default_factory=dict)

    @classmethod
    def of(cls, mask: Mask, seen: Seen) -> Drawn:
        """What `from_mask` observes of a mask.

        Raises:
            InputError: "slices" of a mask whose slices are all annotated; "volume" of one that goes on nowhere.
        """
        if seen == "volume":
            return cls(mask, _seen_of_volume(mask), ends=True)
        slices = drawn_slices(mask)
        observed = np.zeros(mask.grid.shape, bool)
        for axis, planes in slices.items():
            np.moveaxis(observed, axis, 0)[planes] = True
        return cls(mask, observed, slices=slices)

    def observations(self, name: str) -> Observations:
        """Voxels near the border of what was drawn, and some of the others, in RAS millimetres."""
        voxels = _chosen(self.mask.occupancy, self.observed, self.slices)
        inside = self.mask.occupancy[tuple(voxels.T)].astype(np.float64)
        points = voxels @ self.mask.grid.affine[:3, :3].T + self.mask.grid.affine[:3, 3]
        return Observations(points, inside, name=name)

    def grid_with(self, vertices_mm: Float[np.ndarray, "v 3"]) -> Grid:
        """The mask's grid, larger by whole voxels where its volume ended too early to hold some points."""
        grid, low, high = self.mask.grid, np.zeros(3, int), np.array(self.mask.grid.shape)
        if self.ends:
            voxels = np.linalg.inv(grid.affine) @ np.c_[vertices_mm, np.ones(len(vertices_mm))].T
            low = np.minimum(low, np.floor(voxels[:3].min(1)).astype(int))
            high = np.maximum(high, np.ceil(voxels[:3].max(1)).astype(int) + 1)
        affine = grid.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ low
        nx, ny, nz = (high - low).tolist()
        return Grid((nx, ny, nz), affine)

    def kept_in(self, found: Bool[np.ndarray, "x y z"], grid: Grid) -> Bool[np.ndarray, "x y z"]:
        """A completion on a grid in which what was drawn stays as it was."""
        to_own = np.linalg.inv(self.mask.grid.affine) @ grid.affine
        in_plane = to_own[:3, 1:3] @ np.indices(found.shape[1:]).reshape(2, -1) + to_own[:3, 3:]
        size = np.array(self.mask.grid.shape)[:, None]
        flat = found.reshape(len(found), -1).copy()
        for index in range(len(flat)):
            voxels = np.rint(in_plane + index * to_own[:3, :1]).astype(int)
            drawn = np.all((voxels >= 0) & (voxels < size), axis=0)
            drawn[drawn] = self.observed[tuple(voxels[:, drawn])]
            flat[index, drawn] = self.mask.occupancy[tuple(voxels[:, drawn])]
        return flat.reshape(found.shape)


def _seen_of_volume(mask: Mask) -> Bool[np.ndarray, "x y z"]:
    """All of a volume whose border the organ touches; else all but what lies beyond its flat ends."""
    planes = (mask.occupancy.take(k, axis) for axis in range(3) for k in (0, -1))
    if any(plane.any() for plane in planes):
        return np.ones(mask.grid.shape, bool)
    ends = cut_ends(mask.occupancy, mask.grid.spacing_mm)
    if not ends:
        problem = "touches no border of its volume and has no flat end, so that nothing of it can lie beyond"
        remedy = "Reconstruct it as a whole mask, or crop the volume to where the organ was cut off."
        raise InputError(mask.path, problem, remedy)
    beyond = [end.beyond(mask.grid.shape, mask.grid.spacing_mm) for end in ends]
    return mask.occupancy | ~np.any(beyond, axis=0)


def _chosen(
    occupancy: Bool[np.ndarray, "x y z"],
    observed: Bool[np.ndarray, "x y z"],
    slices: Slices,
) -> Int[np.ndarray, "n 3"]:
    """Observed voxels: at most `NEAR` next to the border, and at most `FAR` of the others around the organ.

    What is next to the border is judged within a slice, where slices were drawn.
    """
    corners = np.argwhere(occupancy)
    low, high = corners.min(0), corners.max(0) + 1
    border = np.ceil((high - low) * MARGIN_SHARE).astype(int) + REACH_VOXELS
    first = np.maximum(low - border, 0)
    box = tuple(slice(a, b) for a, b in zip(first, np.minimum(high + border, occupancy.shape), strict=True))
    inside, visible = occupancy[box], observed[box]
    if slices:
        near = np.zeros(inside.shape, bool)
        for axis, planes in slices.items():
            own = planes[(planes >= first[axis]) & (planes < first[axis] + inside.shape[axis])] - first[axis]
            np.moveaxis(near, axis, 0)[own] |= np.moveaxis(_next_to_border(inside, axis), axis, 0)[own]
    else:
        near = _next_to_border(inside) & visible
    rng = np.random.default_rng(SEED)
    chosen = []
    for part, most in ((near, NEAR), (~near & visible, FAR)):
        voxels = np.argwhere(part)
        chosen.append(rng.permutation(voxels)[:most] if len(voxels) > most else voxels)
    return np.concatenate(chosen) + first


def _next_to_border(
    inside: Bool[np.ndarray, "x y z"], across: int | None = None
) -> Bool[np.ndarray, "x y z"]:
    """Voxels within reach of the other side; in their own slice across an axis, if one is given."""
    sizes = tuple(1 if axis == across else 2 * REACH_VOXELS + 1 for axis in range(3))
    return maximum_filter(inside, sizes) != minimum_filter(inside, sizes)


def check_span(seen: Observations, size_mm: Sequence[float]) -> None:
    """Points in another unit or space, or of another organ, are refused before they give a confident wrong shape.

    Raises:
        InputError: they span far more than organs of that mean size.
    """
    points = of_organ(seen.points, seen.occupancy)
    span_mm, most_mm = (float(np.linalg.norm(size)) for size in (np.ptp(points, axis=0), size_mm))
    if span_mm > SPAN * most_mm:
        far_mm = np.linalg.norm(seen.points - np.median(points, axis=0), axis=1)
        x, y, z = seen.points[far_mm.argmax()]
        problem = (
            f"its points span {span_mm:.0f} mm, the boxes of the atlas's organs {most_mm:.0f} mm on average; the one "
            f"at ({x:.1f}, {y:.1f}, {z:.1f}) mm RAS is farthest, {far_mm.max():.0f} mm from their middle"
        )
        remedy = "Check the points for ones far outside, their unit and space, and that the atlas is of this organ."
        raise InputError(seen.name, problem, remedy)
