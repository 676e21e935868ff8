"""Several organs: what is typed, shapes that overlap, label maps in and out."""

from __future__ import annotations

import csv
import shutil

import nibabel
import numpy as np
import pytest
from atlas_samples import phantom_shapes, tiny_model, tiny_training
from commands import run

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import CodeFit
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.geometry.frame import centred_frame
from implicit_atlas.io import read_labels
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.shape import restore
from implicit_atlas.tasks.organs import merge, parse_organs
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training.learning import train

RADIUS, SIDE = 0.6, 32


def ball(x: float) -> Fit:
    """A ball in its cube, 20 mm to a side, whose cube lies x mm to the right of the origin."""
    found = CodeFit(np.zeros(4, np.float32), 0, np.zeros(0, np.float32), "given", 0.0, 0.0, 0, 0.0, 4)
    frame = centred_frame(np.array([20.0, 20.0, 20.0]), SIDE)
    affine = frame.grid.affine.copy()
    affine[0, 3] += x
    frame = type(frame)(Grid(frame.grid.shape, affine), frame.start, frame.step, SIDE, "box", 0.0)
    return Fit("ball", found, frame, SIDE, lambda: lambda p: RADIUS - np.linalg.norm(p, axis=1))


def test_a_voxel_of_two_shapes_goes_to_the_likelier_one():
    grid = Grid(
        (60, 40, 40), np.array([[0.5, 0, 0, -10], [0, 0.5, 0, -10], [0, 0, 0.5, -10], [0, 0, 0, 1.0]])
    )
    claims = {label: (fit, fit.mask_on(grid)) for label, fit in ((7, ball(0.0)), (300, ball(8.0)))}
    labels, contested = merge(claims, grid)
    alone = {label: merge({label: claim}, grid)[0] > 0 for label, claim in claims.items()}
    both = alone[7] & alone[300]
    assert contested == both.sum() > 50
    assert np.array_equal(labels > 0, alone[7] | alone[300])
    x = -10 + 0.5 * np.argwhere(both)[:, 0]
    taken = labels[both]
    assert (taken[x < 3.9] == 7).all() and (taken[x > 4.1] == 300).all()
    assert set(np.unique(labels)) == {0, 7, 300}


def test_organs_as_they_are_typed(tmp_path):
    assert parse_organs(["liver=1", "both kidneys=2,3"], tmp_path) == {"liver": (1,), "both kidneys": (2, 3)}
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "background", "1": "Liver", "2": "Tumour"}}')
    assert parse_organs([], tmp_path) == {"liver": (1,), "tumour": (2,)}
    assert parse_organs(["tumour"], tmp_path) == {"tumour": (2,)}


@pytest.mark.parametrize(
    "words", [["a=1", "a=2"], ["a=1", "b=1"], ["../a=1"], ["a=0"], ["a="], ["=1"], ["nothing"], []]
)
def test_organs_that_cannot_be(words, tmp_path):
    with pytest.raises(InputError):
        parse_organs(words, tmp_path)


@pytest.fixture(scope="module")
def abdomen(tmp_path_factory):
    """Label maps of two organs side by side, labels 2 and 5; the last has only the first organ."""
    folder = tmp_path_factory.mktemp("abdomen")
    one, other = phantom_shapes(3), phantom_shapes(3, seed=50)
    for index, (first, second) in enumerate(zip(one, other, strict=True)):
        parts = [restore(first), restore(second)]
        size = np.maximum(parts[0].shape, parts[1].shape)
        values = np.zeros((2 * size[0], size[1], size[2]), np.int16)
        for part, label, start in zip(parts[: 2 - index // 2], (2, 5), (0, size[0]), strict=False):
            where = np.argwhere(part) + np.array([start, 0, 0])
            values[tuple(where.T)] = label
        nibabel.save(nibabel.Nifti1Image(values, first.frame.grid.affine), folder / f"case{index}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, label, seed in (("left", 2, 0), ("right", 5, 50)):
        shapes = phantom_shapes(3, seed)
        train(shapes, tiny_model(), tiny_training(steps=100), labels=(label,)).save(
            folder / f"{name}.atlas", ""
        )
    return folder


def test_label_maps_become_label_maps(abdomen, models, tmp_path, capsys):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no volume")
    assert run("organs", "reconstruct", models, abdomen, broken, "-o", tmp_path / "out") == 1
    assert "broken" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "out" / "organs.csv").open()))
    states = {(row["name"], row["organ"]): row["state"] for row in rows}
    assert states["case2", "right"] == "absent" and list(states.values()).count("fitted") == 5
    for index in range(3):
        before, after = (read_labels(where / f"case{index}.nii.gz") for where in (abdomen, tmp_path / "out"))
        assert after.grid.same_as(before.grid)
        for label in (2, 5)[: 2 if index < 2 else 1]:
            a, b = before.values == label, after.values == label
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.8


def test_absent_organs_are_no_fault_and_damaged_label_maps_are(abdomen, tmp_path, capsys):
    folder = tmp_path / "maps"
    shutil.copytree(abdomen, folder)
    words = ("--organ", "left=2", "--organ", "right=5")
    assert run("organs", "prepare", folder, "-o", tmp_path / "stores", *words) == 0
    (folder / "broken.nii.gz").write_bytes(b"no volume")
    assert run("organs", "prepare", folder, "-o", tmp_path / "stores", *words) == 1
    assert "error: 1 of 4 cases" in capsys.readouterr().err
    models = tmp_path / "models"
    assert run("organs", "train", folder, "-o", models, *words, "--steps", 1, "--warps", 0) == 1
    said = capsys.readouterr()
    assert "right.atlas: 1 of 4 cases are without it" in said.out
    assert said.err.count("not used: ") == 1  # once for both organs
    assert len(list(models.glob("*.atlas"))) == 2


def test_stores_and_models_of_every_organ(abdomen, tmp_path):
    words = ("--organ", "left=2", "--organ", "right=5")
    stores, out = tmp_path / "stores", tmp_path / "models"
    assert run("organs", "prepare", abdomen, "-o", stores, *words) == 0  # one case lacks the right one
    assert run("organs", "train", stores, "-o", out, "--steps", 1, "--warps", 0, "--organ", "left") == 0
    assert {path.name for path in stores.iterdir()} == {"left", "right"}
    assert [path.name for path in out.glob("*.atlas")] == ["left.atlas"]
    assert TrainedAtlas.load(out / "left.atlas").config.labels == (2,)  # the store's
    before = (out / "left.atlas" / "weights.safetensors").stat().st_mtime_ns
    assert run("organs", "train", stores, "-o", out, "--steps", 1, "--resume", "--organ", "left") == 0
    assert (out / "left.atlas" / "weights.safetensors").stat().st_mtime_ns == before
    assert run("organs", "train", stores, "-o", out, "--organ", "middle") == 1
    assert run("organs", "reconstruct", tmp_path, abdomen, "-o", tmp_path / "none") == 1


def test_organs_of_chosen_cases(abdomen, tmp_path):
    words, only = ("--organ", "left=2", "--organ", "right=5"), tmp_path / "names.txt"
    only.write_text("case1\ncase2\n")
    stores, quick = tmp_path / "stores", ("--steps", 1, "--warps", 0, "--only", only, "--method", "conv")
    assert run("organs", "prepare", abdomen, "-o", stores, *words, "--resolution", 32) == 0
    for source, out in ((stores, tmp_path / "of-stores"), (abdomen, tmp_path / "of-maps")):
        given = () if source is stores else words
        assert run("organs", "train", source, "-o", out, *quick, *given) == 0
        left, right = (TrainedAtlas.load(out / f"{name}.atlas").config for name in ("left", "right"))
        assert (left.names, right.names) == (("case1", "case2"), ("case1",))
        assert run("organs", "train", source, "-o", out, *quick, *given, "--resume") == 0
        assert left.model.method == "conv" and left.prepared.resolution == (32 if source is stores else 128)
    only.write_text("case1\ncase9\n")
    assert run("organs", "train", stores, "-o", tmp_path / "none", *quick) == 1
    assert not (tmp_path / "none").exists()
