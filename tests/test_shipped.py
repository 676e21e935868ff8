"""The models that come with the package: whole, small, documented, and found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import implicit_atlas
from implicit_atlas.errors import InputError
from implicit_atlas.generation import generate
from implicit_atlas.io import find_cases, read_mask
from implicit_atlas.metrics import dsc
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import prepare
from implicit_atlas.shipped import find_model, shipped_models

MODELS = shipped_models()
MAX_BYTES = 12_000_000
REAL = Path(__file__).parents[2] / "shared" / "data"


def test_there_is_a_model():
    assert "hippocampus" in MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_whole_small_and_says_where_it_is_from(name):
    folder = MODELS[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_BYTES
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "CC-BY-SA 4.0" in card and "Medical Segmentation Decathlon" in card
    assert "not stated" not in card and "NSD" in card and "Intended use" in card
    atlas = implicit_atlas.load(name)
    assert len(atlas.config.sizes_mm) == len(atlas.config.names) == len(atlas.codes)
    assert set(atlas.provenance["content_sha256"]) == set(atlas.config.names)
    (mean,) = generate(atlas, 1, temperature=0)
    assert 0.1 < mean.occupancy(48).mean() < 0.8


def test_names_and_paths_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("hippocampus") == MODELS["hippocampus"]
    (tmp_path / "hippocampus").mkdir()  # say, of masks
    assert find_model("hippocampus") == MODELS["hippocampus"]
    (tmp_path / "hippocampus" / "config.json").write_text("{}")
    assert find_model("hippocampus") == Path("hippocampus")
    assert find_model("some/where.atlas") == Path("some/where.atlas")
    with pytest.raises(InputError, match="hippocampus"):
        find_model("hipocampus")


def test_a_template_is_completed_from_points_on_it():
    """In millimetres, far from where the cube lies: the model knows its organ's size."""
    atlas = implicit_atlas.load("hippocampus")
    (mean,) = generate(atlas, 1, temperature=0)
    vertices = mean.mesh(64).vertices
    points = np.random.default_rng(0).permutation(vertices)[:100] + np.array([50.0, -20.0, 900.0])
    seen = Observations(points, np.full(100, 0.5), spread=0.5)
    (fit,) = atlas.complete_in_scan([seen])
    found = fit.mesh(64).vertices - [50.0, -20.0, 900.0]
    assert np.abs(found.mean(0) - vertices.mean(0)).max() < 1
    assert np.abs(np.ptp(found, axis=0) - np.ptp(vertices, axis=0)).max() < 5


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="the real masks are not here")
@pytest.mark.parametrize("name", MODELS)
def test_a_real_mask_is_reconstructed(name):
    atlas = implicit_atlas.load(name)
    mask = read_mask(find_cases(REAL / name / "masks").paths[0])
    shape = prepare(mask, atlas.config.resolution, atlas.config.margin)
    (fit,) = atlas.fit([shape])
    assert dsc(mask.occupancy, fit.mask()) > 0.93
