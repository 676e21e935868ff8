"""Tests of implicit_atlas.geometry.frame: exact maps between cube, voxels and world."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shape_masks import AXIS_ORDERS, affine_of, ellipsoid_mask, frame_around, reoriented

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Frame, Grid, bounding_box, frame_of_box

affines = st.builds(
    affine_of,
    spacing_mm=st.tuples(*[st.floats(0.01, 20)] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    origin_mm=st.tuples(*[st.floats(-500, 500)] * 3),
)
boxes = st.tuples(*[st.builds(lambda a, n: slice(a, a + n), st.integers(0, 9), st.integers(1, 40))] * 3)
kinds = st.sampled_from(["box", "isotropic"])
resolutions = st.integers(2, 130)
margins = st.floats(0, 1)


def lattice_nodes(resolution):
    return -1 + (2 * np.arange(resolution) + 1) / resolution


@given(affines, boxes, resolutions, margins, kinds)
@settings(max_examples=60, deadline=None)
def test_maps_are_inverses(affine, box, resolution, margin, kind):
    frame = frame_of_box(box, Grid((60, 60, 60), affine), resolution, margin, kind)
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (2, 7, 3))
    assert np.allclose(frame.voxel_to_cube(frame.cube_to_voxel(points)), points, atol=1e-10)
    assert np.allclose(frame.world_to_cube(frame.cube_to_world(points)), points, atol=1e-7)
    by_voxel = frame.cube_to_voxel(points) @ affine[:3, :3].T + affine[:3, 3]
    assert np.allclose(frame.cube_to_world(points), by_voxel, atol=1e-7)
    assert np.allclose(frame.affine_world_to_cube @ frame.affine_cube_to_world, np.eye(4), atol=1e-7)


@given(affines, boxes, resolutions, kinds, margins)
@settings(max_examples=60, deadline=None)
def test_json_gives_the_same_frame_bit_for_bit(affine, box, resolution, kind, margin):
    frame = frame_of_box(box, Grid((60, 60, 60), affine), resolution, margin, kind)
    again = Frame.from_json(json.loads(json.dumps(frame.to_json())))
    assert again.grid.shape == frame.grid.shape
    assert again.grid.affine.tobytes() == frame.grid.affine.tobytes()
    assert again.start.tobytes() == frame.start.tobytes() and again.step.tobytes() == frame.step.tobytes()
    assert (again.resolution, again.kind, again.margin) == (resolution, kind, margin)


@given(boxes, resolutions)
@settings(max_examples=60, deadline=None)
def test_protocol_nodes_are_voxel_centres_at_both_ends(box, resolution):
    frame = frame_of_box(box, Grid((60, 60, 60), np.eye(4)), resolution)
    nodes = frame.cube_to_voxel(np.repeat(lattice_nodes(resolution)[:, None], 3, axis=1))
    for axis in range(3):
        first, last = box[axis].start, box[axis].stop - 1
        if first < last:
            assert np.allclose(nodes[:, axis], np.linspace(first, last, resolution))
        else:
            # One slice fills the cube: the cube's ends are the slice's faces.
            ends = frame.cube_to_voxel(np.array([[-1.0] * 3, [1.0] * 3]))[:, axis]
            assert np.allclose(ends, (first - 0.5, first + 0.5))


@given(boxes, resolutions, margins, kinds, affines)
@settings(max_examples=60, deadline=None)
def test_the_window_at_margin_0_is_the_box_and_never_less(box, resolution, margin, kind, affine):
    grid = Grid((60, 60, 60), affine)
    assert frame_of_box(box, grid, resolution).voxel_window() == box
    window = frame_of_box(box, grid, resolution, margin, kind).voxel_window()
    for axis in range(3):
        assert 0 <= window[axis].start <= box[axis].start
        assert box[axis].stop <= window[axis].stop <= 60


@given(affines, boxes, resolutions, margins)
@settings(max_examples=40, deadline=None)
def test_isotropic_has_one_scale_and_the_box_s_centre(affine, box, resolution, margin):
    frame = frame_of_box(box, Grid((60, 60, 60), affine), resolution, margin, "isotropic")
    assert np.allclose(frame.lattice_spacing_mm, frame.lattice_spacing_mm[0])
    centre = np.array([(axis.start + axis.stop - 1) / 2 for axis in box])
    assert np.allclose(frame.canonical_to_cube(centre), 0)


def test_margin_is_a_fraction_of_the_box_on_each_side():
    box = (slice(10, 30), slice(5, 6), slice(0, 41))
    frame = frame_of_box(box, Grid((60, 60, 60), np.eye(4)), 64, margin=0.25)
    assert np.allclose(frame.start[[0, 2]], (10 - 5, 0 - 0.25 * 41))
    ends = frame.cube_to_voxel(np.array([[-1.0] * 3, [1.0] * 3]))
    assert np.allclose(ends[:, 1], (5 - 0.75, 5 + 0.75))


@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS)
def test_every_axis_order_puts_the_cube_in_the_same_place(order, flips):
    mask = ellipsoid_mask(affine=affine_of((0.8, 1.0, 3.0), (20, -35, 10), (12, -40, 7)))
    turned = reoriented(mask, order, flips)
    for kind in ("box", "isotropic"):
        frame = frame_around(mask.occupancy, mask.grid, 20, 0.1, kind)
        frame_turned = frame_around(turned.occupancy, turned.grid, 20, 0.1, kind)
        points = np.random.default_rng(1).uniform(-1, 1, (50, 3))
        assert np.allclose(frame_turned.cube_to_world(points), frame.cube_to_world(points))
        assert np.allclose(frame_turned.affine_cube_to_world, frame.affine_cube_to_world)


def test_grid_says_where_it_lies():
    grid = Grid((4, 5, 6), np.diag([-0.5, 2.0, -3.0, 1.0]))
    assert grid.orientation == "LAI"
    assert np.allclose(grid.spacing_mm, (0.5, 2, 3))
    assert grid.voxel_volume_mm3 == pytest.approx(3)


def test_same_grid_up_to_a_tolerance():
    grid = Grid((10, 10, 10), np.eye(4))
    moved, scaled = np.eye(4), np.diag([1.001, 1, 1, 1])
    moved[0, 3] = 5e-4
    assert grid.same_as(Grid((10, 10, 10), moved))
    assert not grid.same_as(Grid((10, 10, 10), scaled))  # 9 micrometres at the far corner
    assert grid.same_as(Grid((10, 10, 10), scaled), tolerance_mm=0.01)
    assert not grid.same_as(Grid((10, 10, 11), np.eye(4)))


def test_small_and_large_spacing_are_no_singular_affines():
    assert np.allclose(Grid((3, 3, 3), np.diag([0.01, 0.01, 0.01, 1])).spacing_mm, 0.01)
    assert np.allclose(Grid((3, 3, 3), np.diag([20.0, 20, 0.01, 1])).spacing_mm, (20, 20, 0.01))


@pytest.mark.parametrize(
    "affine",
    [
        np.full((4, 4), np.nan),
        np.diag([1.0, 1, 0, 1]),
        np.diag([1.0, 1, np.inf, 1]),
        np.diag([1.0, 1, 1, 2]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_affines_that_lead_nowhere_are_refused(affine):
    with pytest.raises(InputError, match="affine"):
        Grid((3, 3, 3), affine)


def test_a_caller_cannot_move_a_frame():
    affine = np.eye(4)
    grid = Grid((3, 3, 3), affine)
    affine[0, 0] = 5
    assert grid.affine[0, 0] == 1
    frame = frame_of_box((slice(0, 2),) * 3, grid, 8)
    for values in (grid.affine, frame.start, frame.step, frame.affine_cube_to_world, grid.spacing_mm):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1


@pytest.mark.parametrize(
    "options", [{"resolution": 1}, {"resolution": 5000}, {"margin": -0.1}, {"margin": np.nan}]
)
def test_options_out_of_range_are_refused(options):
    mask = ellipsoid_mask()
    with pytest.raises(InputError, match="out of range"):
        frame_around(mask.occupancy, mask.grid, **options)


def test_empty_and_mismatched_masks_are_refused():
    grid = Grid((3, 4, 5), np.eye(4))
    with pytest.raises(InputError, match="is empty"):
        frame_around(np.zeros((3, 4, 5), bool), grid)
    with pytest.raises(InputError, match="differs from its grid"):
        frame_around(np.ones((5, 4, 3), bool), grid)


@pytest.mark.parametrize("order", ["C", "F"])
def test_bounding_box_is_tight(order):
    occupancy = np.zeros((9, 8, 7), bool, order=order)
    occupancy[2, 3, 1] = occupancy[5, 3, 6] = True
    assert bounding_box(occupancy, Grid((9, 8, 7), np.eye(4))) == (slice(2, 6), slice(3, 4), slice(1, 7))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [3, 3]),
        ("shape", [3.0, 3, 3]),
        ("shape", [0, 3, 3]),
        ("affine", [[1, 0], [0, 1]]),
        ("start", [0.0, 0.0]),
        ("step", [0.0, 1.0, 1.0]),
        ("step", ["1", 1.0, 1.0]),
        ("resolution", 1e9),
        ("resolution", True),
        ("kind", "sphere"),
        ("margin", None),
        ("extra", 1),
    ],
)
def test_altered_json_is_refused(key, value):
    values = frame_of_box((slice(0, 2),) * 3, Grid((3, 3, 3), np.eye(4)), 8).to_json()
    with pytest.raises(InputError, match="case"):
        Frame.from_json({**values, key: value}, "case.json")


@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS)
def test_bounding_box_is_in_canonical_order(order, flips):
    turned = reoriented(ellipsoid_mask((20, 18, 16), (5, 6, 4), centre=(7, 9, 6)), order, flips)
    box = bounding_box(turned.occupancy, turned.grid)
    occupied = np.argwhere(turned.grid.to_canonical(turned.occupancy))
    assert box == tuple(slice(a, b + 1) for a, b in zip(occupied.min(0), occupied.max(0), strict=True))
