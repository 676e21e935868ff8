"""Tests of implicit_atlas.shapes.preparation: many masks at once, and what no check foresaw."""

from __future__ import annotations

from shape_masks import assert_same_shapes

from implicit_atlas.shapes import preparation
from implicit_atlas.shapes.manifest import PrepareConfig
from implicit_atlas.shapes.preparation import prepare_cases

CONFIG = PrepareConfig(16)


def test_unforeseen_errors_cost_one_case(masks, monkeypatch):
    def fail(path):
        if path.name.startswith("case_3"):
            raise MemoryError
        if path.name.startswith("case_5"):
            raise ZeroDivisionError("by what")
        return read_labels(path)

    read_labels = preparation.read_labels
    monkeypatch.setattr(preparation, "read_labels", fail)
    done = prepare_cases(masks, CONFIG)
    assert [problem.name for problem in done.problems] == ["case_3", "case_5"]
    assert "memory" in done.problems[0].message and "ZeroDivisionError" in done.problems[1].message
    assert len(done.shapes) == 6


def test_two_processes_prepare_what_one_does(masks, tmp_path, monkeypatch):
    alone = prepare_cases(masks, CONFIG, workers=1)
    monkeypatch.setattr(preparation, "START_SECONDS", 0.0)
    (masks / "bad.nii.gz").write_bytes(b"bad")
    together = prepare_cases(masks, CONFIG, workers=2)
    assert_same_shapes(together.shapes, alone.shapes)
    assert [problem.name for problem in together.problems] == ["bad"]
