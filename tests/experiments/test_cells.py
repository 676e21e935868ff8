"""The paper's experiments: every cell of every table runs, is kept, goes on after a stop, and shows what is missing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from experiments.cells import cell as cells
from experiments.cells.cell import Cell, OutOfTime, run_cell, run_queue
from experiments.cells.command import chosen, smoke
from experiments.cells.completion import COUNTS, completion, observe
from experiments.cells.data import PAPER, load_split, phantom_split
from experiments.cells.tables import OWN, TABLE2, TABLE4, markdown, tables_of
from experiments.cells.variants import DEFAULTS, LEARNED_MODES, MORE_WARPS, VARIANTS
from experiments.figure6 import draw
from experiments.figure6 import markdown as figure6_table
from experiments.peers.classical import CLASSICAL, LIMIT_VOX, cosines, linear_model, nearest, pca
from experiments.peers.difnet import NetworkConfig
from experiments.peers.difnet_losses import DifNetWeights

from implicit_atlas import InputError
from implicit_atlas.geometry.distance import signed_distance
from implicit_atlas.metrics import dsc
from implicit_atlas.tasks.evaluate import evaluate_known

TINY = Cell("implicit-atlas+reg", "hippocampus", "few_shot", steps=3, iterations=5, smoke=True)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return phantom_split(tmp_path_factory.mktemp("phantoms"))


@pytest.fixture
def one_known_shape_is_scored(monkeypatch):
    """Scores of what learned two steps take long: its surfaces are far from any true one."""

    def first_alone(atlas, shapes, report):
        return evaluate_known(atlas, shapes[:1], report=report)

    monkeypatch.setattr(cells, "evaluate_known", first_alone)


@pytest.mark.parametrize(
    ("only", "methods"),
    (
        ("conv", {"conv"}),
        (MORE_WARPS, {"conv", "implicit-atlas+reg"}),
        (f"conv:{MORE_WARPS}", {"conv"}),
    ),
)
def test_cells_are_chosen_by_method_and_by_variant(only, methods, split):
    cells = TABLE2.cells("hippocampus", (0, 1), 3, 5)
    found = chosen(cells, split, [only])
    assert {cell.method for cell in found} == methods
    assert {cell.variant for cell in found} == {DEFAULTS if only == "conv" else MORE_WARPS}
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)


@pytest.mark.slow
@pytest.mark.usefixtures("one_known_shape_is_scored")
@pytest.mark.parametrize("subset", ("few_shot", "train"))
def test_every_cell_of_the_tables_runs_and_stands_beside_the_paper(subset, tmp_path):
    tables = [table for table in (*tables_of("hippocampus"), OWN) if table.subset == subset]
    assert len(tables) >= 2
    for table in tables:  # in one folder: cells that tables share are run once
        text = smoke(table, tmp_path)
        assert "missing" not in text
        for row in table.rows:
            line = next(line for line in text.splitlines() if line.startswith(f"| `{row.title}` "))
            if row.paper is not None:
                for dsc_percent, nsd_percent in table.paper(row.paper, "hippocampus"):
                    assert f"{dsc_percent:.2f} / {nsd_percent:.2f}" in line


def test_an_organ_that_the_paper_has_not_has_one_table_without_its_numbers(tmp_path):
    assert tables_of("kidney") == (OWN,)
    assert all(OWN.paper(row.paper, "kidney") is None for row in OWN.rows)
    with pytest.raises(InputError, match="has no splits"):
        load_split("kidney", tmp_path)


def test_what_was_run_is_read_back_and_not_run_again(split, tmp_path, monkeypatch):
    first = run_cell(TINY, split, tmp_path, tmp_path / "runs")
    monkeypatch.setattr(cells, "train", lambda *given, **options: pytest.fail("was run again"))
    assert run_cell(TINY, split, tmp_path, tmp_path / "runs") == json.loads(json.dumps(first))
    assert len(first["known"]["cases"]) == 5 and len(first["unknown"]["cases"]) <= 2


def test_the_key_is_of_all_that_decides_the_result(split):
    keys = {
        dataclasses.replace(TINY, **change).key(split)
        for change in (
            {},
            {"seed": 1},
            {"steps": 4},
            {"iterations": 6},
            {"method": "conv"},
            {"subset": "train"},
        )
    }
    other = dataclasses.replace(split, unknown=split.unknown[:1])
    assert len(keys | {TINY.key(other)}) == 7
    assert TINY.key(split) == dataclasses.replace(TINY).key(split)


def test_every_idea_is_another_cell_and_those_of_the_fit_share_what_was_learned(split):
    cells_of = {name: dataclasses.replace(TINY, variant=name, smoke=False) for name in VARIANTS}
    assert len({cell.key(split) for cell in cells_of.values()}) == len(VARIANTS)
    learned = {name: cell.training_key(split) for name, cell in cells_of.items()}
    changed = {name for name, key in learned.items() if key != learned[DEFAULTS]}
    other = {name for name, variant in VARIANTS.items() if variant.model or variant.training}
    assert changed == other - {LEARNED_MODES}  # which few shapes have by default


def test_what_was_learned_is_kept_when_the_time_runs_out_in_the_fits(split, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cells, "evaluate", raise_out_of_time)
        assert run_queue([TINY], split, None, tmp_path, tmp_path / "runs") == [None]
    monkeypatch.setattr(cells, "train", lambda *given, **options: pytest.fail("was learned again"))
    monkeypatch.setattr(cells, "evaluate_known", lambda *given, **options: pytest.fail("was scored again"))
    (found,) = run_queue([TINY], split, None, tmp_path, tmp_path / "runs")
    assert found is not None and found["known"]["mean"]["dsc"] > 0


def raise_out_of_time(*given, **options):
    raise OutOfTime


def test_the_key_is_of_all_that_decides_a_foreign_method_s_result(split, monkeypatch):
    cell = dataclasses.replace(TINY, method="dif-net")
    changes = ({}, {"seed": 1}, {"steps": 4}, {"iterations": 6}, {"smoke": False})
    keys = {dataclasses.replace(cell, **change).key(split) for change in changes}
    weights = DifNetWeights(code=1e5)
    other = dataclasses.replace(cell.difnet_config(), weights=weights, network=NetworkConfig(24))
    monkeypatch.setattr(Cell, "difnet_config", lambda cell: other)
    key = cell.key(split)
    assert len(keys | {key}) == 6
    elsewhere = dataclasses.replace(other, device="cuda", checkpoint_minutes=9.0)
    monkeypatch.setattr(Cell, "difnet_config", lambda cell: elsewhere)
    assert cell.key(split) == key


def test_a_foreign_method_says_what_is_free_and_how_it_learned(split, tmp_path):
    cell = dataclasses.replace(TINY, method="dif-net")
    found = run_cell(cell, split, tmp_path, tmp_path / "runs")
    for side, iterations in (("known", 0), ("unknown", 5)):
        about = found[side]["protocol"]
        assert (about["degrees_of_freedom"], about["iterations"], about["seed"]) == (16, iterations, 0)
    assert set(found["completion"]) == {str(count) for count in COUNTS}
    assert cell.difnet_config().network.code_size == 16
    assert dataclasses.replace(cell, smoke=False).difnet_config().network.code_size == 256
    line = next(line for line in markdown(TABLE4, "hippocampus", [found]).splitlines() if "dif-net" in line)
    assert line.split("|")[10].strip() == "128"


def test_out_of_time_a_queue_leaves_cells_out_and_later_goes_on(split, tmp_path):
    queue = [TINY, dataclasses.replace(TINY, method="conv")]
    assert run_queue(queue, split, 0.0, tmp_path, tmp_path / "runs") == [None, None]
    assert not list(tmp_path.glob("*.json"))
    assert None not in run_queue(queue, split, None, tmp_path, tmp_path / "runs")
    assert None not in run_queue(queue, split, 0.0, tmp_path, tmp_path / "runs")


def test_a_method_that_was_not_run_shows_as_missing():
    text = markdown(TABLE2, "hippocampus", [])
    methods = [row for row in TABLE2.rows if row.variant == DEFAULTS]
    assert text.count("missing") == 2 * len(methods)
    # Changes of the defaults that are not the paper's are shown where they were run, and what is left out is said.
    assert len(methods) < len(TABLE2.rows) and "left out" in text and "one-mean" not in text
    assert "93.99 / 77.47" in text and PAPER["table2"]["conv"][0] == [98.47, 98.19]


def test_enough_components_give_a_shape_back(split):
    shapes = split.known
    every = pca(shapes, 100)
    assert every.degrees_of_freedom == len(shapes) - 1
    for shape in shapes:
        assert dsc(every.rebuild(shape.occupancy) > 0, shape.occupancy) > 0.995
        np.testing.assert_array_equal(nearest(shapes).rebuild(shape.occupancy) > 0, shape.occupancy)
    one = split.unknown[0].occupancy
    scores = [dsc(cosines(count).rebuild(one) > 0, one) for count in (30, 300, 128**3)]
    assert scores == sorted(scores) and scores[2] == 1.0


def test_classical_rows_say_what_is_free(split, tmp_path):
    found = {name: run_cell(dataclasses.replace(TINY, method=name), split, tmp_path) for name in CLASSICAL}
    free = {name: result["unknown"]["protocol"]["degrees_of_freedom"] for name, result in found.items()}
    assert free == {"pca-64": 4, "pca-128": 4, "dct-256": 256, "dct-1000": 1000, "nearest": 0}
    assert found["nearest"]["known"]["mean"]["dsc"] == 100


def test_points_near_the_boundary_complete_a_shape_better_the_more_there_are(split):
    model = linear_model(split.known, 100)
    shapes = split.known[:2]
    found = completion(shapes, lambda seen: [model.complete(one) > 0 for one in seen])
    means = [found[str(count)]["mean"]["dsc"] for count in COUNTS]
    assert means[-1] > 97 and means[-1] >= means[0] - 0.5
    nothing = completion(shapes, lambda seen: [None for _ in seen])
    assert nothing["64"]["mean"] == {"dsc": 0.0, "nsd": 0.0}


def test_observed_points_lie_near_the_boundary_with_its_labels(split):
    shape = split.known[0]
    seen = observe(shape, 256)
    resolution = shape.frame.resolution
    voxel = np.clip(((seen.points + 1) * resolution / 2).astype(int), 0, resolution - 1)
    np.testing.assert_array_equal(seen.occupancy > 0, shape.occupancy[tuple(voxel.T)])
    assert np.median(np.abs(signed_distance(shape.occupancy, LIMIT_VOX)[tuple(voxel.T)])) < 3


def test_the_figure_draws_what_was_run(split, tmp_path):
    result = run_cell(dataclasses.replace(TINY, method="pca-64", subset="train"), split, tmp_path)
    draw("hippocampus", [result], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert "pca-64 (5)" in figure6_table("hippocampus", [result])
    learned = [{**result, "cell": {**result["cell"], "method": "conv", "steps": steps}} for steps in (1, 2)]
    table = figure6_table("hippocampus", learned)  # trainings of other lengths are no seeds of one
    assert "conv, 1 steps (5)" in table and "conv, 2 steps (5)" in table


def test_a_folder_without_splits_is_divided_as_the_paper_says(split, tmp_path, monkeypatch):
    monkeypatch.setitem(PAPER["table1"]["liver"], "known", 5)
    monkeypatch.setitem(PAPER["table1"]["liver"], "unknown", 1)
    names = [shape.name for shape in (*split.known, *split.unknown)]
    monkeypatch.setattr(
        "experiments.cells.data.load_shapes", lambda folder: [*split.known, *split.unknown][:6]
    )
    found = load_split("liver", tmp_path)
    assert [shape.name for shape in found.known] == names[:5] and len(found.unknown) == 1
    monkeypatch.setitem(PAPER["table1"]["liver"], "known", 6)
    with pytest.raises(InputError, match="holds 6 cases"):
        load_split("liver", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_split("liver", tmp_path / "nothing")
