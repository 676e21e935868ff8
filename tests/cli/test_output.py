"""Tables of results and lists of what could not be used: kept from call to call, and beside other calls."""

from __future__ import annotations

import errno
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import typer
from commands import run, table

from implicit_atlas.cli.output import add_to_csv, finish
from implicit_atlas.io import Problem, write_mask
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.support import files


def test_a_table_keeps_what_was_said_of_other_cases(tmp_path):
    path = tmp_path / "completions.csv"
    add_to_csv(path, [{"name": "=a", "volume_ml": 1.0}, {"name": "b", "volume_ml": 2.0}])
    add_to_csv(path, [{"name": "=a", "volume_ml": 1.0}])
    add_to_csv(path, [{"name": "b", "volume_ml": 3.0}, {"name": "c", "volume_ml": 4.0}])
    assert [(row["name"], row["volume_ml"]) for row in table(path)] == [
        ("'=a", "1.0"),
        ("b", "3.0"),
        ("c", "4.0"),
    ]
    add_to_csv(path, [{"name": "d", "doubt": "no"}])  # of another version, or of other label ids
    assert [row["name"] for row in table(path)] == ["'=a", "b", "c", "d"]
    assert table(path)[3] == {"name": "d", "volume_ml": "", "doubt": "no"}
    add_to_csv(path, [{"name": "e", "doubt": ""}], gone="b")
    assert [row["name"] for row in table(path)] == ["'=a", "c", "d", "e"]
    path.write_bytes(b"\xff\xfe no table")
    add_to_csv(path, [{"name": "d", "doubt": ""}])
    assert table(path) == [{"name": "d", "doubt": ""}]
    assert path.with_name("completions.csv.before").read_bytes() == b"\xff\xfe no table"


def test_names_that_the_output_has_no_letters_for_are_written_all_the_same(tmp_path, monkeypatch):
    grid = Grid((9, 9, 9), np.eye(4))
    write_mask(tmp_path / "肝臓.nii.gz", np.pad(np.ones((5, 5, 5), bool), 2), grid)
    said = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", said)
    assert run("check", tmp_path) == 0
    said.flush()
    assert r"\u809d\u81d3" in said.buffer.getvalue().decode("cp1252")


def test_a_mask_has_a_row_in_the_table_of_the_command_that_wrote_it_last(tmp_path):
    add_to_csv(tmp_path / "reconstructions.csv", [{"name": name, "doubt": ""} for name in "ab"])
    add_to_csv(tmp_path / "completions.csv", [{"name": "a", "doubt": ""}])
    assert [row["name"] for row in table(tmp_path / "reconstructions.csv")] == ["b"]
    add_to_csv(tmp_path / "repairs.csv", [{"name": name, "doubt": ""} for name in "ab"])
    assert not (tmp_path / "reconstructions.csv").exists() and not (tmp_path / "completions.csv").exists()
    add_to_csv(tmp_path / "labels.csv", [{"case": "b", "doubt": ""}], key="case")
    assert [row["name"] for row in table(tmp_path / "repairs.csv")] == ["a"]
    add_to_csv(tmp_path / "repairs.csv", [{"name": name, "doubt": ""} for name in "ab"])
    assert not (tmp_path / "labels.csv").exists()
    own = tmp_path / "completions.csv"
    own.write_text("name,volume\na,1\n")
    add_to_csv(tmp_path / "repairs.csv", [{"name": "a", "doubt": ""}])
    assert own.read_text() == "name,volume\na,1\n"
    add_to_csv(tmp_path / "shapes.csv", [{"name": "b", "doubt": ""}])
    assert [row["name"] for row in table(tmp_path / "repairs.csv")] == ["b", "a"]


def test_calls_beside_one_another_lose_no_rows(tmp_path):
    path = tmp_path / "reconstructions.csv"

    def add(worker: int) -> None:
        for index in range(10):
            add_to_csv(path, [{"name": f"{worker}-{index}", "doubt": ""}])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert len(table(path)) == 40


def test_a_disk_that_knows_no_locks_costs_no_rows(tmp_path, monkeypatch):
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_try_lock", refuse)
    add_to_csv(tmp_path / "repairs.csv", [{"name": "a", "doubt": ""}])
    assert len(table(tmp_path / "repairs.csv")) == 1


def test_a_list_of_the_users_own_is_put_aside(tmp_path):
    own = tmp_path / "not_used.csv"
    own.write_text("patient,why\n1,moved\n")
    finish([], 1, tmp_path, ["a"])
    assert not own.exists() and (tmp_path / "not_used.csv.before").read_text() == "patient,why\n1,moved\n"


def test_problems_are_named_and_old_results_of_them_are_mentioned(tmp_path, capsys):
    (tmp_path / "a.nii.gz").write_bytes(b"")
    problems = [
        Problem("a", Path("x/a.nii.gz"), "the fit failed: too far."),
        Problem("b", Path("b.nii.gz"), "b.nii.gz: no."),
    ]
    with pytest.raises(typer.Exit):
        finish(problems, 3, tmp_path)
    said = capsys.readouterr().err
    assert "not used: a: the fit failed" in said and "not used: b.nii.gz: no." in said
    reasons = [row["reason"] for row in table(tmp_path / "not_used.csv")]
    assert "earlier call" in reasons[0] and "earlier call" not in reasons[1]
