"""The trained atlas: saved and loaded it fits the same, and what it finds lies where the organ was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest
from atlas_samples import CODE, FIT, RESOLUTION, dsc, phantom_shapes, tiny_atlas, tiny_model, tiny_training
from nibabel import orientations

from implicit_atlas.correspondence.through_template import transfer_points
from implicit_atlas.errors import FitError, InputError
from implicit_atlas.generation import interpolate
from implicit_atlas.geometry import grid
from implicit_atlas.geometry.frame import Grid
from implicit_atlas.io import Mask
from implicit_atlas.phantoms import PhantomConfig, make_phantom
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import prepare, restore
from implicit_atlas.training import learning
from implicit_atlas.training.learning import train

SHAPES = phantom_shapes(8)
QUICK = dataclasses.replace(FIT, iterations=20)
SEEN = make_phantom("two-lobe", 3, PhantomConfig(voxels=24, oblique_degrees=30, anisotropy=2)).mask


def reoriented(mask: Mask, axes: str) -> Mask:
    """The same voxels in the scanner, stored in another axis order."""
    image = nibabel.Nifti1Image(mask.occupancy.astype(np.uint8), mask.grid.affine)
    turn = orientations.ornt_transform(
        nibabel.io_orientation(mask.grid.affine), orientations.axcodes2ornt(axes)
    )
    turned = image.as_reoriented(turn)
    occupancy = np.asarray(turned.dataobj) > 0
    return dataclasses.replace(mask, occupancy=occupancy, grid=Grid(occupancy.shape, turned.affine))


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SRA", "AIL"])
def test_masks_come_back_on_their_own_grid_in_any_axis_order(axes):
    turned = reoriented(SEEN, axes)
    shape, original = prepare(turned, RESOLUTION), prepare(SEEN, RESOLUTION)
    fit, expected = (tiny_atlas().fit([one], QUICK)[0] for one in (shape, original))
    assert fit.mask().shape == turned.occupancy.shape
    there = dataclasses.replace(SEEN, occupancy=expected.mask())
    np.testing.assert_array_equal(fit.mask(), reoriented(there, axes).occupancy)
    assert dsc(fit.mask(), turned.occupancy) > 0.8


def test_masks_and_meshes_of_known_shapes_are_where_the_organ_was():
    atlas = tiny_atlas()
    shape = SHAPES[0]
    fit = atlas.known(shape.name, shape.frame)
    world_mm = shape.frame.grid.affine
    voxels = np.argwhere(fit.mask())
    corners_mm = fit.mesh().vertices
    inside = np.linalg.inv(world_mm) @ np.c_[corners_mm, np.ones(len(corners_mm))].T
    assert (inside[:3].T.min(0) > voxels.min(0) - 1.5).all()
    assert (inside[:3].T.max(0) < voxels.max(0) + 1.5).all()
    volume_mm3 = fit.mask().sum() * shape.frame.grid.voxel_volume_mm3
    assert fit.mesh().volume_mm3 == pytest.approx(volume_mm3, rel=0.1)


def test_logits_are_those_of_the_network_near_the_surface_and_right_in_sign():
    fit = tiny_atlas().known(SHAPES[1].name)
    points = grid.as_numpy(grid.lattice(RESOLUTION)).reshape(-1, 3)
    dense, sparse = fit.logits_at(points).reshape((RESOLUTION,) * 3), fit.logits()
    np.testing.assert_array_equal(dense > 0, fit.occupancy())
    # Neighbours of other sign: the surface passes between them, and both values count.
    crossing = (dense[1:] > 0) != (dense[:-1] > 0)
    np.testing.assert_allclose(sparse[1:][crossing], dense[1:][crossing], atol=1e-5)
    assert fit.occupancy(16).shape == (16, 16, 16)


def test_a_fit_in_no_scan_has_a_cube_mesh_and_no_mask():
    atlas = tiny_atlas()
    voxel = np.random.default_rng(0).integers(0, RESOLUTION, (500, 3))
    values = SHAPES[0].occupancy[tuple(voxel.T)].astype(float)
    (fit,) = atlas.complete([Observations((2 * voxel + 1) / RESOLUTION - 1, values, name="clicks")])
    assert len(fit.cube_mesh().faces) > 100 and np.abs(fit.cube_mesh().vertices).max() <= 1
    for ask in (fit.mask, fit.mesh):
        with pytest.raises(InputError, match="clicks"):
            ask()


def test_shapes_of_another_frame_are_refused():
    """Their cube is another part of space than that of the training shapes."""
    shape = phantom_shapes(8)[7]
    mask = Mask(restore(shape), shape.frame.grid, Path("organ"), (), np.dtype(np.uint8))
    about = tiny_atlas().config.prepared
    for margin, kind in ((0.1, "box"), (0.0, "isotropic")):
        with pytest.raises(InputError, match="another margin or kind of frame"):
            tiny_atlas().fit([prepare(mask, RESOLUTION, margin, kind)])
    assert (about.resolution, about.margin, about.kind) == (RESOLUTION, 0.0, "box")


def test_a_failed_fit_gives_no_mask():
    fit = tiny_atlas().known(SHAPES[0].name, SHAPES[0].frame)
    failed = dataclasses.replace(fit, found=dataclasses.replace(fit.found, failure="it is wrong"))
    assert failed.failure == "it is wrong"
    for ask in (failed.mask, failed.mesh):
        with pytest.raises(FitError, match="it is wrong"):
            ask()


def test_every_training_shape_uses_one_template():
    atlas = tiny_atlas()
    usage = atlas.template_usage()
    assert len(usage) == atlas.templates == 2 and sum(usage) == len(SHAPES[:6])
    chosen = [atlas.known(shape.name).found.template for shape in SHAPES[:6]]
    assert usage == [chosen.count(index) for index in range(2)]


def test_an_atlas_says_in_short_what_it_is():
    said = repr(tiny_atlas())
    assert said.startswith("TrainedAtlas(implicit-atlas") and "2 templates" in said and len(said) < 100


def test_templates_have_logits_and_others_are_refused():
    atlas = tiny_atlas()
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    first, second = (atlas.template_logits(index, points) for index in range(2))
    assert first.shape == (20,) and not np.allclose(first, second)
    for index in (-1, 2):
        with pytest.raises(InputError, match="none of the 2"):
            atlas.template_logits(index, points)


def test_a_field_has_no_templates():
    atlas = train(SHAPES[:3], tiny_model("conv"), tiny_training(steps=2))
    assert atlas.templates == 0 and atlas.template_usage() == []
    assert atlas.known(SHAPES[0].name).found.template is None
    with pytest.raises(InputError, match="template 0"):
        atlas.template_logits(0, np.zeros((1, 3)))


def test_a_training_takes_the_time_that_it_is_given(monkeypatch):
    made = []
    monkeypatch.setattr(learning, "default_config", lambda *given, **more: made.append(given) or quick)
    quick = tiny_training(steps=10**6, max_minutes=1e-4)
    atlas = learning.train(SHAPES[:3], tiny_model(), max_minutes=0.001)
    assert made == [(3, learning.best_device(), 0.001)] and atlas.provenance["steps"] >= 1
    atlas = train(SHAPES[:3], tiny_model(), tiny_training(steps=10**6), max_minutes=0.001)
    assert atlas.provenance["training"]["max_minutes"] == 0.001
    with pytest.raises(InputError, match="not a time"):
        train(SHAPES[:3], tiny_model(), tiny_training(), max_minutes=0.0)


def test_what_an_atlas_says_of_itself():
    atlas = tiny_atlas()
    assert atlas.config.names == tuple(shape.name for shape in SHAPES[:6])
    assert atlas.config.resolution == RESOLUTION
    assert atlas.codes.shape == (6, CODE)
    assert atlas.parameters == sum(value.numel() for value in atlas.network.parameters())
    assert atlas.provenance["content_sha256"] == {shape.name: shape.content_hash for shape in SHAPES[:6]}


def test_a_shape_that_was_not_trained_on_is_not_known():
    with pytest.raises(InputError, match="not a training shape"):
        tiny_atlas().known(SHAPES[7].name)


def test_shapes_that_cannot_be_fitted_together_are_refused():
    with pytest.raises(InputError, match="no shape"):
        tiny_atlas().fit([])
    with pytest.raises(InputError, match="resolutions"):
        tiny_atlas().fit([SHAPES[0], prepare(SEEN, 16)])


def test_shapes_of_another_resolution_can_be_fitted():
    shape = prepare(SEEN, 2 * RESOLUTION)
    (fit,) = tiny_atlas().fit([shape], QUICK)
    assert fit.mask().shape == SEEN.occupancy.shape
    assert dsc(fit.mask(), SEEN.occupancy) > 0.8


def test_the_labels_of_the_organ_are_remembered_and_not_mixed():
    half = [dataclasses.replace(shape, labels=(2,)) for shape in SHAPES[:2]]
    brief = tiny_training(steps=1)
    assert train(half, tiny_model(), brief).config.labels == (2,)
    assert train(SHAPES[:2], tiny_model(), brief, labels=(3,)).config.labels == (3,)
    for shapes, labels in (([half[0], SHAPES[1]], ()), (half, (1,))):
        with pytest.raises(InputError, match="holds shapes of labels"):
            train(shapes, tiny_model(), brief, labels=labels)


def test_fits_of_another_atlas_are_not_taken():
    other = train(SHAPES[:2], tiny_model(), tiny_training(steps=1))
    first, last = (other.known(shape.name, shape.frame) for shape in SHAPES[:2])
    with pytest.raises(InputError, match="another atlas"):
        interpolate(tiny_atlas(), first, last)
    with pytest.raises(InputError, match="another atlas"):
        transfer_points(tiny_atlas(), first, last, np.zeros((1, 3)))
    other.check_own(first)


def test_a_shape_in_another_unit_is_doubtful():
    shape = SHAPES[6]
    grid_mm = shape.frame.grid
    large = Grid(grid_mm.shape, np.diag([100.0, 100, 100, 1]) @ grid_mm.affine)
    mask = Mask(restore(shape), large, Path("large.nii.gz"), (), np.dtype(np.uint8))
    right, wrong = tiny_atlas().fit([shape, prepare(mask, RESOLUTION)], QUICK)
    assert right.doubt is None and "are its voxels in millimetres?" in str(wrong.doubt)


def test_millimetres_are_no_cube_coordinates():
    with pytest.raises(InputError, match="Are they millimetres"):
        tiny_atlas().complete([Observations(40 * np.eye(4, 3), np.full(4, 0.5))])
