"""Surfaces through clicks on a boundary, as one would make them without an atlas: splines and Poisson's equation.

Both need to know where outside is. Clicks have no normals: these are estimated from a click's neighbours and turned
alike from click to click, outwards, by Open3D, which draws Poisson's surface, too (`pip install open3d-cpu`, and on
Debian `apt-get install libusb-1.0-0 libgl1`).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from experiments.peers.others import smooth_function
from implicit_atlas.errors import InputError
from implicit_atlas.io import Mask, Mesh, voxelise
from implicit_atlas.shapes.sampling import Observations

# Of a click, that tell its normal and from which it is turned: the best for 64, 256 and 1024 on hippocampi of `train`.
NEIGHBORS = ((6, 8, 10), (4, 8, 10))  # by the logarithm of clicks to the base of 2
DEPTH = 7  # of the octree of Poisson's surface: 128 cells an axis
APART = 0.25  # of the distance to the next click: how far from a click a spline is told inside and outside


def through_clicks(seen: Observations, mask: Mask) -> dict[str, Bool[np.ndarray, "x y z"]]:
    """A spline's and Poisson's organ on a mask's grid, of clicks on its boundary in RAS mm."""
    cloud = _oriented(seen.points)
    normals = np.asarray(cloud.normals)
    return {
        "radial basis functions": _spline(seen, normals, mask),
        "Poisson surface": _poisson(cloud, mask),
    }


def _spline(seen: Observations, normals: Float[np.ndarray, "n 3"], mask: Mask) -> Bool[np.ndarray, "x y z"]:
    """The thin-plate spline that is 0 at clicks and falls along their normals (Carr et al., SIGGRAPH 2001)."""
    apart_mm = APART * np.median(_to_next(seen.points))
    points = np.concatenate([seen.points + side * apart_mm * normals for side in (-1, 0, 1)])
    labels = np.repeat([1.0, 0.5, 0.0], len(seen.points))
    return smooth_function(Observations(points, labels, name=seen.name), mask)


def _poisson(cloud: Any, mask: Mask) -> Bool[np.ndarray, "x y z"]:
    """The screened Poisson surface (Kazhdan and Hoppe, ACM TOG 2013), filled."""
    mesh, _ = _open3d().geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=DEPTH, n_threads=1)
    try:
        surface = Mesh(np.asarray(mesh.vertices), np.asarray(mesh.triangles).astype(np.int64))
        return voxelise(surface, grid=mask.grid)[0]
    except InputError:  # no closed surface, or none that holds a voxel
        return np.zeros(mask.grid.shape, bool)


def _oriented(points_mm: Float[np.ndarray, "n 3"]) -> Any:
    """Clicks with normals that point out of the organ as a whole."""
    library = _open3d()
    cloud = library.geometry.PointCloud(library.utility.Vector3dVector(points_mm))
    count = round(np.interp(np.log2(len(points_mm)), *NEIGHBORS))
    cloud.estimate_normals(library.geometry.KDTreeSearchParamKNN(count))
    cloud.orient_normals_consistent_tangent_plane(count)
    normals = np.asarray(cloud.normals)
    if ((points_mm - points_mm.mean(0)) * normals).sum() < 0:
        cloud.normals = library.utility.Vector3dVector(-normals)
    return cloud


def _to_next(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """The distance of each point from the nearest other one."""
    return KDTree(points).query(points, k=2)[0][:, 1]


def _open3d() -> Any:
    try:
        return import_module("open3d")
    except (ImportError, OSError) as error:  # the latter of a system library
        remedy = "Install it: pip install open3d-cpu; apt-get install libusb-1.0-0 libgl1."
        raise InputError("Poisson", f"needs the package open3d ({error})", remedy) from error
