"""Tests of implicit_atlas.shapes.shape: prepare as the paper does, restore to the original grid."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shape_masks import AXIS_ORDERS, affine_of, dsc, ellipsoid_mask, frame_around, reoriented, save_mask

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Grid, bounding_box
from implicit_atlas.shapes.shape import (
    Shape,
    hash_source,
    prepare,
    restore,
    restore_lattice,
    restore_on,
)

R = 48


def test_prepare_is_scipy_zoom_of_the_box():
    mask = ellipsoid_mask()
    box = mask.occupancy[bounding_box(mask.occupancy, mask.grid)]
    expected = ndimage.zoom(box.astype(float), [R / n for n in box.shape], order=3) > 0.5
    shape = prepare(mask, R)
    assert np.array_equal(shape.occupancy, expected)
    assert (shape.name, shape.source, shape.dtype) == ("organ", "organ.nii.gz", "uint8")


@pytest.mark.parametrize("kind", ["box", "isotropic"])
@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS)
def test_every_axis_order_gives_the_same_organ_in_the_world(order, flips, margin, kind):
    mask = ellipsoid_mask(affine=affine_of((0.8, 1.0, 2.5), (30, 15, -20), (5, -80, 33)))
    turned = reoriented(mask, order, flips)
    shape, shape_turned = prepare(mask, R, margin, kind), prepare(turned, R, margin, kind)
    assert (shape_turned.occupancy == shape.occupancy).mean() > 0.9999
    restored = restore(shape_turned)
    assert restored.shape == turned.grid.shape
    back = np.flip(restored, [axis for axis in range(3) if flips[axis]]).transpose(np.argsort(order))
    assert (back == restore(shape)).mean() > 0.9999
    assert dsc(restored, turned.occupancy) > (0.98 if kind == "box" else 0.97)


spacings = st.tuples(*[st.floats(0.3, 6)] * 3)
angles = st.tuples(*[st.floats(-180, 180)] * 3)


@given(spacings, angles, st.tuples(*[st.floats(6.0, 13.0)] * 3), st.floats(0, 0.2))
@settings(max_examples=25, deadline=None)
def test_prepare_then_restore_is_the_identity_on_a_smooth_organ(spacing_mm, angles, radii, margin):
    mask = ellipsoid_mask((32, 31, 33), radii, affine=affine_of(spacing_mm, angles))
    shape = prepare(mask, 64, margin)
    assert dsc(restore(shape), mask.occupancy) >= 0.98
    # The organ's centre of mass is where it was in the world, to a fraction of a voxel.
    nodes = np.argwhere(shape.occupancy)
    centre_mm = shape.frame.cube_to_world(-1 + (2 * nodes.mean(0) + 1) / 64)
    expected_mm = mask.grid.affine[:3, :3] @ np.argwhere(mask.occupancy).mean(0) + mask.grid.affine[:3, 3]
    voxel_mm = np.linalg.norm(mask.grid.spacing_mm)
    assert np.linalg.norm(centre_mm - expected_mm) < 0.1 * voxel_mm


def test_at_the_box_s_own_size_nothing_changes():
    occupancy = np.zeros((24, 26, 28), bool)
    occupancy[1:19, 3:21, 7:25] = np.random.default_rng(0).random((18, 18, 18)) > 0.3
    occupancy[1, 3, 7] = occupancy[18, 20, 24] = True
    mask = replace(ellipsoid_mask((24, 26, 28)), occupancy=occupancy)
    assert np.array_equal(restore(prepare(mask, 18)), occupancy)


def test_isotropic_keeps_proportions_in_mm():
    mask = ellipsoid_mask(affine=affine_of((1.0, 1.0, 2.0)))
    shape = prepare(mask, R, kind="isotropic")
    volume_mm3 = shape.occupancy.sum() * np.prod(shape.frame.lattice_spacing_mm)
    assert np.allclose(shape.frame.lattice_spacing_mm, shape.frame.lattice_spacing_mm[0])
    assert volume_mm3 == pytest.approx(mask.occupancy.sum() * mask.grid.voxel_volume_mm3, rel=0.03)


def test_margin_leaves_the_border_empty():
    occupancy = prepare(ellipsoid_mask(), R, margin=0.2).occupancy
    border = int(0.15 / 1.4 * R)
    inside = occupancy[border:-border, border:-border, border:-border]
    assert inside.sum() == occupancy.sum() > 0


@pytest.mark.parametrize("kind", ["box", "isotropic"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 20, 17), (20, 1, 17), (20, 17, 1), (2, 9, 1)],
    ids=lambda shape: "x".join(map(str, shape)),
)
def test_one_slice_and_one_voxel(shape, kind):
    occupancy = np.zeros((24, 24, 24), bool)
    occupancy[tuple(slice(3, 3 + n) for n in shape)] = True
    mask = replace(ellipsoid_mask((24, 24, 24)), occupancy=occupancy)
    prepared = prepare(mask, R, kind=kind)
    assert np.array_equal(restore(prepared), occupancy)
    if kind == "box":
        assert prepared.occupancy.all()


def test_a_mask_that_fills_its_volume():
    mask = replace(ellipsoid_mask((9, 8, 7)), occupancy=np.ones((9, 8, 7), bool))
    shape = prepare(mask, R)
    assert shape.occupancy.all() and restore(shape).all()


def test_components_and_holes_survive():
    occupancy = np.zeros((40, 30, 30), bool)
    occupancy[2:14, 5:25, 5:25] = occupancy[24:38, 5:25, 5:25] = True
    occupancy[28:34, 10:20, 10:20] = False
    shape = prepare(replace(ellipsoid_mask((40, 30, 30)), occupancy=occupancy), 64)
    assert ndimage.label(shape.occupancy)[1] == 2
    assert ndimage.label(~shape.occupancy)[1] == 2  # the gap between the two, and the hole
    assert np.array_equal(restore(shape), occupancy)


def test_nothing_is_changed_that_was_given():
    mask = ellipsoid_mask()
    occupancy, affine = mask.occupancy.copy(), mask.grid.affine.copy()
    shape = prepare(mask, R, 0.1, "isotropic")
    packed = shape.packed.copy()
    restored = restore(shape)
    assert np.array_equal(mask.occupancy, occupancy) and np.array_equal(mask.grid.affine, affine)
    assert np.array_equal(shape.packed, packed)
    cube = shape.occupancy
    cube[:] = False
    assert shape.occupancy.any() and restored.any()


def test_restore_lattice_takes_probabilities_and_logits():
    shape = prepare(ellipsoid_mask(), R)
    probabilities = ndimage.gaussian_filter(shape.occupancy.astype(np.float32), 1)
    expected = restore_lattice(probabilities, shape.frame)
    assert np.array_equal(restore_lattice(4 * probabilities - 2, shape.frame, threshold=0.0), expected)
    assert np.array_equal(restore_lattice(shape.occupancy, shape.frame), restore(shape))
    with pytest.raises(InputError, match="have shape"):
        restore_lattice(probabilities[1:], shape.frame)


def test_on_another_grid_bits_are_interpolated_as_numbers_are():
    mask = ellipsoid_mask()
    shape = prepare(mask, R, 0.1)
    fine = Grid(tuple(2 * n for n in mask.grid.shape), mask.grid.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    of_bits, of_numbers = (
        restore_on(shape.occupancy.astype(kind), shape.frame, fine) for kind in (bool, float)
    )
    assert of_bits.any() and np.array_equal(of_bits, of_numbers)


@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS[::7])
def test_a_restored_lattice_is_the_field_at_the_voxels(order, flips):
    mask = reoriented(ellipsoid_mask(affine=affine_of((1, 2, 0.7), (10, 20, 30))), order, flips)
    frame = frame_around(mask.occupancy, mask.grid, R, 0.2)

    def ball(points):
        return 0.7 - np.linalg.norm(points, axis=1)

    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in mask.grid.shape], indexing="ij"), -1).astype(float)
    at_voxels = np.linalg.norm(frame.voxel_to_cube(voxels), axis=-1) < 0.7
    nodes = -1 + (2 * np.stack(np.meshgrid(*[np.arange(R)] * 3, indexing="ij"), -1) + 1) / R
    from_lattice = restore_lattice(ball(nodes.reshape(-1, 3)).reshape(R, R, R), frame, threshold=0.0)
    assert dsc(from_lattice, at_voxels) > 0.98


def test_content_hash_is_of_the_file(tmp_path):
    mask = ellipsoid_mask()
    path = save_mask(tmp_path, "organ", mask)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert hash_source(path) == prepare(replace(mask, path=path), 16).content_hash == expected
    assert prepare(mask, 16).content_hash == prepare(mask, 24).content_hash != expected
    moved = replace(mask, grid=Grid(mask.grid.shape, affine_of((2, 1, 1))))
    assert prepare(moved, 16).content_hash != prepare(mask, 16).content_hash


@pytest.mark.parametrize("suffix", ["mhd", "mha", "nhdr", "nrrd"])
def test_content_hash_of_a_header_with_its_voxels_elsewhere(suffix, tmp_path):
    header = tmp_path / f"organ.{suffix}"
    header.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = organ.raw\n"
        if suffix.startswith("m")
        else "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: organ.raw\n\n"
    )
    (tmp_path / "organ.raw").write_bytes(bytes(8))
    before = hash_source(header)
    (tmp_path / "organ.raw").write_bytes(bytes([1] * 8))
    assert hash_source(header) != before


def test_empty_and_vanishing_organs_are_refused_by_name():
    mask = ellipsoid_mask()
    with pytest.raises(InputError, match=r"organ\.nii\.gz: is empty"):
        prepare(replace(mask, occupancy=np.zeros_like(mask.occupancy)), R)
    # Six single voxels, one on each face of the box, none near a node.
    thread = np.zeros((200, 200, 200), bool)
    for axis in range(3):
        for end in (0, -1):
            voxel = [100, 100, 100]
            voxel[axis] = end
            thread[tuple(voxel)] = True
    with pytest.raises(InputError, match="vanishes at resolution 8"):
        prepare(replace(mask, occupancy=thread, grid=Grid(thread.shape, np.eye(4))), 8)


def test_a_shape_with_too_few_bits_is_refused():
    shape = prepare(ellipsoid_mask(), 9)
    assert shape.packed.shape == ((9**3 + 7) // 8,)
    with pytest.raises(InputError, match="not 92 bytes"):
        Shape("organ", shape.packed[:-1], shape.frame, "", "")
