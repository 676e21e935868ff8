"""Commands lose nothing: sources are not written over, cases of one name are told apart, tables keep earlier rows."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run

from implicit_atlas.cli.output import add_to_csv
from implicit_atlas.geometry.surface import occupancy_mesh
from implicit_atlas.io import Landmarks, Mesh, read_mask, write_landmarks, write_mesh

QUICK = ("--iterations", 3)


@pytest.fixture
def copies(masks, tmp_path) -> Path:
    return Path(shutil.copytree(masks, tmp_path / "copies"))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.nii.gz"))


def names(path: Path, column: str = "name") -> list[str]:
    return [row[column] for row in csv.DictReader(path.open(encoding="utf-8"))]


def clicks(mask_file: Path, path: Path) -> Path:
    mask = read_mask(mask_file)
    vertices = occupancy_mesh(mask.occupancy, mask.grid).vertices
    points = np.random.default_rng(0).permutation(vertices)[:30]
    path.parent.mkdir(exist_ok=True)
    write_landmarks(path, Landmarks(points, ("",) * len(points), None, path))
    return path


@pytest.mark.parametrize(
    "command", ["reconstruct", "clean", "complete", "transfer landmarks", "transfer labels"]
)
def test_no_result_replaces_its_own_source(model, copies, capsys, command):
    before = {path: path.read_bytes() for path in files(copies)}
    marks = clicks(files(copies)[0], copies / "marks.csv")
    sources = {
        "complete": [files(copies)[0]],
        "transfer landmarks": [files(copies)[0], marks, copies],
        "transfer labels": [copies, copies],
    }
    given = sources.get(command, [copies])
    assert run(*command.split(), model, *given, "-o", copies) == 1
    assert "would replace it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files(copies)} == before


def test_clicks_may_lie_where_results_go_and_marks_are_not_replaced(model, masks, tmp_path, capsys):
    points = clicks(files(masks)[0], tmp_path / "points.csv")
    assert run("complete", model, points, "-o", tmp_path) == 0
    assert (tmp_path / "points.nii.gz").exists() and points.exists()
    marks = clicks(files(masks)[0], tmp_path / f"{files(masks)[1].name.removesuffix('.nii.gz')}.mrk.json")
    before = marks.read_bytes()
    assert run("transfer", "landmarks", model, files(masks)[0], marks, files(masks)[1], "-o", tmp_path) == 1
    assert marks.read_bytes() == before and "would replace it" in capsys.readouterr().err


def test_masks_of_one_name_are_set_aside(model, masks, tmp_path, capsys):
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    for index, name in enumerate(("case.nii.gz", "case.nii", "other.nii.gz")):
        content = files(masks)[index].read_bytes()
        (mine / name).write_bytes(gzip.decompress(content) if name.endswith(".nii") else content)
    assert run("reconstruct", model, mine, "-o", out, *QUICK) == 1
    assert [path.name for path in files(out)] == ["other.nii.gz"]
    said = capsys.readouterr().err
    assert said.count("has the same case name") == 2 and "2 of 3 cases" in said


def test_a_second_call_keeps_the_table_of_the_first(model, masks, tmp_path):
    one, two, three = files(masks)
    for part in ((one, two), (two, three)):
        assert run("reconstruct", model, *part, "-o", tmp_path, *QUICK) == 0
    assert len(names(tmp_path / "reconstructions.csv")) == 3


@pytest.mark.skipif(os.name == "nt", reason="file systems of Windows know Unicode alone")
def test_a_name_that_is_not_unicode_does_not_cost_the_table(model, masks, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    shutil.copy(files(masks)[0], os.fsencode(folder) + b"/caf\xe9.nii.gz")
    shutil.copy(files(masks)[1], folder / "plain.nii.gz")
    out = tmp_path / "out"
    assert run("reconstruct", model, folder, "-o", out, *QUICK) == 0
    assert names(out / "reconstructions.csv") == ["caf\\udce9", "plain"]
    assert run("evaluate", model, folder, *QUICK, "--json", tmp_path / "new" / "scores.json") == 0
    cases = json.loads((tmp_path / "new" / "scores.json").read_text(encoding="utf-8"))["cases"]
    assert {case["name"] for case in cases} == {"caf\udce9", "plain"}


def test_names_with_dots_can_be_listed(model, masks, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for path, name in zip(files(masks), ("patient.001", "patient.002", "patient"), strict=True):
        shutil.copy(path, folder / f"{name}.nii.gz")
    only = tmp_path / "only.txt"
    only.write_text("patient.001\nsome/where/patient.002.nii.gz\n")
    scores = tmp_path / "scores.json"
    assert run("evaluate", model, folder, "--only", only, *QUICK, "--json", scores) == 0
    cases = json.loads(scores.read_text())["cases"]
    assert [case["name"] for case in cases] == ["patient.001", "patient.002"]


def test_check_counts_cases_of_one_name(copies, capsys):
    first = files(copies)[0]
    shutil.copy(first, first.with_name(first.name.removesuffix(".gz")))
    assert run("check", copies) == 1
    assert "2 of 4 cases could not be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate", "MODEL", "MASKS", "--known", "--local"), "Leave --local and --mirror out"),
        (("train", "MASKS", "-o", "OUT", "--max-minutes", "nan"), "nan is not a time"),
        (("train", "MASKS", "-o", "OUT", "--max-minutes", "inf"), "inf is not a time"),
        (("train", "MASKS", "-o", "OUT", "--warps", "-5"), "not a number of copies"),
        (("interpolate", "MODEL", "MASKS/none.nii.gz", "MASKS/none.nii.gz", "-o", "OUT"), "does not exist"),
    ],
)
def test_senseless_options_are_refused_in_one_sentence(model, masks, tmp_path, capsys, words, said):
    places = {"MODEL": str(model), "MASKS": str(masks), "OUT": str(tmp_path / "out.atlas")}
    typed = [word.replace("MODEL", places["MODEL"]).replace("MASKS", places["MASKS"]) for word in words]
    assert run(*[places.get(word, word) for word in typed]) == 1
    message = capsys.readouterr().err
    assert said in message and message.count("none.nii.gz") <= 1


def test_a_model_is_not_trained_anew_unasked(masks, tmp_path, capsys):
    model = tmp_path / "x.atlas"
    words = ("train", masks, "-o", model, "--steps", 2, "--warps", 0)
    assert run(*words) == 0
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    assert run(*words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    shutil.rmtree(model)
    assert run(*words) == 1  # its state is there still
    assert "--resume" in capsys.readouterr().err
    assert run(*words, "--resume") == 0 and run(*words, "--overwrite", "--seed", 1) == 0
    assert (model / "weights.safetensors").read_bytes() != before["weights.safetensors"]


def test_a_folder_of_other_files_is_refused_before_the_training(masks, tmp_path, capsys):
    other = tmp_path / "other.atlas"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    assert run("train", tmp_path / "no masks are read", "-o", other) == 1
    assert "other files and no model" in capsys.readouterr().err


def test_single_files_are_not_written_over_what_is_read(model, masks, tmp_path, capsys, copies):
    mask = files(copies)[0]
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"val": [mask.name]}))
    kept = {path: path.read_bytes() for path in (mask, lists)}
    for words in (
        ("check", copies, "--json", mask),
        ("evaluate", model, copies, "--json", mask),
        ("evaluate", model, copies, "--only", f"{lists}:val", "--json", lists),
        ("report", model, "-o", lists, "--scores", lists),
        ("dicom-seg", mask, copies, "-o", mask),
    ):
        assert run(*words) == 1
        assert "would replace it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in kept} == kept


def test_statistics_do_not_go_where_the_meshes_are(tmp_path, capsys):
    assert run("statistics", tmp_path, "-o", tmp_path) == 1
    assert "would be taken for cases" in capsys.readouterr().err
    assert run("statistics", tmp_path / "nowhere", "-o", tmp_path) == 1
    assert "nowhere" in capsys.readouterr().err


def test_results_are_mixed_with_nothing_that_is_read(model, copies, tmp_path, capsys):
    before = sorted(model.rglob("*")), sorted(copies.rglob("*"))
    for words in (
        ("templates", model, "-o", model),
        ("generate", model, "-o", model, "--count", 1),
        ("correspond", model, copies, "-o", copies),
    ):
        assert run(*words) == 1
    said = capsys.readouterr().err
    assert said.count("is a model or a store") == 2 and said.count("would replace it") == 1
    for path in files(copies):  # now no result has the name of a case's file
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert run("correspond", model, copies, "-o", copies) == 1
    assert "would be taken for cases" in capsys.readouterr().err
    assert sorted(model.rglob("*")) == before[0] and len(sorted(copies.rglob("*"))) == len(before[1])


def test_cases_that_could_not_be_used_are_listed_until_they_are_done(model, copies, tmp_path, capsys):
    first, out = files(copies)[0], tmp_path / "out"
    good = first.read_bytes()
    first.write_bytes(b"no mask")
    assert run("reconstruct", model, copies, "-o", out, *QUICK) == 1
    said, name = capsys.readouterr().err, first.name.removesuffix(".nii.gz")
    assert said.count(name) == 1  # once in its message
    (row,) = csv.DictReader((out / "not_used.csv").open(encoding="utf-8"))
    assert row["name"] == name and row["file"] == str(first) and row["reason"] in said
    assert run("reconstruct", model, files(copies)[1], "-o", out, *QUICK) == 0
    assert names(out / "not_used.csv") == [name]
    first.write_bytes(good)
    assert run("reconstruct", model, first, "-o", out, *QUICK) == 0
    assert not (out / "not_used.csv").exists() and len(names(out / "reconstructions.csv")) == 3


def test_other_options_are_refused_before_anything_is_prepared(masks, tmp_path, capsys, monkeypatch):
    model = tmp_path / "m.atlas"
    words = ("train", masks, "-o", model, "--steps", 2, "--warps", 0)
    assert run(*words) == 0
    shutil.rmtree(model)  # the training's state is there still
    monkeypatch.setattr("implicit_atlas.training.learning.gather", None)
    assert run(*words, "--seed", 1, "--resume") == 1
    assert "another configuration (seed: 0 then, 1 now)" in capsys.readouterr().err


def test_points_and_meshes_that_are_read_are_not_replaced(model, masks, tmp_path, capsys):
    first, second = files(masks)[:2]
    points = clicks(first, tmp_path / "landmarks.csv")
    folder = tmp_path / "d"
    (folder / "meshes").mkdir(parents=True)
    mask = read_mask(first)
    mesh = occupancy_mesh(mask.occupancy, mask.grid)
    write_mesh(folder / "meshes" / "one.ply", Mesh(mesh.vertices, mesh.faces))
    before = {path: path.read_bytes() for path in (points, folder / "meshes" / "one.ply")}
    for words in (
        ("transfer", "landmarks", model, first, points, second, "-o", tmp_path),
        ("correspond", model, folder / "meshes", "-o", folder),
        ("reconstruct", model, folder / "meshes" / "one.ply", "-o", folder, *QUICK),
    ):
        assert run(*words) == 1
        assert "would replace it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_rows_of_an_earlier_call_stay_as_they_are(tmp_path):
    table = tmp_path / "table.csv"
    add_to_csv(table, [{"name": "a", "x": -65.7, "note": "=1+1"}])
    add_to_csv(table, [{"name": "b", "x": -1.0, "part_3": 7}])
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert rows[0] == {"name": "a", "x": "-65.7", "note": "'=1+1", "part_3": ""}
    assert rows[1] == {"name": "b", "x": "-1.0", "note": "", "part_3": "7"}
    other = tmp_path / "other.csv"
    other.write_text("mine,too\n1,2\n")
    add_to_csv(other, [{"name": "a"}])
    assert (tmp_path / "other.csv.before").read_text() == "mine,too\n1,2\n" and names(other) == ["a"]


def test_points_that_were_corrected_are_no_longer_listed(model, masks, tmp_path):
    points = clicks(files(masks)[0], tmp_path / "in" / "clicks.csv")
    good = points.read_text()
    points.write_text("x,y,z\n1,2,3\n")
    out = tmp_path / "out"
    assert run("complete", model, points, "-o", out) == 1
    assert names(out / "not_used.csv") == ["clicks"]
    points.write_text(good)
    assert run("complete", model, points, points.parent, "-o", out) == 0  # named twice, it is one
    assert not (out / "not_used.csv").exists() and names(out / "completions.csv") == ["clicks"]


def test_a_damaged_case_does_not_cost_the_others(model, copies, tmp_path, capsys):
    damaged = files(copies)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    scores = tmp_path / "known.json"
    assert run("evaluate", model, copies, "--known", "--json", scores) == 1
    assert len(json.loads(scores.read_text())["cases"]) == 2
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(path.name for path in files(copies)))
    words = ("train", copies, "-o", tmp_path / "x.atlas", "--only", listed, "--steps", 2, "--warps", 0)
    capsys.readouterr()
    assert run(*words) == 1
    said = capsys.readouterr().err
    assert "truncated" in said and "not there" not in said and (tmp_path / "x.atlas").is_dir()


@pytest.mark.parametrize("command", ["generate", "statistics", "train"])
def test_a_seed_below_zero_is_refused(masks, model, tmp_path, capsys, command):
    source = {"generate": model, "statistics": masks, "train": masks}[command]
    assert run(command, source, "-o", tmp_path / "out", "--seed", -1) == 2
    assert "--seed" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_mask_that_failed_is_named(model, masks, tmp_path, capsys):
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(files(masks)[0].read_bytes()[:100])
    for words in (
        ("interpolate", model, files(masks)[0], damaged, "-o", tmp_path / "a"),
        ("transfer", "labels", model, damaged, files(masks)[0], "-o", tmp_path / "b"),
    ):
        assert run(*words) == 1
        assert "damaged.nii.gz" in capsys.readouterr().err
