"""Voxelising: volumes of known solids, unions, cavities, and any grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from io_samples import OBLIQUE, sphere
from scipy import ndimage

from implicit_atlas.errors import InputError
from implicit_atlas.io import Mesh, enclosing_pieces, grid_around, read_grid, read_mask, voxelise, write_mesh
from implicit_atlas.io.voxel_grid import Grid


def as_mesh(*parts: trimesh.Trimesh) -> Mesh:
    joined = trimesh.util.concatenate(list(parts))
    return Mesh(np.asarray(joined.vertices), np.asarray(joined.faces))


def volume_mm3(occupancy: np.ndarray, grid: Grid) -> float:
    return float(occupancy.sum()) * grid.voxel_volume_mm3


def inside_sphere(grid: Grid, radius_mm: float, centre: tuple[float, ...]) -> np.ndarray:
    indices = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    world = indices @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return np.linalg.norm(world - centre, axis=-1) < radius_mm


def test_sphere_has_its_volume_and_place() -> None:
    ball = sphere()
    occupancy, grid = voxelise(as_mesh(ball))
    assert occupancy.any(axis=(1, 2)).sum() == pytest.approx(160, abs=1)
    assert volume_mm3(occupancy, grid) == pytest.approx(ball.volume, rel=1e-3)
    centre = grid.affine @ (*ndimage.center_of_mass(occupancy), 1)
    np.testing.assert_allclose(centre[:3], (12, -30, 55), atol=0.01)
    assert not (occupancy[[0, -1]].any() or occupancy[:, [0, -1]].any() or occupancy[:, :, [0, -1]].any())


def test_equals_the_definition_voxel_by_voxel() -> None:
    ball = trimesh.creation.icosphere(subdivisions=5, radius=10.0)
    occupancy, grid = voxelise(as_mesh(ball), spacing_mm=0.7)
    surely_in, surely_out = inside_sphere(grid, 9.99, (0, 0, 0)), ~inside_sphere(grid, 10.0, (0, 0, 0))
    assert occupancy[surely_in].all() and not occupancy[surely_out].any()


@pytest.mark.parametrize("mirrored", [False, True])
def test_any_grid(mirrored: bool) -> None:
    affine = OBLIQUE.copy()
    affine[:3, 3] = (0, -45, 30)
    if mirrored:
        affine[:3, 0] *= -1
        affine[:3, 3] += (25, 10, 0)
    grid = Grid((40, 40, 20), affine)
    occupancy, same = voxelise(as_mesh(sphere()), grid=grid)
    assert same is grid
    assert occupancy.any()
    differing = occupancy ^ inside_sphere(grid, 9.93, (12, -30, 55))
    assert differing.sum() < 0.03 * occupancy.sum()


def test_overlapping_spheres_are_united() -> None:
    parts = [sphere(10, (0, 0, 0)), sphere(10, (8, 0, 0))]
    both, grid = voxelise(as_mesh(*parts), spacing_mm=0.5)
    each = [voxelise(as_mesh(part), grid=grid)[0] for part in parts]
    np.testing.assert_array_equal(both, each[0] | each[1])


def test_an_inward_piece_inside_is_a_cavity_and_outside_is_turned() -> None:
    hollow = sphere(4, (0, 0, 0))
    hollow.invert()
    occupancy, grid = voxelise(as_mesh(sphere(10, (0, 0, 0)), hollow), spacing_mm=0.5)
    assert volume_mm3(occupancy, grid) == pytest.approx(4 / 3 * np.pi * (1000 - 64), rel=0.03)
    apart = sphere(4, (30, 0, 0))
    apart.invert()
    occupancy, grid = voxelise(as_mesh(sphere(10, (0, 0, 0)), apart), spacing_mm=0.5)
    assert volume_mm3(occupancy, grid) == pytest.approx(4 / 3 * np.pi * (1000 + 64), rel=0.03)


def test_an_island_in_a_hollow_stays() -> None:
    hollow = sphere(8, (0, 0, 0))
    hollow.invert()
    parts = sphere(4, (0, 0, 0)), hollow, sphere(10, (0, 0, 0))
    occupancy, grid = voxelise(as_mesh(*parts), spacing_mm=0.5)
    assert volume_mm3(occupancy, grid) == pytest.approx(4 / 3 * np.pi * (1000 - 512 + 64), rel=0.03)


def test_a_mesh_partly_outside_the_grid_is_cut() -> None:
    occupancy, grid = voxelise(as_mesh(sphere(10, (0, 0, 0))), grid=Grid((21, 21, 21), np.eye(4)))
    assert volume_mm3(occupancy, grid) == pytest.approx(4 / 3 * np.pi * 1000 / 8, rel=0.25)
    with pytest.raises(InputError, match="no voxel centre inside"):
        voxelise(as_mesh(sphere(10, (500, 0, 0))), grid=Grid((21, 21, 21), np.eye(4)))


@pytest.mark.parametrize("spacing_mm", [0.0, -1.0, np.nan, np.inf])
def test_impossible_spacing(spacing_mm: float) -> None:
    with pytest.raises(InputError, match="no voxel size"):
        voxelise(as_mesh(sphere()), spacing_mm)


def test_spacing_that_is_too_fine_or_too_coarse() -> None:
    with pytest.raises(InputError, match="voxels, more than"):
        voxelise(as_mesh(sphere()), 1e-4)
    thin = trimesh.creation.box((20, 20, 0.1))
    thin.apply_translation((0, 0, 0.3))
    with pytest.raises(InputError, match="no voxel centre inside"):
        voxelise(as_mesh(thin), grid=Grid((20, 20, 5), np.eye(4)))


@pytest.mark.parametrize("suffix", [".stl", ".ply", ".obj", ".vtp"])
def test_a_surface_is_read_as_a_mask(tmp_path: Path, suffix: str) -> None:
    mesh = as_mesh(sphere())
    write_mesh(tmp_path / f"a{suffix}", mesh)
    mask = read_mask(tmp_path / f"a{suffix}")
    occupancy, grid = voxelise(mesh)
    assert mask.grid.same_as(grid, 1e-4) and read_grid(mask.path).same_as(mask.grid, 0)
    assert (mask.occupancy != occupancy).mean() < 1e-4
    np.testing.assert_array_equal(read_mask(mask.path, (1,)).occupancy, mask.occupancy)
    with pytest.raises(InputError, match="no voxel of label 2"):
        read_mask(mask.path, (2,))


def test_grid_around_has_a_border_of_two_voxels() -> None:
    grid = grid_around(as_mesh(sphere()), 0.9)
    first, last = grid.affine @ (0, 0, 0, 1), grid.affine @ (*(n - 1 for n in grid.shape), 1)
    low, high = np.array([2, -40, 45]), np.array([22, -20, 65])
    assert (first[:3] < low - 1.3).all() and (last[:3] > high + 1.3).all()


def test_the_largest_piece_is_kept():
    large, small = trimesh.creation.icosphere(radius=3), trimesh.creation.icosphere(radius=1)
    vertices = np.concatenate([small.vertices + 20, large.vertices])
    faces = np.concatenate([small.faces, large.faces + len(small.vertices)])
    kept, pieces = enclosing_pieces(Mesh(vertices, faces))
    assert pieces == 2 and len(kept.vertices) == len(large.vertices)
    np.testing.assert_allclose(np.linalg.norm(kept.vertices, axis=1), 3, rtol=1e-6)


def test_pieces_of_a_pair_are_kept_and_islands_and_walls_of_hollows_are_not():
    spheres = [trimesh.creation.icosphere(radius=radius) for radius in (3, 2, 1, 2.5)]
    spheres[3].invert()  # the wall of a hollow in the first
    vertices = np.concatenate([sphere.vertices + 20 * (k % 3) for k, sphere in enumerate(spheres)])
    faces = np.concatenate([sphere.faces + k * len(spheres[0].vertices) for k, sphere in enumerate(spheres)])
    for turned in (faces, faces[:, ::-1]):
        kept, pieces = enclosing_pieces(Mesh(vertices, turned), 3)
        assert pieces == 4 and len(kept.vertices) == 2 * len(spheres[0].vertices)
        assert kept.vertices.max() < 30
