"""The demonstration from masks to the last file, at a small size."""

from __future__ import annotations

import dataclasses
import json

import pytest

from implicit_atlas import demo
from implicit_atlas.errors import InputError


@pytest.mark.slow
def test_demo_writes_all_that_it_announces(tmp_path, monkeypatch, capsys):
    default = demo.default_config
    monkeypatch.setattr(demo, "PHANTOMS", 6)
    monkeypatch.setattr(
        demo, "default_config", lambda *given: dataclasses.replace(default(*given), warps=2, batch=2)
    )
    demo.run(None, tmp_path / "out", minutes=0.05)
    out = tmp_path / "out"
    results = json.loads((out / "evaluation.json").read_text())
    assert results["known"]["protocol"]["known"] and not results["unknown"]["protocol"]["known"]
    accounted = results["unknown"]["cases"] + results["unknown"]["problems"]
    assert len(accounted) == 1
    assert (out / "demo.atlas" / "weights.safetensors").exists()
    assert len(list((out / "templates").glob("*.nii.gz"))) == 5
    assert (out / "training.png").stat().st_size > 5000
    assert (out / "clicks.mrk.json").exists() and (out / "report.html").stat().st_size > 1e6
    printed = capsys.readouterr().out
    assert "degrees of freedom" in printed and "known" in printed and "clicks on its surface" in printed


def test_too_few_masks_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least four"):
        demo._split([])
