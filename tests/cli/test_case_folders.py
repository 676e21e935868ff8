"""Files of one name in case folders: patterns find them, and their folders tell them apart."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from atlas_samples import dsc
from commands import paths, run, surface_points, table

from implicit_atlas import load
from implicit_atlas.io import Landmarks, read_mask, write_landmarks
from implicit_atlas.tasks.observations import observation_files, read_observations

QUICK = ("--iterations", 3)


@pytest.fixture
def case_folders(masks, tmp_path):
    """A folder for each case, in which all masks have one name."""
    for index, path in enumerate(paths(masks)[:2]):
        folder = tmp_path / f"s{index}" / "organs"
        folder.mkdir(parents=True)
        shutil.copy(path, folder / "liver.nii.gz")
    return tmp_path


def clicks(mask_file: Path, path: Path) -> Path:
    points = surface_points(read_mask(mask_file), 30)
    path.parent.mkdir(exist_ok=True)
    write_landmarks(path, Landmarks(points, ("",) * len(points), None, path))
    return path


@pytest.mark.parametrize("command", ["reconstruct", "clean", "convert", "correspond"])
def test_masks_are_named_by_their_folders(model, case_folders, command):
    out, pattern = case_folders / "out", case_folders / "*" / "organs" / "liver.nii.gz"
    given = {"convert": [pattern, "--to", "ply"], "reconstruct": [model, pattern, *QUICK]}
    assert run(command, *given.get(command, [model, pattern]), "-o", out) == 0
    written = {path.name.split(".")[0] for path in out.rglob("*liver*")}
    assert written == {"s0_liver", "s1_liver"}
    if command == "clean":
        for name in ("s0", "s1"):
            source, result = case_folders / name / "organs" / "liver.nii.gz", out / f"{name}_liver.nii.gz"
            before, after = read_mask(source), read_mask(result)
            assert after.grid.same_as(before.grid) and dsc(before.occupancy, after.occupancy) > 0.8


@pytest.mark.parametrize("command", ["reconstruct", "clean", "convert", "complete"])
def test_no_result_replaces_the_file_of_another_case(model, case_folders, command, capsys):
    """The result of x/liver would be x/old/liver.nii.gz, where old_liver lies."""
    old = case_folders / "s0" / "organs" / "old"
    old.mkdir()
    shutil.copy(case_folders / "s1" / "organs" / "liver.nii.gz", old / "liver.nii.gz")
    before, pattern = (old / "liver.nii.gz").read_bytes(), case_folders / "s0" / "**" / "liver.nii.gz"
    words = ["--to", "nii.gz"] if command == "convert" else []
    assert run(command, *([] if command == "convert" else [model]), pattern, "-o", old, *words) == 1
    assert (old / "liver.nii.gz").read_bytes() == before and "would replace it" in capsys.readouterr().err


def test_results_do_not_go_into_a_folder_that_a_pattern_matches(model, case_folders, capsys):
    for command in ("reconstruct", "complete"):
        folder = case_folders / "s0" / "organs"
        assert run(command, model, case_folders / "*" / "organs", "-o", folder) == 1
        assert "taken for cases the next time" in capsys.readouterr().err
    assert run("check", case_folders / "*" / "organs", "--json", folder / "liver.nii.gz") == 1
    assert "would replace it" in capsys.readouterr().err


def test_a_store_of_case_folders_is_brought_up_to_date(case_folders, capsys):
    for said in ("2 prepared, 0 unchanged", "0 prepared, 2 unchanged"):
        assert run("prepare", case_folders / "*" / "organs", "-o", case_folders / "store") == 0
        assert said in capsys.readouterr().out


def test_one_of_several_case_folders_is_scored_by_its_name(model, case_folders, capsys):
    only, scores = case_folders / "names.txt", case_folders / "scores.json"
    pattern = case_folders / "*" / "organs"
    for name in ("s1_liver", "s1/organs/liver.nii.gz"):
        only.write_text(f"{name}\n")
        assert run("evaluate", model, pattern, "--only", only, "--json", scores, *QUICK) == 0
        assert [case["name"] for case in json.loads(scores.read_text())["cases"]] == ["s1_liver"]
    only.write_text("s9/organs/liver.nii.gz\n")
    assert run("evaluate", model, pattern, "--only", only, *QUICK) == 1
    assert "Name them as `check` does, as s0_liver" in capsys.readouterr().err


def test_labels_that_case_folders_declare_are_known_by_name(case_folders, capsys):
    (case_folders / "dataset.json").write_text('{"labels": {"0": "background", "1": "liver"}}')
    pattern, store = case_folders / "*" / "organs", case_folders / "store"
    assert run("prepare", pattern, "-o", store, "--label", "liver") == 0
    assert "2 prepared" in capsys.readouterr().out
    assert run("organs", "prepare", pattern, "-o", case_folders / "stores") == 0
    assert (case_folders / "stores" / "liver").is_dir()


def test_an_atlas_of_case_folders_knows_their_names(case_folders, capsys):
    only = case_folders / "names.txt"
    only.write_text("s0_liver\ns1_liver\n")
    given = (case_folders / "*" / "organs", "-o", case_folders / "a.atlas", "--only", only)
    other_side = case_folders / "right.txt"
    other_side.write_text("s1/organs/liver.nii.gz\ns1_livre\n")
    assert run("train", *given, "--steps", 1, "--warps", 0, "--mirror", other_side) == 0
    assert "right.txt: names cases that are not there: s1_livre" in capsys.readouterr().out
    other_side.write_text("s1/organs/liver.nii.gz\n", encoding="utf-8-sig")
    assert run("train", *given, "--steps", 1, "--warps", 0, "--mirror", other_side, "--overwrite") == 0
    said = capsys.readouterr().out
    assert "1 of 2 shapes are mirrored" in said and "not there" not in said
    assert run("evaluate", case_folders / "a.atlas", case_folders / "s*" / "organs", "--known") == 0
    assert "s0_liver" in capsys.readouterr().out


def test_each_model_has_a_run_of_its_own(case_folders, capsys):
    given = ("train", case_folders / "*" / "organs", "--steps", 1, "--warps", 0, "-o")
    for name in ("a.v1", "a.v2", "a.atlas"):
        assert run(*given, case_folders / name) == 0
    assert all((case_folders / f"{name}.run").is_dir() for name in ("a.v1", "a.v2", "a"))
    for name in ("a.run", "."):
        assert run(*given, case_folders / name if name != "." else name) == 1
        assert "cannot be the name of a model" in capsys.readouterr().err


def test_names_that_are_no_text_are_learned_and_read_again(case_folders):
    organ = next((case_folders / "s0" / "organs").iterdir())
    folder = case_folders / "odd"
    folder.mkdir()
    for name in (b"M\xfcller.nii.gz", b"other.nii.gz"):
        shutil.copy(organ, os.fsencode(folder) + b"/" + name)
    assert run("train", folder, "-o", case_folders / "odd.atlas", "--steps", 1, "--warps", 0) == 0
    assert load(case_folders / "odd.atlas").config.names == ("M\udcfcller", "other")


def test_completions_are_named_by_their_folders(model, masks, case_folders):
    for index, path in enumerate(paths(masks)[:2]):
        clicks(path, case_folders / f"s{index}" / "marks.mrk.json")
    out = case_folders / "out"
    (case_folders / "s2").mkdir()  # not clicked yet
    (case_folders / "s0" / "notes.txt").touch()
    assert run("complete", model, case_folders / "s*" / "[mn]*", "-o", out) == 0
    assert [row["name"] for row in table(out / "completions.csv")] == ["s0_marks", "s1_marks"]
    assert [path.name for path in paths(out)] == ["s0_marks.nii.gz", "s1_marks.nii.gz"]
    assert run("complete", model, case_folders / "s2*", "-o", out) == 1


def test_observations_of_one_name(masks, tmp_path):
    first, _ = (clicks(paths(masks)[k], tmp_path / str(k) / "clicks.csv") for k in (0, 1))
    third, same = (clicks(paths(masks)[2], tmp_path / name) for name in ("other.fcsv", "other.csv"))
    problems = []
    found = observation_files([first, third, same, tmp_path / "*" / "clicks.csv"])
    known = read_observations(found, "slices", 1.0, (), problems)
    assert [told.source.name for told in known] == ["0_clicks", "1_clicks"]
    assert [problem.path for problem in problems] == [third, same]
