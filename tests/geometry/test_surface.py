"""Surface: sparse evaluation equals dense evaluation; meshes are closed, outward and where they should be."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.ndimage import gaussian_filter, map_coordinates
from shape_masks import frame_around
from skimage.measure import marching_cubes

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Grid
from implicit_atlas.geometry.pieces import SPECK, without_specks, without_strays
from implicit_atlas.geometry.surface import (
    CubeMesh,
    dense_volume,
    field_mesh,
    occupancy_mesh,
    sparse_volume,
    to_world,
    volume_mesh,
)

R, COARSE = 48, 12
NODE = 2 / R
OBLIQUE = np.array([[-0.9, 0.2, 0.1, 12], [0.1, 1.7, -0.3, -40], [0.2, 0.1, 2.5, 7], [0, 0, 0, 1]])


def ball(radius, centre=(0, 0, 0)):
    return lambda points: radius - np.linalg.norm(points - np.float32(centre), axis=1)


def union(*fields):
    return lambda points: np.max([field(points) for field in fields], axis=0)


def noise(points):
    volume = gaussian_filter(np.random.default_rng(0).normal(size=(24,) * 3), 2)
    return map_coordinates(volume / volume.std(), ((points + 1) * 11.5).T, order=1)


def slab(half_thickness):
    return lambda points: half_thickness - np.abs(points[:, 0] * 0.8 + points[:, 1] * 0.6 - 0.131)


def rod(radius):
    return lambda points: radius - np.hypot(points[:, 0] - 0.1, points[:, 1] * 0.8 + points[:, 2] * 0.6)


def steep(points):
    """Saturated logits, nearly constant away from the surface."""
    return 20 * np.tanh(30 * ball(0.7)(points)) + 1e-3 * points[:, 0]


FIELDS = {
    "ball": ball(0.8),
    "ball cut by the cube's faces": ball(1.1),
    "hollow ball": lambda points: np.minimum(ball(0.9)(points), -ball(0.6)(points)),
    "slab of one node": slab(NODE / 2),
    "rod of two nodes": rod(NODE),
    "ball with a thin handle": union(ball(0.4), rod(NODE)),
    "steep": steep,
    "noise": noise,
    "all outside": lambda points: -1 - points[:, 0] ** 2,
    "all inside": lambda points: 1 + points[:, 0] ** 2,
}


def assert_same_mesh(first: CubeMesh, second: CubeMesh):
    np.testing.assert_array_equal(first.vertices, second.vertices)
    np.testing.assert_array_equal(first.faces, second.faces)


def bodies(volume: np.ndarray) -> int:
    """Closed surfaces that a volume's mesh is made of."""
    return as_trimesh(volume_mesh(volume)).body_count


def as_trimesh(mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("level", [0.0, 0.1])
@pytest.mark.parametrize(("resolution", "coarse"), [(R, COARSE), (64, 8), (50, 10), (20, 32)])
def test_sparse_equals_dense(name, level, resolution, coarse):
    field = FIELDS[name]
    sparse = sparse_volume(field, resolution, level, coarse)
    dense = dense_volume(field, resolution)
    assert dense.evaluated == resolution**3
    assert sparse.evaluated <= dense.evaluated
    np.testing.assert_array_equal(sparse.values >= level, dense.values >= level)
    mesh = field_mesh(field, resolution, level, coarse)
    assert mesh.evaluated == sparse.evaluated
    assert_same_mesh(mesh, volume_mesh(dense.values, level))


@pytest.mark.parametrize("name", ["ball", "hollow ball", "ball with a thin handle"])
def test_connected_surfaces_are_followed_without_a_margin(name):
    dense = dense_volume(FIELDS[name], R)
    sparse = sparse_volume(FIELDS[name], R, coarse=COARSE, margin=0)
    np.testing.assert_array_equal(sparse.values >= 0, dense.values >= 0)


@pytest.mark.parametrize("seed", range(5))
def test_small_separate_pieces_are_found_as_promised(seed):
    centres = np.random.default_rng(seed).uniform(-0.9, 0.9, (40, 3))
    field = union(*[ball(1.8 * NODE, centre) for centre in centres])
    np.testing.assert_array_equal(
        sparse_volume(field, R, coarse=COARSE).values >= 0, dense_volume(field, R).values >= 0
    )


def test_asks_no_point_twice_and_few_in_all():
    asked = []

    def field(points):
        asked.append(points.copy())
        return ball(0.8)(points)

    volume = sparse_volume(field, 64, coarse=16)
    points = np.concatenate(asked)
    assert len(np.unique(points, axis=0)) == len(points) == volume.evaluated < 0.35 * 64**3
    assert points.dtype == np.float32


def test_asks_exactly_the_nodes_of_the_lattice():
    torch_grid = pytest.importorskip("implicit_atlas.geometry.grid")
    asked = []
    dense_volume(lambda points: asked.append(points) or points[:, 0], 20)
    lattice = torch_grid.lattice(20).reshape(-1, 3).numpy()
    np.testing.assert_array_equal(np.concatenate(asked), lattice)


def test_large_volumes_are_asked_in_parts(monkeypatch):
    monkeypatch.setattr("implicit_atlas.geometry.surface.POINTS_PER_CALL", 1000)
    sizes = []
    volume = sparse_volume(lambda points: sizes.append(len(points)) or ball(0.8)(points), R, coarse=COARSE)
    assert max(sizes) == 1000
    np.testing.assert_array_equal(volume.values >= 0, dense_volume(ball(0.8), R).values >= 0)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "all outside"])
def test_meshes_are_closed_and_outward(name):
    mesh = as_trimesh(field_mesh(FIELDS[name], R, coarse=COARSE))
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0


def test_random_volumes_give_closed_meshes():
    values = np.random.default_rng(3).normal(size=(9, 7, 8)).astype(np.float32)
    assert as_trimesh(volume_mesh(values)).is_watertight
    whole_numbers = np.rint(values)
    mesh = volume_mesh(whole_numbers)
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    assert sorted(map(tuple, edges)) == sorted(map(tuple, edges[:, ::-1]))


def test_ball_has_its_volume_and_radius():
    mesh = field_mesh(ball(0.8), 64)
    assert as_trimesh(mesh).volume == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=0.005)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.8, atol=1e-3)


def test_a_full_cube_ends_at_its_faces():
    mesh = field_mesh(lambda points: np.ones(len(points)), 16)
    assert as_trimesh(mesh).volume == pytest.approx(8, rel=0.02)
    np.testing.assert_allclose(np.abs(mesh.vertices).max(axis=0), 1, atol=1e-6)


def test_vertices_are_those_of_another_marching_cubes():
    values = dense_volume(noise, 24).values
    values += np.copysign(np.float32(0.01), values)  # nodes on the level are pushed off it
    padded = np.pad(values, 1, mode="edge")
    padded[1:-1, 1:-1, 1:-1] = np.nan
    padded = np.where(np.isnan(padded), np.pad(values, 1), -np.abs(np.pad(values, 1, mode="edge")))
    expected = (2 * (marching_cubes(padded, 0, method="lorensen")[0] - 1) + 1) / 24 - 1
    vertices = volume_mesh(values).vertices
    assert len(vertices) == len(expected)
    order, expected_order = (np.lexsort(v.round(4).T) for v in (vertices, expected))
    np.testing.assert_allclose(vertices[order], expected[expected_order], atol=2e-4)


def test_nothing_inside_gives_no_faces():
    mesh = field_mesh(FIELDS["all outside"], R)
    assert mesh.faces.shape == (0, 3)
    assert mesh.vertices.shape == (0, 3)


@pytest.mark.parametrize("values", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(values):
    with pytest.raises(InputError, match="not finite"):
        field_mesh(lambda points: np.full(len(points), values), 16)


@pytest.mark.parametrize("sizes", [(0, 4), (16, 0)])
def test_senseless_resolutions_are_refused(sizes):
    with pytest.raises(InputError):
        sparse_volume(ball(0.5), sizes[0], coarse=sizes[1])


@pytest.mark.parametrize("mirror", [1, -1])
def test_mask_on_its_grid_has_its_volume_in_mm(mirror):
    affine = OBLIQUE @ np.diag([mirror, 1, 1, 1])
    occupancy = np.pad(np.ones((4, 5, 6), bool), ((0, 3), (2, 0), (1, 1)))
    grid = Grid(occupancy.shape, affine)
    mesh = occupancy_mesh(occupancy, grid)
    assert as_trimesh(mesh).is_watertight
    # Marching cubes bevels the box's edges and corners, by at most half a voxel.
    full = occupancy.sum() * grid.voxel_volume_mm3
    assert 0.85 * full < mesh.volume_mm3 < full
    voxels = (mesh.vertices - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    np.testing.assert_allclose(voxels.min(axis=0), [-0.5, 1.5, 0.5], atol=1e-5)
    np.testing.assert_allclose(voxels.max(axis=0), [3.5, 6.5, 6.5], atol=1e-5)


@pytest.mark.parametrize("mirror", [1, -1])
def test_cube_meshes_reach_the_world_through_the_frame(mirror):
    occupancy = np.zeros((20, 16, 12), bool)
    occupancy[3:17, 4:12, 2:10] = True
    frame = frame_around(occupancy, Grid(occupancy.shape, OBLIQUE @ np.diag([mirror, 1, 1, 1])), 16)
    mesh = field_mesh(ball(0.6), 16)
    world = to_world(mesh, frame)
    np.testing.assert_allclose(world.vertices, frame.cube_to_world(mesh.vertices))
    volume_scale = abs(np.linalg.det(frame.affine_cube_to_world[:3, :3]))
    assert world.volume_mm3 == pytest.approx(as_trimesh(mesh).volume * volume_scale)
    cube = dense_volume(ball(0.6), 16).values >= 0
    from_mask = occupancy_mesh(cube, frame)
    assert from_mask.volume_mm3 == pytest.approx(world.volume_mm3, rel=0.05)


def test_mask_of_another_shape_is_refused():
    with pytest.raises(InputError, match="differs"):
        occupancy_mesh(np.ones((3, 3, 3), bool), Grid((3, 3, 4), np.eye(4)))


def test_pieces_that_nowhere_meet_a_mask_are_taken_out():
    near, far, seen = (
        ball(0.3, (-0.5, 0, 0)),
        ball(0.2, (0.6, 0, 0)),
        dense_volume(ball(0.1, (-0.5, 0, 0)), R),
    )
    both = dense_volume(union(near, far), R).values
    kept = without_strays(both, seen.values > 0)
    np.testing.assert_array_equal(kept > 0, dense_volume(near, R).values > 0)
    np.testing.assert_array_equal(np.abs(kept), np.abs(both))


def test_a_field_is_as_it_was_where_all_or_none_of_it_meets_the_mask():
    both = dense_volume(union(ball(0.3, (-0.5, 0, 0)), ball(0.2, (0.6, 0, 0))), R).values
    for seen in (both > 0, np.zeros_like(both, dtype=bool), both < -0.5):
        assert without_strays(both, seen) is both


@pytest.mark.parametrize("seed", range(3))
def test_no_two_vertices_fall_together(seed):
    """Values on the level, exactly or nearly, would give each edge that meets there the same vertex."""
    rng = np.random.default_rng(seed)
    values = gaussian_filter(rng.normal(size=(24, 24, 24)), 2).astype(np.float32)
    values[::4, ::4, ::4] *= np.float32(1e-9)
    values[2::4, 2::4, 2::4] = 0
    values = np.pad(values, 1, constant_values=-1)
    mesh = volume_mesh(values)
    assert len(np.unique(np.round(mesh.vertices, 6), axis=0)) == len(mesh.vertices)
    merged = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    assert len(merged.vertices) == len(mesh.vertices) and merged.is_watertight
    offset = np.abs(as_trimesh(mesh).volume - as_trimesh(volume_mesh(values + np.float32(1e-7))).volume)
    assert offset < 1e-3 * as_trimesh(mesh).volume


def test_volumes_are_not_mutated():
    values = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    before = values.copy()
    volume_mesh(values)
    np.testing.assert_array_equal(values, before)


def test_specks_and_bubbles_are_no_pieces_of_a_surface():
    at = np.indices((24, 24, 24)) - 11.5
    round_one = 7.0 - np.sqrt((at**2).sum(0))
    field = round_one.copy()
    field[2, 2, 2], field[11:13, 11:13, 11] = 1.0, -1.0
    corner = tuple(np.argwhere(round_one > 0)[0] - 1)  # it shares no face with the ball
    field[corner] = 1.0
    assert bodies(field) > 1
    found = without_specks(field)
    assert np.array_equal(found > 0, round_one > 0) and bodies(found) == 1
    # What is larger stays, and so does all there is.
    field[1:3, 1:3, 1:4] = 1.0
    assert bodies(without_specks(field)) == 2 and 12 >= SPECK
    alone = np.full((8, 8, 8), -1.0)
    alone[4, 4, 4] = 1.0
    assert np.array_equal(without_specks(alone), alone)
