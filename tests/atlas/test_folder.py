"""Model folders of atlases: what is written comes back, earlier schemas are read, altered ones refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from atlas_samples import FIT, phantom_shapes, tiny_atlas, tiny_model, tiny_training
from safetensors.torch import load_file, save_file

from implicit_atlas.atlas import folder as atlas_folder
from implicit_atlas.errors import InputError
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training.learning import train

SHAPES = phantom_shapes(8)
QUICK = dataclasses.replace(FIT, iterations=20)


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


def test_a_model_that_is_saved_without_a_card_says_what_it_is(tmp_path):
    tiny_atlas().save(tmp_path / "organ.atlas")
    card = (tmp_path / "organ.atlas" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# organ: shape atlas") and "| training shapes |" in card


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


def test_a_card_may_be_filled_in_by_hand(folder):
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\n**Licence**: CC-BY 4.0\n", encoding="utf-8")
    assert TrainedAtlas.load(folder).config.names


@pytest.mark.parametrize("name", ["weights.safetensors", "codes.safetensors", "config.json"])
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
