"""Flat ends of masks: where an organ was cut off by a plane, by the end of a scan or of somebody's patience.

The sections of a round end grow with the depth below its highest point; right behind a cut they are as large as deeper
in. So the planes that an organ touches from one side are looked at: those between slices, where most are cut off, and
those that most of its surface lies near to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_erosion

# Flatness of an end that was cut off. Of `train`, cut between slices so that a half, a fifth or a twentieth is gone,
# 76 % of livers have their cut among such ends, 73 % of pancreases and 69 % of hippocampi; whole livers and pancreases
# have no such end, and half of hippocampi do, which end with a slice.
FLAT = 0.6
ENDS = 3  # of a mask that count at most
ACROSS = 0.99  # cosine between an axis and what is across it
# Over the sphere, 5 degrees from each other; cosine of the angle between candidates.
DIRECTIONS, APART = 2000, 0.99
CANDIDATES = 20
SURFACE = 8000  # voxels of it by which directions are compared
THICK, NEAR = 0.04, 1.5  # of a candidate's layer: of the organ's size, at least so many voxels
NARROWER, ROUNDS = 0.6, 4  # by which a layer shrinks while its plane is fitted to it
TILT = 0.9  # cosine, beyond which such a plane is another one
DEEPER = 4  # voxels below the top: a section there is compared with that one voxel below it
SECTIONS = 10  # below which ends are too coarse to tell
SHARE = 0.5  # of the organ's largest section in that direction that a flat end has
LONG = 0.8  # times as deep as a flat end is wide: flat organs have flat sides
ANOTHER = 0.9  # cosine of the angle between different ends
BELOW = 0.25  # layers: more, and the rim beside an end is made up; less, and a tilted plane forbids what lies beyond
FEWEST = 64  # voxels of an organ


@dataclass(frozen=True, eq=False)
class FlatEnd:
    """A plane that an organ touches from one side.

    Args:
        normal: unit vector along the array's axes, in mm, that points out of the organ.
        top_mm: how far along it the organ reaches, from the centre of the array's first voxel.
        layer_mm: thickness of a layer of voxels across it.
        flatness: from 0, round, to 1; see `flatness_of`.
    """

    normal: Float[np.ndarray, "3"]
    top_mm: float
    layer_mm: float
    flatness: float

    def beyond(
        self, shape: tuple[int, int, int], spacing_mm: Float[np.ndarray, "3"]
    ) -> Bool[np.ndarray, "x y z"]:
        """Voxels of which the organ's cut says nothing: above the plane, which lies less than a layer below its top."""
        heights = [
            np.arange(n) * size * part for n, size, part in zip(shape, spacing_mm, self.normal, strict=True)
        ]
        height = heights[0][:, None, None] + heights[1][:, None] + heights[2]
        return height > self.top_mm - BELOW * self.layer_mm


def cut_ends(occupancy: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, "3"]) -> list[FlatEnd]:
    """Of `flat_ends` those that a plane may have cut off."""
    return [end for end in flat_ends(occupancy, spacing_mm)[:ENDS] if end.flatness > FLAT]


def faces_cut_at(
    occupancy: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, "3"]
) -> list[tuple[int, bool]]:
    """Faces of an array, by axis and whether the last one, that cut off the organ in it."""
    touched = {
        (axis, last) for axis in range(3) for last in (False, True) if occupancy.take(-int(last), axis).any()
    }
    ends = cut_ends(occupancy, spacing_mm) if touched else []
    across = [(int(np.abs(end.normal).argmax()), end.normal) for end in ends]
    cut = {(axis, bool(normal[axis] > 0)) for axis, normal in across if abs(normal[axis]) > ACROSS}
    return sorted(cut & touched)


def flat_ends(occupancy: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, "3"]) -> list[FlatEnd]:
    """Ends of a mask in different directions, the flattest first; none of one that is too small to have any.

    Args:
        occupancy: of one organ, without islands.
        spacing_mm: of its grid.
    """
    places = np.argwhere(occupancy)
    if len(places) < FEWEST:
        return []
    first = places.min(0)
    box = occupancy[tuple(slice(low, high + 1) for low, high in zip(first, places.max(0), strict=True))]
    inner: np.ndarray = np.asarray(binary_erosion(box))
    edge = (np.argwhere(box & np.logical_not(inner)) + first) * spacing_mm
    voxels = places * spacing_mm
    normals = [*_normals(edge, spacing_mm), *np.eye(3), *-np.eye(3)]
    found = [_measured(voxels, spacing_mm, normal) for normal in normals]
    out: list[FlatEnd] = []
    for one in sorted(found, key=lambda one: -one.flatness):
        if all(one.normal @ other.normal < ANOTHER for other in out):
            out.append(one)
    return out


def _normals(edge: Float[np.ndarray, "n 3"], spacing_mm: Float[np.ndarray, "3"]) -> list[np.ndarray]:
    """Of the planes that most of a surface lies near to, on one side."""
    directions = sphere(DIRECTIONS)
    some = edge if len(edge) <= SURFACE else np.random.default_rng(0).permutation(edge)[:SURFACE]
    size_mm = float(np.ptp(edge, axis=0).max())
    layers = np.maximum(NEAR * np.abs(directions) @ spacing_mm, THICK * size_mm)
    heights = some.astype(np.float32) @ directions.T.astype(np.float32)
    near = (heights > heights.max(0) - layers).sum(0)
    chosen: list[int] = []
    for index in np.argsort(-near, kind="stable"):
        if all(directions[index] @ directions[other] < APART for other in chosen):
            chosen.append(int(index))
        if len(chosen) == CANDIDATES:
            break
    return [_fitted(edge, spacing_mm, directions[index], layers[index]) for index in chosen]


def _fitted(
    edge: Float[np.ndarray, "n 3"],
    spacing_mm: Float[np.ndarray, "3"],
    normal: Float[np.ndarray, "3"],
    layer_mm: float,
) -> Float[np.ndarray, "3"]:
    """A normal, turned to that of the surface near its plane, layer by thinner layer."""
    for _ in range(ROUNDS):
        height = edge @ normal
        near = edge[height > height.max() - layer_mm]
        if len(near) < 3:
            break
        turned = np.linalg.svd(near - near.mean(0), full_matrices=False)[2][2]
        turned = turned if turned @ normal > 0 else -turned
        if turned @ normal < TILT:
            break
        normal = turned
        layer_mm = max(NARROWER * layer_mm, NEAR * float(np.abs(normal) @ spacing_mm))
    return normal


def _measured(
    voxels: Float[np.ndarray, "n 3"], spacing_mm: Float[np.ndarray, "3"], normal: Float[np.ndarray, "3"]
) -> FlatEnd:
    height, layer_mm = voxels @ normal, float(np.abs(normal) @ spacing_mm)
    top_mm = float(height.max())
    sections = np.bincount(((top_mm - height) / layer_mm + 0.5).astype(int), minlength=DEEPER + 1)
    wide_mm = float(np.sqrt(max(sections[1], 1) * spacing_mm.prod() / layer_mm))
    deep_mm = top_mm - float(height.min())
    return FlatEnd(normal, top_mm, layer_mm, flatness_of(sections, deep_mm / wide_mm))


def flatness_of(sections: np.ndarray, deep: float) -> float:
    """How flat an end is: 1 where a plane cut, 0 of an ellipsoid's.

    By the share of a section `DEEPER` voxels below the top that there is one voxel below it; less where that is a small
    part of the organ's largest section, and where the organ is less deep than the end is wide.

    Args:
        sections: voxels of the organ's sections from the top down, each a voxel thick.
        deep: how many times as deep as the end is wide the organ is.
    """
    count = np.count_nonzero(sections)
    if count < SECTIONS:
        return 0.0
    first, deeper, largest = sections[1], max(sections[DEEPER], 1), sections.max()
    round_end = (count - 1) / (DEEPER * (count - DEEPER))  # sections of an ellipsoid grow as k (count - k)
    full = (min(1.0, first / deeper) - round_end) / (1 - round_end)
    return float(max(0.0, full) * min(1.0, first / largest / SHARE) * min(1.0, deep / LONG))


def sphere(count: int) -> Float[np.ndarray, "n 3"]:
    """Directions that cover the sphere evenly (Fibonacci's lattice)."""
    steps = np.arange(count) + 0.5
    height, angle = 1 - 2 * steps / count, np.pi * (1 + 5**0.5) * steps
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
