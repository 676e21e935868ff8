"""Poses: rotations, cubes and frames say the same, and an organ is found where it lies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from atlas_samples import RESOLUTION, dsc, phantom_shapes, tiny_atlas

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.pose import CROWDING, FREE, SIZES, TURN, Poses, pose_prior, rotations, uncrowded
from implicit_atlas.fitting.sparse import ShapePrior, SparseConfig
from implicit_atlas.fitting.sparse_batch import SparseBatch
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.sampling import Observations, ShapeSet
from implicit_atlas.shapes.shape import Shape, restore, restore_on

SHAPES = phantom_shapes(8)
FAR_MM = np.array([40.0, -300.0, 12.0])


def clicks(shape: Shape, count: int, turn: np.ndarray | None = None, labelled: bool = False) -> Observations:
    """Points on the boundary of a shape, in millimetres of a scan in which it lies far from the origin."""
    faces = ShapeSet(shape.packed[None], RESOLUTION).faces.numpy()
    face = np.random.default_rng(1).choice(faces, count)
    flat, axis = face // 3, face % 3
    lower = np.stack(np.unravel_index(flat, (RESOLUTION,) * 3), axis=-1)
    voxel = lower + (0.0 if labelled else 0.5) * np.eye(3)[axis]
    inside = shape.occupancy[tuple(lower.T)].astype(float) if labelled else np.full(count, 0.5)
    points_mm = shape.frame.cube_to_world((2 * voxel + 1) / RESOLUTION - 1)
    points_mm = points_mm if turn is None else points_mm @ turn.T
    return Observations(points_mm + FAR_MM, inside, name=shape.name, spread=0.2)


def test_rotations_are_rotations():
    vectors = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, np.pi / 2], [0.3, -0.2, 0.5]]).float()
    found = rotations(vectors)
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(3).expand(3, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found[1] @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0
    )


def test_a_pose_and_its_frame_map_alike():
    prior = pose_prior(tiny_atlas().config)
    origin_mm = np.array([[10.0, 20.0, 30.0], [-5.0, 0.0, 2.0]])
    poses = Poses(prior, origin_mm, [False] * len(origin_mm))
    free = torch.randn(2, FREE, generator=torch.Generator().manual_seed(0))
    points = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(1)) * 20
    cube = poses.to_cube(free, points)
    at_mm = points.double().numpy() + origin_mm[:, None]
    for frame, at, expected in zip(poses.frames(free), at_mm, cube.numpy(), strict=True):
        assert frame.resolution == RESOLUTION
        np.testing.assert_allclose(frame.world_to_cube(at), expected, atol=1e-4)


@pytest.mark.parametrize("degrees", [30.0, 50.0, 100.0, 170.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cube_keeps_its_axes_however_far_it_is_turned(axis, degrees):
    """Its first axis is the template's, and not that which is nearest to the patient's right."""
    poses = Poses(pose_prior(tiny_atlas().config), np.array([[10.0, 20.0, 30.0]]), [False])
    free = torch.zeros((1, FREE))
    free[0, 6 + axis] = np.deg2rad(degrees) / TURN
    points = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(1)) * 20
    (frame,) = poses.frames(free)
    at = points[0].double().numpy() + poses.origin_mm
    cube = poses.to_cube(free, points)[0].numpy()
    np.testing.assert_allclose(frame.world_to_cube(at), cube, atol=1e-4)
    logits = np.linspace(-1, 1, RESOLUTION, dtype=np.float32)[:, None, None] * np.ones(
        (1, RESOLUTION, RESOLUTION)
    )
    grid = Grid((40, 40, 40), np.array([[1.0, 0, 0, -10], [0, 1, 0, 0], [0, 0, 1, 10], [0, 0, 0, 1]]))
    voxels = np.argwhere(np.ones(grid.shape))
    inside = frame.world_to_cube(voxels + grid.affine[:3, 3])
    expected = (inside[:, 0] > 1e-3) & (np.abs(inside) < 1 - 2 / RESOLUTION).all(1)
    found = restore_on(logits.astype(np.float32), frame, grid, 0.0)[tuple(voxels.T)]
    assert (found[expected]).all() and not found[inside[:, 0] < -1e-3].any()


def test_sizes_have_the_distribution_of_the_training_shapes():
    config = tiny_atlas().config
    prior = pose_prior(config)
    logs = np.log(np.array(config.sizes_mm))
    np.testing.assert_allclose(prior.log_size.numpy(), logs.mean(0), rtol=1e-6)
    alone = pose_prior(dataclasses.replace(config, sizes_mm=((30.0, 40.0, 50.0),)))
    np.testing.assert_allclose((alone.factor @ alone.factor.T).numpy(), 0.15**2 * np.eye(3), atol=1e-6)
    same = pose_prior(dataclasses.replace(config, frame="isotropic"))
    assert np.linalg.matrix_rank((same.factor @ same.factor.T).numpy(), tol=1e-6) == 1


@pytest.mark.parametrize("labelled", [False, True])
def test_an_organ_is_found_where_it_lies(labelled):
    shape = SHAPES[6]
    seen = clicks(shape, 300, labelled=labelled)
    (fit,) = tiny_atlas().complete_in_scan([seen])
    assert (
        fit.failure is None and fit.found.degrees_of_freedom == fit.found.code.size + residual_size() + FREE
    )
    assert dsc(fit.mask_on(moved_grid(shape)), restore(shape)) > 0.85
    # The scanner's origin does not matter.
    (back,) = tiny_atlas().complete_in_scan([dataclasses.replace(seen, points=seen.points - FAR_MM)])
    assert dsc(fit.mask_on(moved_grid(shape)), back.mask_on(shape.frame.grid)) > 0.98
    distance = np.linalg.norm(fit.mesh().vertices.mean(0) - FAR_MM - back.mesh().vertices.mean(0))
    assert distance < 0.5


def test_a_turned_organ_is_found_turned():
    turn = rotations(torch.tensor([[0.0, 0.0, 0.2]]))[0].double().numpy()
    grid = moved_grid(SHAPES[6], turn)
    found = tiny_atlas().complete_in_scan([clicks(SHAPES[6], 300), clicks(SHAPES[6], 300, turn)])
    straight, turned = (fit.found.frame.affine_cube_to_world[:3, :3] for fit in found)
    along = [axes[:, 0] / np.linalg.norm(axes[:, 0]) for axes in (straight, turned)]
    assert np.arctan2(*(along[1] @ turn)[[1, 0]]) == pytest.approx(np.arctan2(*along[0][[1, 0]]), abs=0.15)
    assert dsc(found[1].mask_on(grid), restore(SHAPES[6])) > 0.75


def test_cases_do_not_depend_on_their_company():
    both = [clicks(SHAPES[6], 100), clicks(SHAPES[7], 80)]
    quick = SparseConfig(iterations=5)
    together, alone = (
        tiny_atlas().complete_in_scan(both, quick),
        tiny_atlas().complete_in_scan(both[1:], quick),
    )
    np.testing.assert_allclose(together[1].found.code, alone[0].found.code, atol=1e-3)


def half_of(shape: Shape) -> tuple[Observations, int]:
    """The labels of the first half of a shape along its longest axis, of a volume that ends there; and the axis."""
    sizes = shape.frame.cube_to_world(np.ones((1, 3)))[0] - shape.frame.cube_to_world(-np.ones((1, 3)))[0]
    axis = int(np.abs(sizes).argmax())
    voxel = np.argwhere(np.ones((RESOLUTION,) * 3))
    voxel = voxel[voxel[:, axis] < RESOLUTION // 2]
    inside = shape.occupancy[tuple(voxel.T)].astype(float)
    points_mm = shape.frame.cube_to_world((2 * voxel + 1) / RESOLUTION - 1)
    return Observations(points_mm, inside, np.full(len(voxel), 0.05), name=shape.name), axis


def test_half_an_organ_is_searched_for_beyond_its_end_and_not_made_small():
    shape = SHAPES[6]
    seen, axis = half_of(shape)
    prior = pose_prior(tiny_atlas().config)
    starts = prior.starts(seen.points, seen.occupancy)
    whole = prior.starts(clicks(shape, 300).points, np.full(300, 0.5))
    beyond = [set(np.flatnonzero(row)) for row in starts[3:]]
    assert len(whole) < len(starts) and beyond.count({axis}) == 2
    assert np.abs(starts[3:, axis]).max() == pytest.approx(1, abs=0.35)  # a quarter of its length
    (fit,) = tiny_atlas().complete_in_scan([seen])
    there = restore(shape)
    found = fit.mask_on(shape.frame.grid)
    assert dsc(found, there) > 0.75 and found.sum() > 0.8 * there.sum()


def test_a_draw_starts_with_its_own_shape_and_size_about_what_was_seen():
    """So that ends that were not seen differ from draw to draw; the middle of what was seen stays where it was."""
    atlas, seen = tiny_atlas(), half_of(SHAPES[6])[0]
    codes, pose = atlas.prior, pose_prior(atlas.config)
    draw = SparseBatch(atlas.network, [seen], ShapePrior(codes, pose=pose), SparseConfig(), draw=1)
    free = torch.zeros((1, draw.size))
    free[:, -FREE:][:, :6] = torch.tensor([0.5, -0.3, 0.2, 1.0, 0.0, -1.0])
    begun, middle = draw.drawn(free), torch.zeros((1, 1, 3))
    torch.testing.assert_close(begun[:, -FREE:][:, SIZES], draw.centre[:, -FREE:][:, SIZES])
    places = [draw.poses.to_cube(numbers[:, -FREE:], middle) for numbers in (free, begun)]
    torch.testing.assert_close(*places)
    torch.testing.assert_close(begun[:, :-FREE], free[:, :-FREE] + draw.centre[:, :-FREE])
    in_box = SparseBatch(atlas.network, [seen], ShapePrior(codes), SparseConfig(), draw=1)
    torch.testing.assert_close(in_box.drawn(free[:, :-FREE]), free[:, :-FREE] + in_box.centre)


def test_a_draw_of_a_case_does_not_depend_on_what_is_completed_beside_it():
    """And has random numbers of its own, so that what draws cover says something of each case."""
    atlas, seen = tiny_atlas(), half_of(SHAPES[6])[0]
    prior = ShapePrior(atlas.prior, pose=pose_prior(atlas.config))
    several = [dataclasses.replace(seen, name=name) for name in ("one", "other")]
    together = SparseBatch(atlas.network, several, prior, SparseConfig(), draw=1)
    alone = SparseBatch(atlas.network, several[1:], prior, SparseConfig(), draw=1)
    torch.testing.assert_close(together.centre[1], alone.centre[0])
    points = together.sample(0).points
    torch.testing.assert_close(points[1], alone.sample(0).points[0])
    assert (together.centre[0] - together.centre[1]).abs().max() > 0.1
    assert (points[0] - points[1]).abs().max() > 0
    one = dataclasses.replace(seen, points=seen.points + 1e-3)  # as clicks in memory, all of one name
    (first, second) = SparseBatch(atlas.network, [seen, one], prior, SparseConfig(), draw=1).centre
    assert (first - second).abs().max() > 0.1
    again = SparseBatch(atlas.network, several, prior, SparseConfig(), draw=2)
    assert (together.centre - again.centre).abs().amax(1).min() > 0.1


def test_points_that_guide_a_search_do_not_make_its_end_more_probable():
    """However many they are, and although points that crowd weigh less."""
    atlas, seen = tiny_atlas(), half_of(SHAPES[6])[0]
    prior = ShapePrior(atlas.prior, pose=pose_prior(atlas.config))
    far = seen.points.mean(0) + np.random.default_rng(0).uniform(200, 300, (500, 3))  # outside, as they say
    guided = Observations(
        np.concatenate([seen.points, far]),
        np.concatenate([seen.occupancy, np.zeros(500)]),
        np.concatenate([np.asarray(seen.weight), np.ones(500)]),
        spread=np.concatenate([seen.spreads, np.full(500, np.inf)]),
        guides=500,
    )
    assert np.array_equal(guided.unguided().points, seen.points) and seen.unguided() is seen
    batches = [SparseBatch(atlas.network, [one], prior, SparseConfig()) for one in (seen, guided)]
    free = torch.zeros((1, batches[0].size))
    plain, alone = (batch.improbability(free, torch.tensor([0]), guided=False) for batch in batches)
    torch.testing.assert_close(plain, alone)
    torch.testing.assert_close(batches[0].improbability(free, torch.tensor([0])), plain)
    assert abs(batches[1].improbability(free, torch.tensor([0])) - plain) > 1  # by which none may be judged


def test_draws_follow_the_most_probable_shape_and_spread_where_nothing_was_seen():
    seen, axis = half_of(SHAPES[6])
    (alone,) = tiny_atlas().complete_in_scan([seen])
    ((fit, *draws),) = tiny_atlas().complete_and_draw([seen], 4)
    np.testing.assert_allclose(fit.found.code, alone.found.code, atol=1e-3)
    grid = SHAPES[6].frame.grid
    share = np.mean([draw.mask_on(grid) for draw in draws], axis=0)
    unsure = np.argwhere((share > 0) & (share < 1))
    beyond = grid_to_cube(SHAPES[6], unsure)[:, axis] > 0
    assert len(draws) == 4 and beyond.mean() > 0.5


def grid_to_cube(shape: Shape, voxels: np.ndarray) -> np.ndarray:
    affine = shape.frame.grid.affine
    return shape.frame.world_to_cube(voxels @ affine[:3, :3].T + affine[:3, 3])


def test_nothing_inside_is_searched_around_what_was_seen():
    seen = clicks(SHAPES[7], 50)
    outside = dataclasses.replace(seen, occupancy=np.zeros(50), spread=None)
    (fit,) = tiny_atlas().complete_in_scan([outside], SparseConfig(iterations=3))
    assert fit.failure is None or "mean" in fit.failure
    with pytest.raises(InputError, match="no shape was given"):
        tiny_atlas().complete_in_scan([])


def moved_grid(shape: Shape, turn: np.ndarray | None = None) -> Grid:
    affine = shape.frame.grid.affine.copy()
    affine[:3] = affine[:3] if turn is None else turn @ affine[:3]
    affine[:3, 3] += FAR_MM
    return Grid(shape.frame.grid.shape, affine)


def residual_size() -> int:
    nodes = tiny_atlas().residual_nodes(SparseConfig().residual_nodes)
    return 0 if nodes is None else nodes.free


def test_points_that_crowd_weigh_less_and_lone_ones_as_much_as_before():
    size_mm = np.array([32.0, 16.0, 16.0])  # cells of 2, 1 and 1 mm
    few = np.array([[0.5, 0.5, 0.5], [8.5, 0.5, 0.5], [16.5, 0.5, 0.5], [24.5, 0.5, 0.5]])
    for copies, weight in ((1, 1.0), (1, 0.01), (25, 1.0), (50, 2.0), (100, 0.01)):
        points = np.repeat(few, copies, axis=0)
        seen = Observations(points, np.ones(len(points)), np.full(len(points), weight))
        found = np.asarray(uncrowded(seen, size_mm).weight)
        np.testing.assert_allclose(found, weight * max(1, weight * copies) ** -CROWDING)
