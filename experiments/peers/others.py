"""What one would use instead of an atlas to complete an organ: splines, interpolated slices, principal components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import zoom

from experiments.peers.classical import LinearModel, linear_model
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.geometry.grid import sample_volume
from implicit_atlas.geometry.outlines import between_slices, depths
from implicit_atlas.io import Mask
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import Shape, prepare

COMPONENTS = 128
NODES = 64  # an axis, at which a spline is evaluated: livers have ten million voxels


def smooth_function(seen: Observations, mask: Mask, neighbors: int | None = 64) -> np.ndarray:
    """What labels alone say: the thin-plate spline through them (radial basis functions), where it is above 1/2.

    At each place it is that of so many nearest labels, or of all. It is evaluated at every voxel of the points' box, or
    at `NODES` places an axis and linearly between them.
    """
    spline = RBFInterpolator(seen.points, seen.occupancy - 0.5, neighbors=neighbors, smoothing=1.0)
    inverse, last = np.linalg.inv(mask.grid.affine), np.array(mask.grid.shape) - 1
    voxels = seen.points @ inverse[:3, :3].T + inverse[:3, 3]
    low, high = np.ceil(voxels.min(0)).clip(0, last), np.floor(voxels.max(0)).clip(0, last)
    counts = np.minimum(high - low + 1, NODES).astype(int)
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts, strict=True)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    values = spline(nodes @ mask.grid.affine[:3, :3].T + mask.grid.affine[:3, 3]).reshape(counts)
    size = (high - low + 1).astype(int)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    out = np.zeros(mask.grid.shape, bool)
    out[box] = zoom(values, size / counts, order=1, grid_mode=False) > 0
    return out


def shape_based(kept: Mask, planes: np.ndarray, axis: int) -> np.ndarray:
    """Signed distances of slices, interpolated between them (Raya and Udupa, IEEE TMI 1990); nothing beyond them."""
    slices, across_mm = np.moveaxis(kept.occupancy, axis, 0), np.delete(kept.grid.spacing_mm, axis)
    out = between_slices([depths(slices[p], across_mm) for p in planes], planes.tolist(), range(len(slices)))
    return np.moveaxis(out, 0, axis)


def in_box(seen: Observations, frame: Frame) -> Observations:
    """Points in RAS mm as points of a cube whose place is told; those outside are left out."""
    half_mm = frame.lattice_spacing_mm.mean() * frame.resolution / 2
    points = frame.world_to_cube(seen.points)
    within = (np.abs(points) < 1).all(1)
    spread = seen.spreads[within] / half_mm
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
