"""The command line from a folder of masks to scores, with bad cases beside good ones."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from commands import run

from implicit_atlas import __version__
from implicit_atlas.cli.cases import chosen
from implicit_atlas.errors import InputError
from implicit_atlas.io import find_cases
from implicit_atlas.phantoms import PhantomConfig, write_phantoms
from implicit_atlas.shapes.store import open_store

CASES = 5


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    write_phantoms(folder, "curved-tube", CASES, config=PhantomConfig(voxels=28))
    return folder


@pytest.fixture(scope="module")
def atlas(masks, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("atlas")
    assert run("prepare", masks, "-o", folder / "shapes", "--resolution", 32) == 0
    model = folder / "organ.atlas"
    assert run("train", folder / "shapes", "-o", model, "--steps", 6, "--warps", 2) == 0
    return model


def test_check_names_the_bad_case_and_describes_the_others(masks, tmp_path, capsys):
    for path in masks.glob("*.nii.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    assert run("check", tmp_path, "--json", tmp_path / "check.json") == 1
    printed = capsys.readouterr()
    assert printed.err.count("broken") == 1 and f"1 of {CASES + 1}" in printed.err
    assert "broken" not in printed.out  # named once
    assert "Traceback" not in printed.err
    assert len(json.loads((tmp_path / "check.json").read_text())["cases"]) == CASES


def test_a_store_is_brought_up_to_date_and_reports_what_changed(masks, tmp_path, capsys):
    for path in sorted(masks.glob("*.nii.gz"))[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    store = tmp_path / "shapes"
    assert run("prepare", tmp_path, "-o", store, "--resolution", 16) == 0
    assert run("prepare", tmp_path, "-o", store, "--resolution", 16) == 0
    assert "0 prepared, 3 unchanged" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_store_of_other_labels_than_are_asked_for_is_refused_of_a_list_of_cases_too(
    command, masks, atlas, tmp_path, capsys
):
    store, listed = tmp_path / "shapes", tmp_path / "cases.txt"
    assert run("prepare", masks, "-o", store, "--resolution", 32, "--label", 1) == 0
    listed.write_text(next(iter(masks.glob("*.nii.gz"))).name)
    words = {"train": (store, "-o", tmp_path / "x.atlas", "--steps", 1), "evaluate": (atlas, store)}[command]
    assert run(command, *words, "--only", listed, "--label", 2) == 1
    assert re.search(r"labels \(1,\), not resolution 32, .* labels \(2,\)", capsys.readouterr().err)


def test_a_margin_is_prepared_and_an_impossible_one_refused(masks, tmp_path, capsys):
    one = next(iter(masks.glob("*.nii.gz")))
    assert run("prepare", one, "-o", tmp_path / "s", "--resolution", 16, "--margin", 0.25) == 0
    (shape,) = open_store(tmp_path / "s")
    assert shape.frame.margin == 0.25
    empty = ~shape.occupancy[[0, 1, -1]]  # a quarter of the box is 2.7 of the 16 nodes
    assert empty.all()
    assert run("prepare", one, "-o", tmp_path / "t", "--margin", 7) == 1
    assert "margin: 7.0 is out of range" in capsys.readouterr().err


@pytest.mark.slow
def test_reconstructed_masks_lie_on_the_original_grids(masks, atlas, tmp_path):
    assert run("reconstruct", atlas, masks, "-o", tmp_path, "--iterations", 20) == 0
    for path in masks.glob("*.nii.gz"):
        before, after = nibabel.load(path), nibabel.load(tmp_path / path.name)
        assert before.shape == after.shape
        np.testing.assert_allclose(before.affine, after.affine)
        mesh = tmp_path / "meshes" / path.name.replace(".nii.gz", ".ply")
        assert mesh.stat().st_size > 1000
    assert run("check", tmp_path) == 0  # what was written is a folder of masks again
    rows = (tmp_path / "reconstructions.csv").read_text().splitlines()
    assert "volume_ml,dsc,degrees_of_freedom" in rows[0]
    assert len(rows) == CASES + 1


@pytest.mark.slow
def test_evaluation_writes_protocol_mean_and_cases(masks, atlas, tmp_path, capsys):
    target, copies = tmp_path / "r.json", tmp_path / "copies"
    copies.mkdir()
    for index, path in enumerate(find_cases(masks).paths):
        shutil.copy(path, copies / f"copy-{index}.nii.gz")
    assert run("evaluate", atlas, copies, "--json", target, "--iterations", 20) == 0
    result = json.loads(target.read_text())
    assert {"protocol", "mean", "cases"} <= set(result)
    assert {"dsc", "nsd", "hd95_mm", "assd_mm", "seconds"} <= set(result["mean"])
    assert len(result["cases"]) == CASES
    for name in ("dsc", "nsd"):
        assert result["mean"][name] == pytest.approx(np.mean([case[name] for case in result["cases"]]))
        assert 0 <= result["mean"][name] <= 100
    assert result["protocol"]["degrees_of_freedom"] == 256
    said = capsys.readouterr().out
    assert "DeepMind" in said and f"{CASES} of {CASES} cases are training shapes" in said


@pytest.mark.slow
def test_known_shapes_templates_and_info(masks, atlas, tmp_path, capsys):
    assert run("evaluate", atlas, atlas.parent / "shapes", "--known", "--json", tmp_path / "k.json") == 0
    assert json.loads((tmp_path / "k.json").read_text())["protocol"]["known"] is True
    assert run("templates", atlas, "-o", tmp_path / "t") == 0
    content = json.loads((tmp_path / "t" / "templates.json").read_text())
    assert sum(map(len, content["users"].values())) == CASES
    assert np.diag(np.array(content["pairwise_dsc"])) == pytest.approx(100)
    assert run("info", atlas) == 0
    assert "implicit-atlas+reg" in capsys.readouterr().out


def test_a_training_of_too_few_steps_says_so(atlas, tmp_path, capsys):
    words = ("train", atlas.parent / "shapes", "-o", tmp_path / "x.atlas", "--steps", 2, "--warps", 0)
    assert run(*words) == 0
    assert "2 steps are too few to be of use. Give more --steps." in capsys.readouterr().out


@pytest.mark.slow
def test_a_bad_case_does_not_stop_the_others(masks, atlas, tmp_path, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    good = sorted(masks.glob("*.nii.gz"))[0]
    (bad / good.name).write_bytes(good.read_bytes())
    (bad / "cut.nii.gz").write_bytes(good.read_bytes()[:200])
    assert run("reconstruct", atlas, bad, "-o", tmp_path / "out", "--iterations", 20) == 1
    assert (tmp_path / "out" / good.name).exists()
    assert "cut" in capsys.readouterr().err


def test_cases_are_chosen_by_a_text_file_or_by_a_list_in_a_json_file(masks, tmp_path):
    names = [path.name for path in sorted(masks.glob("*.nii.gz"))]
    (tmp_path / "few.txt").write_text(f"{names[0]}\n\ncurved-tube-001\n")
    (tmp_path / "splits.json").write_text(json.dumps({"few": names[:2], "count": 2}))
    files = list(find_cases(masks).files)
    assert chosen(files, None) == files
    for only in ("few.txt", "splits.json:few"):
        assert chosen(files, str(tmp_path / only)) == files[:2]
    with pytest.raises(InputError, match=r"has no list 'none'\. Choose one of its lists: few, count"):
        chosen(files, str(tmp_path / "splits.json:none"))
    for only in ("splits.json:count", "nothing.json:few", "nothing.txt"):
        with pytest.raises(InputError, match="cannot be read"):
            chosen(files, str(tmp_path / only))
    (tmp_path / "part.txt").write_text(f"{names[0]}\nelsewhere\n")
    with pytest.raises(InputError, match="not there: elsewhere"):
        chosen(files, str(tmp_path / "part.txt"))
    assert chosen(files, str(tmp_path / "part.txt"), all_there=False) == files[:1]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("check", "no-such-folder"), "no-such-folder"),
        (("info", "no-such.atlas"), "no-such.atlas"),
        (("train", "MASKS", "-o", "x.atlas", "--method", "magic"), "magic"),
        (("train", "MASKS", "-o", "x.atlas", "--max-minutes", "-1"), "max-minutes"),
        (("train", "MASKS", "-o", "x.atlas", "--label", "9"), "9"),
        (("prepare", "MASKS", "-o", "s", "--resolution", "1"), "resolution"),
    ],
)
def test_errors_are_one_line_that_names_the_cause(words, named, masks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*(masks if word == "MASKS" else word for word in words)) != 0
    printed = capsys.readouterr().err
    assert named in printed and "Traceback" not in printed


@pytest.mark.slow
def test_sigterm_stops_a_training_in_the_background(masks, tmp_path):
    # A script starts what it puts into the background with SIGINT ignored.
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "from implicit_atlas.cli.app import main; main()"
    )
    words = ["train", str(masks), "-o", str(tmp_path / "x.atlas"), "--warps", "0", "--steps", "100000"]
    with subprocess.Popen(
        [sys.executable, "-c", start, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        log = tmp_path / "x.run" / "log.jsonl"
        until = time.monotonic() + 240
        while not log.exists() and time.monotonic() < until:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]
    assert log.exists()
    assert process.returncode == 130 and "stopped" in errors and "Traceback" not in errors


def test_the_version_is_told_either_way(capsys):
    assert run("--version") == 0 and run("version") == 0
    assert capsys.readouterr().out.split() == [__version__] * 2
