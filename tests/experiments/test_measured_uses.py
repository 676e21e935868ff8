"""What is measured and drawn of the uses runs on a few phantoms, and its results become tables."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from atlas_samples import FIT, tiny_atlas
from experiments import (
    both_sides,
    completed_sides,
    known_truth,
    populations,
    repairs,
    several,
    sides,
    spaces,
    uses,
    uses_page,
)
from experiments.cells import measurement
from experiments.cells.data import Split

from implicit_atlas.correspondence.through_template import reference_template
from implicit_atlas.io import find_cases, read_mask
from implicit_atlas.phantoms import PhantomConfig, make_phantom, write_phantoms
from implicit_atlas.shapes.shape import prepare
from implicit_atlas.trained_atlas import TrainedAtlas

ABOUT = {
    "organ": "phantom",
    "training_shapes": 6,
    "steps": 1,
    "seed": 0,
    "degrees_of_freedom": 16,
    "device": "cpu",
    "seconds": 1.0,
    "permutations": 10,
    "tolerance_mm": 1.0,
    "problems": 0,
}


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    write_phantoms(folder, "two-lobe", 5, config=PhantomConfig(voxels=24))
    return [read_mask(path) for path in find_cases(folder).paths]


def test_tasks_that_are_measured_again_stand_beside_others(masks, tmp_path, monkeypatch):
    """What is said of the first run stays as long as one of its tasks does."""
    monkeypatch.setattr(measurement, "RESULTS", tmp_path)
    monkeypatch.setattr(measurement, "unseen", lambda folder, every: masks)
    monkeypatch.setattr(measurement.implicit_atlas, "load", lambda path: tiny_atlas())
    monkeypatch.setattr(measurement, "about_run", lambda atlas, organ, masks: {"cases": len(masks)})

    def run(number: int, *tasks: str) -> dict:
        monkeypatch.setattr("sys.argv", ["measure", "MODEL", *(("--tasks", *tasks) if tasks else ())])
        measurement.run_measurement(
            "",
            "some",
            "found",
            lambda atlas, masks, report, tasks: dict.fromkeys(tasks, number),
            lambda atlas: {"degrees_of_freedom": number},
            ("a", "b", "c"),
        )
        return json.loads((tmp_path / "some-hippocampus.json").read_text())

    def runs(result: dict) -> list:
        about = result["about"]
        again = [(one["measured"], one["degrees_of_freedom"]) for one in about.get("again", [])]
        return [about["degrees_of_freedom"], *again]

    assert runs(run(1)) == [1]
    assert runs(run(2, "a")) == [1, (["a"], 2)]
    result = run(3, "a", "b")
    assert runs(result) == [1, (["a", "b"], 3)] and result["found"] == {"a": 3, "b": 3, "c": 1}
    assert runs(run(4, "c")) == [4, (["a", "b"], 3)]
    assert runs(run(5)) == [5]


def test_statistics_of_phantoms(masks, tmp_path, monkeypatch):
    monkeypatch.setattr(populations, "RESOLUTION", 16)
    monkeypatch.setattr(populations, "HERE", tmp_path / "experiments")
    (tmp_path / "docs").mkdir()
    found = populations.measure(tiny_atlas(), masks, lambda line: None)
    assert len(found["meshes"]) == 5 and len(found["curves"]) == 4  # the mean, and 5 - 2 modes
    assert found["curves"][0]["compactness"] == 0 and set(found["groups"]) == {
        "larger and smaller half",
        "random halves",
    }
    (picture,) = (tmp_path / "docs" / "uses").glob("statistics-*.png")
    assert picture.stat().st_size > 5000
    (tmp_path / "populations-phantom.json").write_text(json.dumps({"about": ABOUT, "populations": found}))
    section = uses_page.section("populations", tmp_path)
    assert "**Phantom.**" in section and "| random halves | 2 and 3 |" in section


def test_halves_are_the_smaller_and_the_larger():
    rng = np.random.default_rng(0)
    shapes = [rng.normal(size=(30, 3)) * 0.1 + np.eye(3)[np.arange(30) % 3] * (5 + i) for i in range(12)]
    found = populations.halves(populations.align(np.stack(shapes)), np.arange(12.0))
    assert found["larger and smaller half"]["vertices that differ, percent"] > 80
    assert found["random halves"]["sizes"] == (6, 6)


def test_colours_of_motions():
    colours = populations.red_and_blue(np.array([-1.0, 0.0, 2.0]))
    assert colours[0, 2] > colours[0, 0] and colours[2, 0] > colours[2, 2] and np.ptp(colours[1]) < 0.05


def test_several_organs_are_scored_part_by_part(masks, tmp_path):
    one = tiny_atlas()
    config = dataclasses.replace(one.config, labels=(1,))
    atlas = TrainedAtlas(config, one.network, one.codes, one.encoder, one.prior, one.provenance)
    problems: list = []
    rows = several.measure({"organ": atlas}, [mask.path for mask in masks[:2]], problems)
    assert not problems and [row["name"] for row in rows] == ["two-lobe-000", "two-lobe-001"]
    assert all(row["contested"] == 0 and row["organ"][0] > 70 for row in rows)
    (tmp_path / "organs-phantom.json").write_text(json.dumps({"about": ABOUT, "organs": rows}))
    assert "| organ | " in uses_page.section("organs", tmp_path)


def test_pictures_of_uses(masks, tmp_path, monkeypatch):
    monkeypatch.setattr(uses, "RESOLUTION", 32)
    uses.repairs(tiny_atlas(), masks[0], tmp_path / "repair.png", uses.KINDS)
    uses.generation(tiny_atlas(), masks[:2], tmp_path / "generation.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("repair", "generation"))
    assert set(uses.KINDS).union(*uses.CHANGES.values()) <= set(repairs.KINDS)


def test_organs_of_the_other_side(masks, tmp_path, monkeypatch):
    monkeypatch.setattr(sides, "HERE", tmp_path / "experiments")
    (tmp_path / "docs" / "uses").mkdir(parents=True)
    rows = sides.measure(tiny_atlas(), masks[:2], lambda line: None)
    images = [sides.image_of(mask) for mask in masks[:2]]
    assert all(a.grid.same_as(sides.image_of(b).grid) for a, b in zip(masks[:2], images, strict=True))
    assert [row["image found"] for row in rows] == [False, False]  # two lobes have no side
    assert rows[0]["as it is"] == rows[0]["mirrored"]
    (picture,) = (tmp_path / "docs" / "uses").glob("sides-*.png")
    assert picture.stat().st_size > 5000
    rows[1]["as it is"] = None
    about = ABOUT | {"every": 1}
    (tmp_path / "sides-phantom.json").write_text(json.dumps({"about": about, "sides": rows}))
    section = uses_page.section("sides", tmp_path)
    assert "2 unseen cases: 0 of them" in section and "| as it is | " in section and "| 1 |" in section


def test_one_atlas_of_both_sides(masks, tmp_path, monkeypatch):
    shapes = [
        prepare(mask, 32, name=f"case_{i}_{side}")
        for i, (mask, side) in enumerate(zip(masks, "LRLRL", strict=True))
    ]
    asked = []

    def made(path, given, steps):
        asked.append([shape.frame.mirrored for shape in given])
        return tiny_atlas()

    monkeypatch.setattr(both_sides, "load_split", lambda organ, data: Split(tuple(shapes), tuple(shapes[:2])))
    monkeypatch.setattr(both_sides, "model_of", made)
    found = both_sides.measure(tmp_path, tmp_path, 3)
    assert asked == [[False] * 5, [False, True, False, True, False]]
    assert {row["cases"] + row["failed"] for row in found.values()} == {2}
    about = {"organ": "phantom", "steps": 3}
    (tmp_path / "both-sides-phantom.json").write_text(json.dumps({"about": about, "both_sides": found}))
    assert "| the right ones mirrored | 2 | " in uses_page.section("both_sides", tmp_path)


def test_places_are_carried_exactly_to_the_same_organ(tmp_path, monkeypatch):
    """Of an organ and itself the box leaves nothing, and the template little: where it folds, places are not unique."""
    organ = make_phantom("two-lobe", 5, PhantomConfig(voxels=24))
    shape = tiny_atlas().config.prepared.shape_of(organ.mask)
    fits = tiny_atlas().fit([shape, shape], FIT, template=reference_template(tiny_atlas()))
    found = known_truth.carried(tiny_atlas(), fits, [organ, organ])
    assert found["surface, box"]["mean_mm"] == found["landmarks, box"]["mean_mm"] == 0
    assert found["equation left"]["mean_mm"] < 0.05 and found["surface, template"]["mean_mm"] < 0.5
    modes = known_truth.modes_of(tiny_atlas(), fits, [organ, organ])
    assert modes["exact"]["rms_mm"] == modes["ours"]["rms_mm"] == 0


def test_measuring_what_is_known_goes_on_where_it_stopped(tmp_path, monkeypatch):
    organs = [make_phantom("two-lobe", seed, PhantomConfig(voxels=24)) for seed in (5, 6)]
    kept = tmp_path / "parts.json"
    kept.write_text(
        json.dumps({"seconds": 9.0, "shapes": {"modes": 1}, "volumes": {"made": 2}, "repairs": {}})
    )

    def stopped(*_):
        raise InterruptedError

    rows = {"clicks": {"64": [{"ours": [90.0, 95.0]}]}}
    monkeypatch.setattr(known_truth.applications, "run_completion", lambda *_: rows)
    monkeypatch.setattr(known_truth.applications, "means", lambda cases: cases[0])
    monkeypatch.setattr(known_truth.calibration, "measure", stopped)
    args = (tiny_atlas(), [organ.mask for organ in organs], "two-lobe", organs, kept)
    with pytest.raises(InterruptedError):
        known_truth.measure(*args)
    monkeypatch.setattr(known_truth.applications, "run_completion", stopped)
    assert "calibration" not in known_truth.measure(*args, wanted=["completion", "repairs"])
    monkeypatch.setattr(known_truth.calibration, "measure", lambda *_: {})
    found = known_truth.measure(*args)
    assert found["completion"] == {"clicks": {"64": {"ours": [90.0, 95.0]}}} and found["calibration"] == {}
    assert found["shapes"] == {"modes": 1} and found["seconds"] >= 9


def test_clicks_of_both_spaces_become_a_table(monkeypatch):
    organs = [make_phantom("two-lobe", seed, PhantomConfig(voxels=24)) for seed in (5, 6)]
    asked = []

    def complete(_, told):
        asked.append(told)
        fit = SimpleNamespace(name="a", found=SimpleNamespace(unguided=4.0 * len(asked)))
        return [SimpleNamespace(fit=fit, doubt=spaces.TURNED if len(asked) == 2 else None)] * 2

    monkeypatch.setattr(spaces, "complete", complete)
    monkeypatch.setattr(spaces, "COUNTS", (16,))
    found = spaces.measure(tiny_atlas(), [organ.mask for organ in organs], lambda text: None)
    assert np.array_equal(asked[1][0].points, asked[0][0].points * (-1, -1, 1))
    lines = spaces.lines_of({"about": {**ABOUT, "cases": 2, "every": 1, "margin": 0.05}, "spaces": found})
    assert "| 16 clicks, right space | 0.25 to 0.25 | 0 of 2 |" in lines
    assert "| 16 clicks, wrong space | 0.50 to 0.50 | 2 of 2 |" in lines


def test_completions_of_both_sides_become_a_table(monkeypatch):
    organs = [make_phantom("two-lobe", seed, PhantomConfig(voxels=24)) for seed in (5, 6)]
    asked = []

    def complete(_, told, mirror="no"):
        asked.append(told)
        other = told[0].points[:, 0].mean() * asked[0][0].points[:, 0].mean() < 0
        fit = SimpleNamespace(failure=None)

        def mask_on(grid):
            masks = [organ.mask for organ in organs] if mirror == "auto" else []
            return next(
                (m.occupancy for m in masks if m.grid.shape == grid.shape), np.zeros(grid.shape, bool)
            )

        return [
            SimpleNamespace(
                fit=fit,
                doubt=completed_sides.OTHER_SIDE if other else None,
                seen=SimpleNamespace(mirrored=mirror == "auto"),
                mask_on=mask_on,
            )
            for _ in told
        ]

    monkeypatch.setattr(completed_sides, "complete", complete)
    found = completed_sides.measure(tiny_atlas(), [organs[0].mask], lambda text: None)
    own, image = asked[0][0].points, asked[1][0].points
    np.testing.assert_allclose(image.mean(0), own.mean(0) * (-1, 1, 1), atol=6)  # of other random clicks
    about = {**ABOUT, "cases": 1, "every": 1, "margin": 0.05}
    lines = completed_sides.lines_of(
        {"about": about, "completed_sides": {"three slices": found["three slices"]}}
    )
    assert len(found) == len(completed_sides.TASKS)
    assert "| three slices | 0 of 1 | 1 of 1 | 0.00 | 1 of 1 mirrored | 100.00 |" in lines


def test_what_is_known_is_drawn(tmp_path):
    organs = [make_phantom("two-lobe", seed, PhantomConfig(voxels=24)) for seed in (5, 6)]
    known_truth.picture(tiny_atlas(), organs, tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_what_is_known_becomes_a_page():
    errors = {"mean_mm": 1.25, "p95_mm": 2.5}
    ways = ("template", "displacement", "box")
    names = (*(f"{what}, {way}" for what in ("surface", "landmarks") for way in ways), "equation left")
    found = {
        "shapes": {
            "correspondence": dict.fromkeys(names, errors),
            "modes": {way: {"rms_mm": 2.0, "shares": [0.0, 0.5, 0.75]} for way in ("exact", "ours")},
        },
        "volumes": {"made": [3.0, 0.5], "new": [3.1, 0.6]},
        "completion": {"clicks": {"64": {"ours": [90.0, 95.0]}}},
        "repairs": {"label-2": {"repaired": [91.0, 96.0, 0.3, 50.0]}},
        "calibration": {"64 clicks": {"covered seen": 88.0}},
    }
    about = {**ABOUT, "cases": 2, "seconds": 1.0}
    lines = known_truth.lines_of({"about": about, "known_truth": found})
    del found["calibration"]
    fewer = known_truth.lines_of({"about": about, "known_truth": found})
    assert fewer[:-1] == lines[: len(fewer) - 1] and fewer[-1].endswith("not measured.")
    del found["repairs"]
    assert "Repairs" in known_truth.lines_of({"about": about, "known_truth": found})[-1]
    assert (
        "| surface | 1.25 (2.50) | 1.25 (2.50) | 1.25 (2.50) |" in lines and "| 64 | 90.00 / 95.00 |" in lines
    )
    assert "| the exact surfaces | 2.00 | 50.0, 75.0 |" in lines and "| label-2 | 91.00 / 96.00 |" in lines
