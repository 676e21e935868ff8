"""The trained atlas: saved and loaded it fits the same, and what it finds lies where the organ was."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import nibabel
import numpy as np
import pytest
import torch
from atlas_samples import CODE, FIT, RESOLUTION, dsc, phantom_shapes, tiny_atlas, tiny_model, tiny_training
from nibabel import orientations
from safetensors.torch import load_file, save_file

from implicit_atlas import atlas_folder, grid
from implicit_atlas.atlas import TrainedAtlas
from implicit_atlas.errors import FitError, InputError
from implicit_atlas.frame import Grid
from implicit_atlas.io import Mask
from implicit_atlas.learning import train
from implicit_atlas.phantoms import PhantomConfig, make_phantom
from implicit_atlas.sampling import Observations
from implicit_atlas.shapes import prepare

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


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "organ.atlas"
    tiny_atlas().save(path, "# A card\n")
    return path


def test_a_saved_atlas_fits_the_same(folder):
    loaded = TrainedAtlas.load(folder)
    before, after = tiny_atlas().fit(SHAPES[5:], QUICK), loaded.fit(SHAPES[5:], QUICK)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.found.code, b.found.code)
        assert (a.found.template, a.found.start, a.found.loss) == (
            b.found.template,
            b.found.start,
            b.found.loss,
        )
        np.testing.assert_array_equal(a.occupancy(), b.occupancy())


def test_everything_comes_back(folder):
    atlas, loaded = tiny_atlas(), TrainedAtlas.load(folder)
    assert loaded.config == atlas.config
    assert loaded.provenance == json.loads(json.dumps(atlas.provenance))
    np.testing.assert_array_equal(loaded.codes, atlas.codes)
    for name in ("mean", "matrix", "offset", "resolution"):
        np.testing.assert_array_equal(getattr(loaded.encoder, name), getattr(atlas.encoder, name))
    assert not loaded.network.training
    for name, value in atlas.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])


@pytest.fixture
def all_large(monkeypatch):
    """Tensors of tiny networks count as large."""
    monkeypatch.setattr(atlas_folder, "LARGE", 64)


def trained_in_a_step():
    return train(phantom_shapes(2), tiny_model(), tiny_training(steps=1))


def large_names(atlas):
    return [f"network.{name}" for name, value in atlas.network.state_dict().items() if value.numel() >= 64]


@pytest.mark.usefixtures("all_large")
def test_large_weights_are_stored_in_halves_and_the_atlas_is_one_before_and_after(tmp_path):
    atlas = trained_in_a_step()
    atlas.save(tmp_path / "x.atlas", "")
    stored, loaded = (
        load_file(tmp_path / "x.atlas/weights.safetensors"),
        TrainedAtlas.load(tmp_path / "x.atlas"),
    )
    halves = [name for name in large_names(atlas) if stored[name].dtype == torch.float16]
    assert {"network.modes.weight", "network.template.first.weight"} <= set(halves)
    for name, value in atlas.network.state_dict().items():
        assert value.dtype == loaded.network.state_dict()[name].dtype
        assert torch.equal(value, loaded.network.state_dict()[name])


def test_large_weights_of_schema_4_are_read_in_single_precision(tmp_path, monkeypatch):
    atlas, folder = trained_in_a_step(), tmp_path / "old.atlas"
    atlas.save(folder, "")
    config = earlier_sizes(as_before_schema_7(folder))
    del config["large_halves"]
    (folder / "config.json").write_text(json.dumps({**config, "schema_version": 4}))
    renew_hash(folder, "config.json")
    monkeypatch.setattr(atlas_folder, "LARGE", 64)
    assert_same_but_sizes(TrainedAtlas.load(folder), atlas)


def as_before_schema_7(folder):
    """The configuration; the folder loses its prior, and its modes the normals of all templates but the first."""
    weights = load_file(folder / "weights.safetensors")
    weights = {name: value for name, value in weights.items() if not name.startswith("prior.")}
    if (name := "network.modes.normals") in weights:
        weights[name] = weights[name][0].clone()
    save_file(weights, folder / "weights.safetensors")
    renew_hash(folder, "weights.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["each_template"]
    return config


def earlier_sizes(config):
    """Before schema 6 only the mean size of the cubes was kept."""
    sizes = np.array(config.pop("sizes_mm"))
    return {**config, "size_mm": sizes.mean(0).tolist()}


def test_schema_6_had_one_surface_and_one_prior_for_all_templates(tmp_path):
    atlas, folder = trained_in_a_step(), tmp_path / "old.atlas"
    atlas.save(folder, "")
    (folder / "config.json").write_text(json.dumps({**as_before_schema_7(folder), "schema_version": 6}))
    renew_hash(folder, "config.json")
    loaded = TrainedAtlas.load(folder)
    assert loaded.config == atlas.config
    first, second = loaded.network.modes.normals
    assert torch.equal(first, second) and torch.equal(first, atlas.network.modes.normals[0])
    np.testing.assert_allclose(loaded.prior.means, np.tile(atlas.codes.mean(0), (2, 1)), atol=1e-6)
    np.testing.assert_allclose(loaded.prior.shares, [0.5, 0.5])


def assert_same_but_sizes(loaded, atlas):
    assert len(loaded.config.sizes_mm) == 1
    np.testing.assert_allclose(loaded.config.size_mm, atlas.config.size_mm)
    assert dataclasses.replace(loaded.config, sizes_mm=atlas.config.sizes_mm) == atlas.config


@pytest.mark.parametrize("sizes", [[[1.0, 2.0, -3.0]], [], [[1.0, 2.0, 3.0]] * 5])
def test_sizes_that_cannot_be_are_refused(folder, sizes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sizes_mm": sizes}))
    renew_hash(folder, "config.json")
    with pytest.raises(InputError, match="sizes that cannot be"):
        TrainedAtlas.load(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "codes.safetensors", "config.json", "README.md"])
def test_an_altered_file_is_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        TrainedAtlas.load(folder)


LACKING = {1: ("modes", "motion", "template"), 2: ("modes",), 3: ()}


@pytest.mark.parametrize("schema", LACKING)
def test_folders_of_earlier_schemas_are_read(tmp_path, schema):
    """Of atlases without modes; the first schema had neither a motion nor a template decoder of their own."""
    atlas = train(phantom_shapes(2), tiny_model(modes=0), tiny_training(steps=1))
    folder = tmp_path / "old.atlas"
    atlas.save(folder, "")
    config = earlier_sizes(as_before_schema_7(folder))
    for name in LACKING[schema]:
        del config["model"][name]
    (folder / "config.json").write_text(json.dumps({**config, "schema_version": schema}))
    renew_hash(folder, "config.json")
    assert_same_but_sizes(TrainedAtlas.load(folder), atlas)


def renew_hash(folder, name):
    """As if the file had always been so."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_modes_of_an_earlier_schema_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "schema_version": 3}))
    renew_hash(folder, "config.json")
    with pytest.raises(InputError, match="schema 3, which this program no longer reads"):
        TrainedAtlas.load(folder)


def test_modes_at_nodes_that_do_not_exist_are_refused(folder):
    weights = load_file(folder / "weights.safetensors")
    weights["network.modes.kept"][-1] = 10**6
    save_file(weights, folder / "weights.safetensors")
    renew_hash(folder, "weights.safetensors")
    with pytest.raises(InputError, match="modes at nodes that its lattice has not"):
        TrainedAtlas.load(folder)


def test_a_folder_without_codes_is_refused(folder):
    (folder / "codes.safetensors").unlink()
    with pytest.raises(InputError):
        TrainedAtlas.load(folder)


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


def test_templates_have_logits_and_others_are_refused():
    atlas = tiny_atlas()
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    first, second = (atlas.template_logits(index, points) for index in range(2))
    assert first.shape == (20,) and not np.allclose(first, second)
    for index in (-1, 2):
        with pytest.raises(InputError, match="this atlas's 2"):
            atlas.template_logits(index, points)


def test_a_field_has_no_templates():
    atlas = train(SHAPES[:3], tiny_model("conv"), tiny_training(steps=2))
    assert atlas.templates == 0 and atlas.template_usage() == []
    assert atlas.known(SHAPES[0].name).found.template is None
    with pytest.raises(InputError, match="template 0"):
        atlas.template_logits(0, np.zeros((1, 3)))


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
