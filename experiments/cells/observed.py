"""What is told of an organ in a measurement: clicks in and around it or on its boundary, some slices, a part of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import trimesh
from trimesh.sample import sample_surface

from experiments.cells.completion import BAND_WIDTH_VOX, observe
from implicit_atlas.completion.observe import CLICK_MM
from implicit_atlas.geometry.surface import occupancy_mesh
from implicit_atlas.io import Mask, case_name
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import prepare


def clicks(mask: Mask, count: int) -> Observations:
    """Points of Figure 6 in millimetres: labelled in or out, at a noise of 2 voxels of 128 around the boundary."""
    shape = prepare(mask)
    seen = observe(shape, count)
    spread_mm = BAND_WIDTH_VOX * float(shape.frame.lattice_spacing_mm.mean())
    return replace(seen, points=shape.frame.cube_to_world(seen.points), spread=spread_mm)


def boundary_clicks(mask: Mask, count: int) -> Observations:
    """Points in millimetres anywhere on the mask's surface, with no word of where inside is."""
    surface = occupancy_mesh(mask.occupancy, mask.grid)
    points, _ = sample_surface(trimesh.Trimesh(surface.vertices, surface.faces, process=False), count, seed=0)
    return Observations(np.asarray(points), np.full(count, 0.5), name=case_name(mask.path), spread=CLICK_MM)


def long_axis(mask: Mask) -> tuple[int, np.ndarray]:
    """The array's axis along which the organ is longest, and the slices that hold it."""
    occupied = [np.flatnonzero(mask.occupancy.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
    axis = int(np.argmax([np.ptp(planes) * mask.grid.spacing_mm[a] for a, planes in enumerate(occupied)]))
    return axis, occupied[axis]


def kept_slices(mask: Mask, count: int) -> tuple[Mask, np.ndarray]:
    """The mask on a few evenly spaced slices across its long axis, and which they are."""
    axis, planes = long_axis(mask)
    chosen = planes[np.round((np.arange(count) + 0.5) / count * (len(planes) - 1)).astype(int)]
    kept = np.zeros(mask.occupancy.shape, bool)
    np.moveaxis(kept, axis, 0)[chosen] = np.moveaxis(mask.occupancy, axis, 0)[chosen]
    return replace(mask, occupancy=kept), chosen


def crossing_slices(mask: Mask, count: int) -> Mask:
    """The mask on a few evenly spaced slices across each of its axes."""
    kept = np.zeros(mask.occupancy.shape, bool)
    for axis in range(3):
        planes = np.flatnonzero(mask.occupancy.any(tuple(b for b in range(3) if b != axis)))
        chosen = planes[np.round((np.arange(count) + 0.5) / count * (len(planes) - 1)).astype(int)]
        np.moveaxis(kept, axis, 0)[chosen] = np.moveaxis(mask.occupancy, axis, 0)[chosen]
    return replace(mask, occupancy=kept)


def cut_off(mask: Mask, percent: int) -> Mask:
    """The part of a mask that a volume ending within the organ would show; the volume's end is where the array ends."""
    axis, planes = long_axis(mask)
    stop = planes[0] + max(1, round(len(planes) * (1 - percent / 100)))
    part = np.moveaxis(np.moveaxis(mask.occupancy, axis, 0)[:stop], 0, axis)
    return replace(mask, occupancy=part, grid=type(mask.grid)(part.shape, mask.grid.affine))
