"""What one would use instead of an atlas to complete an organ: splines, interpolated slices, principal components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import distance_transform_edt

from experiments.classical import LinearModel, linear_model
from experiments.completion import BAND_WIDTH_VOX
from implicit_atlas.frame import Frame
from implicit_atlas.grid import sample_volume
from implicit_atlas.io import Mask
from implicit_atlas.sampling import Observations
from implicit_atlas.shapes import Shape, prepare

COMPONENTS = 128


def smooth_function(seen: Observations, mask: Mask) -> np.ndarray:
    """What labels alone say: the thin-plate spline through them (radial basis functions), where it is above 1/2."""
    spline = RBFInterpolator(seen.points, seen.occupancy - 0.5, neighbors=64, smoothing=1.0)
    low, high = seen.points.min(0), seen.points.max(0)
    voxels = np.argwhere(np.ones(mask.grid.shape, bool))
    at_mm = voxels @ mask.grid.affine[:3, :3].T + mask.grid.affine[:3, 3]
    near = ((at_mm >= low) & (at_mm <= high)).all(1)
    out = np.zeros(mask.grid.shape, bool)
    out[tuple(voxels[near].T)] = spline(at_mm[near]) > 0
    return out


def shape_based(kept: Mask, planes: np.ndarray, axis: int) -> np.ndarray:
    """Signed distances of slices, interpolated between them (Raya and Udupa, IEEE TMI 1990); nothing beyond them."""
    slices = np.moveaxis(kept.occupancy, axis, 0)
    spacing = [kept.grid.spacing_mm[a] for a in range(3) if a != axis]
    signed = [
        distance_transform_edt(slices[p], sampling=spacing)
        - distance_transform_edt(~slices[p], sampling=spacing)
        for p in planes
    ]
    out = np.zeros(slices.shape, bool)
    for plane in range(planes[0], planes[-1] + 1):
        after = min(np.searchsorted(planes, plane), len(planes) - 1)
        before = max(after - 1, 0) if planes[after] != plane else after
        gap = planes[after] - planes[before]
        share = 0.0 if gap == 0 else (plane - planes[before]) / gap
        out[plane] = (1 - share) * signed[before] + share * signed[after] > 0
    return np.moveaxis(out, 0, axis)


def in_box(seen: Observations, frame: Frame) -> Observations:
    """Points in RAS mm as points of a cube whose place is told; those outside are left out."""
    spread = None if seen.spread is None else 2 * BAND_WIDTH_VOX / frame.resolution
    points = frame.world_to_cube(seen.points)
    within = (np.abs(points) < 1).all(1)
    return Observations(points[within], seen.occupancy[within], name=seen.name, spread=spread)


class BoxedComponents:
    """Principal components of the training masks' signed distances, completed in the organ's true box.

    The box is told, which the atlas has to find: the comparison is in favour of the components.
    """

    def __init__(self, known: Sequence[Shape], components: int = COMPONENTS) -> None:
        self.model: LinearModel = linear_model(known, components)

    def complete(self, seen: Observations, mask: Mask) -> np.ndarray:
        """The most probable organ on the mask's grid, of points in RAS mm; nothing of the mask but its box is used."""
        frame = prepare(mask).frame
        field = self.model.complete(in_box(seen, frame))
        voxels_mm = np.indices(mask.grid.shape).reshape(3, -1).T @ mask.grid.affine[:3, :3].T
        places = frame.world_to_cube(voxels_mm + mask.grid.affine[:3, 3])
        inside, out = (np.abs(places) <= 1).all(1), np.zeros(len(places), bool)
        values = sample_volume(torch.from_numpy(field), torch.from_numpy(places[inside]))
        out[inside] = values.numpy() > 0
        return out.reshape(mask.grid.shape)
