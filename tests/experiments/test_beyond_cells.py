"""Experiments beyond the paper's tables: learning from noisy masks, and from fewer or more of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from experiments import amount, noise
from experiments.cells.cell import Cell, run_cell
from experiments.cells.command import smoke_results
from experiments.cells.corrupt import NOISES, corrupted
from experiments.cells.data import phantom_split
from experiments.cells.tables import TABLE2, TABLE4, Row, markdown
from experiments.figure6 import means
from experiments.peers.difnet_run import METHOD as DIF_NET
from experiments.report import _beyond

from implicit_atlas import InputError
from implicit_atlas.metrics import dsc

TINY = Cell("implicit-atlas+reg", "hippocampus", "few_shot", steps=3, iterations=5, smoke=True)
OURS, NEAREST = Row("implicit-atlas+reg"), Row("nearest")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return phantom_split(tmp_path_factory.mktemp("phantoms"), known=11, unknown=1)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    rows = (OURS, Row(DIF_NET), NEAREST)
    tables = [noise.table_of("few_shot", "label-3", rows), noise.table_of("few_shot", "slices-2", (NEAREST,))]
    return smoke_results(tables, tmp_path_factory.mktemp("noisy"))


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    tables = [amount.table_of(count, (NEAREST,)) for count in amount.COUNTS]
    tables.append(amount.table_of("10", (OURS,)))
    return smoke_results(tables, tmp_path_factory.mktemp("more"))


def test_cells_from_before_there_was_noise_keep_their_names(split):
    shapes = split.known[:5]
    assert TINY.learned_from(split) == shapes
    configuration = TINY.configuration(5)
    assert set(configuration) == {"method", "organ", "subset", "training", "model", "fit"}
    hashes = [shape.content_hash for shape in (*shapes, *split.unknown)]
    digest = hashlib.sha256(json.dumps([configuration, hashes], sort_keys=True).encode()).hexdigest()[:10]
    assert TINY.key(split) == f"hippocampus-few_shot-implicit-atlas+reg-seed0-{digest}"
    old = {key: value for key, value in dataclasses.asdict(TINY).items() if key not in ("noise", "variant")}
    assert Cell(**old).key(split) == TINY.key(split)


def test_noise_and_number_of_shapes_make_other_cells(split):
    changes = [{"noise": name} for name in NOISES] + [{"subset": "first-10"}, {"subset": "train"}, {}]
    cells = [dataclasses.replace(TINY, **change) for change in changes]
    assert len({cell.key(split) for cell in cells}) == len(cells)
    assert len({cell.training_key(split) for cell in cells}) == len(cells)
    assert not dataclasses.replace(TINY, subset="train", noise="label-1").completes
    assert "-label-1-seed0-" in dataclasses.replace(TINY, noise="label-1").key(split)


def test_subsets_lie_in_each_other_and_too_large_ones_are_refused(split):
    sizes = [len(split.training(subset)) for subset in ("few_shot", "first-10", "train")]
    assert sizes == [5, 10, 11] and not split.holds("first-20")
    assert split.training("few_shot") == split.training("first-10")[:5] == split.known[:5]
    with pytest.raises(InputError, match="needs 20 training shapes"):
        dataclasses.replace(TINY, subset="first-20").key(split)


def test_known_shapes_are_scored_against_clean_masks(split, tmp_path):
    cell = dataclasses.replace(TINY, method="nearest", noise="label-3")
    known = run_cell(cell, split, tmp_path)["known"]["cases"]
    for case, shape in zip(known, split.known[:5], strict=True):
        poor = corrupted(shape, "label-3")
        assert case["dsc"] == pytest.approx(100 * dsc(poor.occupancy, shape.occupancy))


@pytest.mark.slow
def test_methods_learn_from_noise_and_stand_in_no_table_of_the_paper(noisy):
    assert [r["cell"]["noise"] for r in noisy] == ["label-3"] * 3 + ["slices-2"]
    assert all(len(r["known"]["cases"]) == 5 for r in noisy)
    text = noise.markdown("hippocampus", noisy)
    assert text.count("### ") == 2 and "noisy labels" in text and "thick slices" in text
    row = next(line for line in text.splitlines() if line.startswith("| `implicit-atlas+reg` |"))
    assert row.count("missing") == 6
    assert noise.markdown("liver", noisy) == noise.markdown("hippocampus", []) == ""
    old = [{**r, "cell": {k: v for k, v in r["cell"].items() if k != "noise"}} for r in noisy]
    assert markdown(TABLE4, "hippocampus", noisy) == markdown(TABLE4, "hippocampus", [])
    assert markdown(TABLE4, "hippocampus", old) != markdown(TABLE4, "hippocampus", [])
    all_shapes = [{**r, "cell": {**r["cell"], "subset": "train"}} for r in noisy]
    assert means("hippocampus", all_shapes) == {}
    assert markdown(TABLE2, "hippocampus", all_shapes) == markdown(TABLE2, "hippocampus", [])


@pytest.mark.slow
def test_more_shapes_are_a_column_each_and_a_point_of_a_curve(more, tmp_path):
    curve = amount.curves("hippocampus", more)["nearest"]
    assert [count for count, _, _ in curve] == [5, 10, 11]
    scores = [percent for _, percent, _ in curve]
    assert scores == sorted(scores)  # the nearest of more shapes is no farther
    text = amount.markdown("hippocampus", more)
    assert "| method | 5 | 10 | all (11) |" in text and "2 steps, fits of 10 iterations" in text
    row = next(line for line in text.splitlines() if line.startswith("| `implicit-atlas+reg` |"))
    assert row.count("missing") == 2
    amount.draw("hippocampus", more, tmp_path / "amount.png")
    assert (tmp_path / "amount.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_page_tells_of_them_only_where_they_were_run(noisy, more):
    assert _beyond("hippocampus", []) == []
    shared = [r for r in more if r["cell"]["subset"] in ("few_shot", "train")]
    assert shared and _beyond("hippocampus", shared) == []  # those are of the paper's tables
    text = "\n".join(_beyond("hippocampus", [*noisy, *more]))
    assert "amount-hippocampus.png" in text and "noisy labels" in text
