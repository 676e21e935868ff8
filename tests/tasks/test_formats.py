"""The files of results: where each lies, and that every command writes the formats that were asked for."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from commands import paths, run, surface_points

from implicit_atlas.io import Landmarks, read_labels, read_mask, read_mesh, write_landmarks
from implicit_atlas.tasks.formats import Formats, MaskFormat, MeshFormat, results_in_any_format

EVERY = [Formats(*formats) for formats in product(get_args(MaskFormat), get_args(MeshFormat))]


@pytest.mark.parametrize("formats", EVERY, ids=str)
def test_every_result_has_a_place_of_its_own(formats):
    found = formats.results(Path("out"), "case")
    spread_is_mesh = formats.mesh == "vtp"
    assert len(set(found)) == len(found) - spread_is_mesh
    assert set(found) <= set(results_in_any_format(Path("out"), "case"))
    assert formats.mesh_path(Path("out"), "case").parent != formats.mask_path(Path("out"), "case").parent


@pytest.mark.parametrize("formats", [("nrrd", "stl"), ("mha", "obj")])
def test_a_format_changes_nothing_but_the_file(model, masks, tmp_path, formats):
    mask_format, mesh_format = formats
    asked = ("--mask-format", mask_format, "--mesh-format", mesh_format)
    cases = paths(masks)[:1]
    name = cases[0].name.removesuffix(".nii.gz")
    assert run("reconstruct", model, *cases, "-o", tmp_path / "plain") == 0
    assert run("reconstruct", model, *cases, "-o", tmp_path / "asked", *asked) == 0
    plain, found = (
        read_mask(tmp_path / folder / f"{name}.{ending}")
        for folder, ending in (("plain", "nii.gz"), ("asked", mask_format))
    )
    np.testing.assert_array_equal(plain.occupancy, found.occupancy)
    assert plain.grid.same_as(found.grid) and plain.dtype == found.dtype
    own, other = (
        read_mesh(tmp_path / folder / "meshes" / f"{name}.{ending}")
        for folder, ending in (("plain", "ply"), ("asked", mesh_format))
    )
    np.testing.assert_allclose(own.vertices.mean(0), other.vertices.mean(0), atol=1e-3)
    assert own.faces.shape == other.faces.shape
    written = {path.name for path in (tmp_path / "asked").iterdir() if not path.name.startswith(".")}
    assert written == {f"{name}.{mask_format}", "meshes", "reconstructions.csv"}


def test_a_completed_vtp_holds_the_spread_of_its_draws(model, masks, tmp_path):
    clicks = tmp_path / "clicks.mrk.json"
    points = surface_points(read_mask(paths(masks)[0]), 64)
    write_landmarks(clicks, Landmarks(points, ("",) * 64, None, clicks))
    asked = ("--mask-format", "nrrd", "--mesh-format", "vtp")
    out = tmp_path / "out"
    assert run("complete", model, clicks, "-o", out, "--draws", 1, *asked) == 0
    mask, mesh = read_mask(out / "clicks.nrrd"), out / "meshes" / "clicks.vtp"
    assert mask.occupancy.any() and (out / "probability" / "clicks.nrrd").exists()
    assert b"spread_mm" in mesh.read_bytes()
    assert run("complete", model, clicks, "-o", out, *asked) == 0
    assert b"spread_mm" not in mesh.read_bytes() and not (out / "probability" / "clicks.nrrd").exists()


def test_other_commands_write_them_too(model, masks, tmp_path):
    first, last = paths(masks)[:2]
    volumes, both = ("--mask-format", "nrrd"), ("--mask-format", "nrrd", "--mesh-format", "glb")
    calls = {
        "clean": ([first], volumes),
        "generate": (["--count", 1], both),
        "interpolate": ([first, last, "--steps", 2], both),
        "templates": ([], both),
    }
    for command, (words, asked) in calls.items():
        out = tmp_path / command
        assert run(command, model, *words, "-o", out, *asked) == 0
        assert read_labels(next(out.glob("*.nrrd"))).values.any() and not list(out.rglob("*.nii.gz"))
        assert asked == volumes or next((out / "meshes").glob("*.glb")).read_bytes()[:4] == b"glTF"
        assert not list(out.rglob("*.ply"))


def test_a_result_in_another_format_may_lie_beside_what_is_read(model, masks, tmp_path, capsys):
    source = tmp_path / "organ.nii.gz"
    source.write_bytes(paths(masks)[0].read_bytes())
    assert run("clean", model, source, "-o", tmp_path) == 1
    assert "would replace it" in capsys.readouterr().err
    assert run("clean", model, source, "-o", tmp_path, "--mask-format", "nrrd") == 0
    assert (tmp_path / "organ.nrrd").exists() and source.read_bytes() == paths(masks)[0].read_bytes()
