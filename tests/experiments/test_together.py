"""Many cells in processes of their own: a failure costs its cell alone, and a time limit the rest."""

from __future__ import annotations

import json

import pytest
from experiments.cells.cell import Cell
from experiments.together import read_cells, run_together

from implicit_atlas import InputError
from implicit_atlas.phantoms import PhantomConfig, write_phantoms


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of organs, of which one has masks."""
    folder = tmp_path_factory.mktemp("data") / "hippocampus"
    write_phantoms(folder / "masks", "curved-tube", 7, config=PhantomConfig(voxels=24))
    names = sorted(path.name for path in (folder / "masks").glob("*.nii.gz"))
    (folder / "splits.json").write_text(json.dumps({"train": names[:6], "val": names[6:]}), encoding="utf-8")
    return folder.parent


@pytest.mark.slow
def test_a_cell_that_fails_costs_no_other(data, tmp_path, capsys):
    cells = [
        Cell("nearest", "liver", "few_shot"),
        Cell("nearest", "hippocampus", "few_shot"),
        Cell("pca-64", "hippocampus", "train"),
    ]
    found = run_together(cells, data, 2, None, tmp_path / "results", tmp_path / "runs")
    assert [found[str(i)].split(":")[0] for i in range(3)] == ["failed", "done", "done"]
    assert "does not exist" in found["0"]
    assert len(list((tmp_path / "results").glob("*.json"))) == 2
    assert len(capsys.readouterr().out.splitlines()) >= 3


def test_a_time_limit_leaves_the_rest_to_another_time(data, tmp_path):
    cells = [Cell("nearest", "hippocampus", "few_shot")]
    assert run_together(cells, data, 1, 0.0, tmp_path / "results", tmp_path / "runs") == {}
    assert not (tmp_path / "results").exists()


def test_cells_are_read_from_a_file(tmp_path):
    path = tmp_path / "cells.json"
    path.write_text('[{"method": "conv", "organ": "liver", "subset": "train", "steps": 7}]', encoding="utf-8")
    assert read_cells(path) == [Cell("conv", "liver", "train", steps=7)]
    for wrong in ("{", "[3]", '[{"method": "conv", "no": 1}]'):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(InputError, match=r"is no list of cells"):
            read_cells(path)
