"""The commands that use an atlas: generation, interpolation, correspondence, transfer."""

from __future__ import annotations

import shutil

import nibabel
import numpy as np
import pytest
from commands import paths, run, surface_points, table

from implicit_atlas.io import (
    Landmarks,
    case_name,
    read_grid,
    read_landmarks,
    read_mask,
    read_mesh,
    write_landmarks,
    write_mask,
)
from implicit_atlas.io.surface_files import read_ply
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shipped import shipped_models
from implicit_atlas.tasks import results

CASES = 3


def test_what_an_earlier_call_left_does_not_mix_with_the_new(model, masks, tmp_path):
    first, last = paths(masks)[:2]
    out = tmp_path / "steps"
    for steps in (4, 2):
        assert run("interpolate", model, first, last, "-o", out, "--steps", steps) == 0
    assert [row["name"] for row in table(out / "shapes.csv")] == ["step-000", "step-001"]
    assert len(list(out.glob("step-*.nii.gz"))) == len(list((out / "meshes").iterdir())) == 2
    out = tmp_path / "new"
    for count in (3, 1):
        assert run("generate", model, "-o", out, "--count", count) == 0
    assert [row["name"] for row in table(out / "shapes.csv")] == ["generated-0000"]
    assert len(list(out.glob("generated-*.nii.gz"))) == len(list((out / "meshes").iterdir())) == 1
    mask = read_mask(first)
    clicks = tmp_path / "clicks.csv"
    write_landmarks(clicks, Landmarks(surface_points(mask, 60), ("",) * 60, None, clicks))
    drawn = [tmp_path / "done" / name for name in ("probability/clicks.nii.gz", "meshes/clicks.vtp")]
    assert run("complete", model, clicks, "-o", tmp_path / "done", "--draws", 1) == 0
    assert all(path.exists() for path in drawn)
    assert run("complete", model, clicks, "-o", tmp_path / "done") == 0
    assert not any(path.exists() for path in drawn)


def test_shapes_that_were_made_before_a_stop_have_their_rows_and_no_others(model, tmp_path, monkeypatch):
    assert run("generate", model, "-o", tmp_path, "--count", 3) == 0

    made = results.write_made

    def stopping(fit, name, *rest):
        if name == "generated-0001":
            raise KeyboardInterrupt
        return made(fit, name, *rest)

    monkeypatch.setattr(results, "write_made", stopping)
    assert run("generate", model, "-o", tmp_path, "--count", 3) != 0
    assert [row["name"] for row in table(tmp_path / "shapes.csv")] == ["generated-0000"]
    assert len(list(tmp_path.glob("generated-*.nii.gz"))) == 1


def test_shapes_are_generated_and_interpolated(model, masks, tmp_path):
    assert run("generate", model, "-o", tmp_path / "new", "--count", 2, "--temperature", 0.5) == 0
    assert len(table(tmp_path / "new" / "shapes.csv")) == 2
    for index in range(2):
        mesh = read_mesh(tmp_path / "new" / "meshes" / f"generated-{index:04d}.ply")
        mask = read_mask(tmp_path / "new" / f"generated-{index:04d}.nii.gz")
        middle = np.argwhere(mask.occupancy).mean(0) @ mask.grid.affine[:3, :3].T + mask.grid.affine[:3, 3]
        assert np.abs(middle - mesh.vertices.mean(0)).max() < 8
    first, last = paths(masks)[:2]
    assert run("interpolate", model, first, last, "-o", tmp_path / "line", "--steps", 3) == 0
    assert len(table(tmp_path / "line" / "shapes.csv")) == 3
    assert (tmp_path / "line" / "steps.png").stat().st_size > 1000
    ends = [tmp_path / "line" / f"step-{index:03d}.nii.gz" for index in range(2)]
    odd = tmp_path / "$\\bad{x$.nii.gz"
    shutil.copy(first, odd)
    assert run("interpolate", model, *ends, "-o", tmp_path / "line", "--mask-format", "nrrd") == 1
    assert all(path.exists() for path in ends)
    assert run("interpolate", model, odd, last, "-o", tmp_path / "odd", "--steps", 2) == 0


def test_meshes_of_one_topology(model, masks, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("correspond", model, masks, "-o", out, "--resolution", 24, "--no-local") == 0
    # As they are in the files: `read_mesh` would merge vertices that lie at one place.
    meshes = [read_ply(path) for path in sorted((out / "meshes").glob("*.ply"))]
    assert len(meshes) == CASES and len({len(mesh.vertices) for mesh in meshes}) == 1
    assert all(np.array_equal(mesh.faces, meshes[0].faces) for mesh in meshes)
    assert all(float(row["left_mm_p95"]) < 5 for row in table(out / "correspondence.csv"))
    template = read_ply(out / "template.ply")
    assert np.array_equal(template.faces, meshes[0].faces)
    assert np.ptp(template.vertices, axis=0) == pytest.approx(np.ptp(meshes[0].vertices, axis=0), rel=0.4)
    one = paths(masks)[0]
    assert run("correspond", model, one, "-o", out, "--resolution", 20, "--no-local") != 0
    assert "another topology" in capsys.readouterr().err
    assert np.array_equal(read_ply(out / "template.ply").faces, template.faces)
    assert len(read_ply(out / "meshes" / f"{case_name(one)}.ply").vertices) == len(template.vertices)
    assert run("correspond", model, one, "-o", out, "--resolution", 24, "--no-local") == 0


def test_landmarks_are_carried(model, masks, tmp_path, capsys):
    first, second = paths(masks)[:2]
    mask = read_mask(first)
    marks = tmp_path / "marks.fcsv"
    points = surface_points(mask, 5)
    write_landmarks(marks, Landmarks(points, tuple("abcde"), None, marks))
    out = tmp_path / "out"
    assert run("transfer", "landmarks", model, first, marks, first, second, "-o", out, "--no-local") == 0
    same = read_landmarks(out / f"{first.name.removesuffix('.nii.gz')}.mrk.json")
    assert same.labels == tuple("abcde") and np.abs(same.points_mm - points).max() < 1
    there = read_landmarks(out / f"{second.name.removesuffix('.nii.gz')}.mrk.json")
    assert np.isfinite(there.points_mm).all() and len(table(out / "landmarks.csv")) == 10
    astray = np.concatenate([points[:4], points[4:] + 500])
    write_landmarks(marks, Landmarks(astray, tuple("abcde"), None, marks))
    assert run("transfer", "landmarks", model, first, marks, second, "-o", out, "--no-local") == 0
    assert f"DOUBTFUL {second.name.removesuffix('.nii.gz')}, e: " in capsys.readouterr().err
    assert read_landmarks(there.path).labels == (*"abcd", "e (doubtful)")
    write_landmarks(marks, Landmarks(points + 500, tuple("abcde"), None, marks))
    assert run("transfer", "landmarks", model, first, marks, second, "-o", out, "--no-local") == 1
    assert "LPS or RAS" in capsys.readouterr().err


def test_parts_are_carried(model, masks, tmp_path):
    known = tmp_path / "known"
    known.mkdir()
    for path in paths(masks)[:1]:
        mask = read_mask(path)
        parts = mask.occupancy * np.where(np.arange(mask.grid.shape[2]) < mask.grid.shape[2] // 2, 1, 2)
        nibabel.save(nibabel.Nifti1Image(parts.astype(np.uint8), mask.grid.affine), known / path.name)
    target = paths(masks)[1]
    assert run("transfer", "labels", model, known, target, "-o", tmp_path / "out", "--no-local") == 0
    (found,) = paths(tmp_path / "out")
    values = np.asarray(nibabel.load(found).dataobj)
    assert read_grid(found).same_as(read_grid(target))
    assert np.array_equal(values > 0, read_mask(target).occupancy) and set(np.unique(values)) == {0, 1, 2}


def test_labelled_cases_that_lack_parts_are_named(model, masks, tmp_path, capsys):
    """A case with one part is a mask without parts, or half of the organ."""
    known = tmp_path / "known"
    known.mkdir()
    whole, *_, target = paths(masks)
    (known / whole.name).write_bytes(whole.read_bytes())
    command = ("transfer", "labels", model, known, target, "-o", tmp_path / "out", "--no-local")
    assert run(*command) == 0
    assert "it has one part alone (1)" in capsys.readouterr().out
    mask = read_mask(paths(masks)[1])
    parts = mask.occupancy * np.where(np.arange(mask.grid.shape[2]) < mask.grid.shape[2] // 2, 1, 2)
    nibabel.save(nibabel.Nifti1Image(parts.astype(np.uint8), mask.grid.affine), known / mask.path.name)
    assert run(*command) == 0
    assert f"{whole.name.removesuffix('.nii.gz')}: it has no part 2" in capsys.readouterr().out


def test_models_that_ship_are_listed_and_names_are_checked(masks, tmp_path, capsys):
    assert run("models") == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in shipped_models()) and "training shapes" in listed
    assert run("info", "no-such-organ") == 1
    assert "a model that ships" in capsys.readouterr().err
    # The two arguments swapped: the masks are no model, and where the model belongs is said.
    assert run("clean", masks, "hippocampus", "-o", tmp_path / "out") == 1
    assert "it comes first" in capsys.readouterr().err


def test_what_a_model_learned_from_and_its_licence_are_said(capsys):
    assert run("info", "liver") == 0
    said = capsys.readouterr().out
    assert "CC-BY-SA 4.0" in said and "Intended use" in said and "| method" not in said


def test_a_folder_stands_for_the_clicks_and_masks_in_it(model, masks, tmp_path, capsys):
    folder = tmp_path / "cases"
    folder.mkdir()
    mask = read_mask(paths(masks)[0])
    write_landmarks(folder / "a.csv", Landmarks(surface_points(mask, 100), ("",) * 100, None, folder))
    drawn = mask.occupancy & (np.arange(mask.grid.shape[2]) % 6 == 0)
    write_mask(folder / "b.nii.gz", drawn, mask.grid)
    (folder / "notes.txt").write_text("not a case")
    assert run("complete", model, folder, "-o", tmp_path / "out") == 0
    assert [row["name"] for row in table(tmp_path / "out" / "completions.csv")] == ["a", "b"]
    (tmp_path / "none").mkdir()
    assert run("complete", model, tmp_path / "none", "-o", tmp_path / "out") == 1
    assert "none" in capsys.readouterr().err


def test_masks_that_their_volume_cuts_off_are_doubtful(model, masks, tmp_path, capsys):
    mask = read_mask(paths(masks)[0])
    folder = tmp_path / "cut"
    folder.mkdir()
    planes = np.flatnonzero(mask.occupancy.any(axis=(1, 2)))
    half = mask.occupancy[: int(planes.mean())]
    write_mask(folder / "half.nii.gz", half, Grid(half.shape, mask.grid.affine))
    side = mask.grid.side(0, last=True)
    for command in ("reconstruct", "clean"):
        run(command, model, folder, "-o", tmp_path / command)
        said = capsys.readouterr()
        assert f"ends flat at its volume's border ({side})" in said.out + said.err


def test_masks_of_another_size_are_doubtful(model, masks, tmp_path, capsys):
    """Lengths in micrometres; a sound mask is written without a word."""
    mask = read_mask(paths(masks)[0])
    folder = tmp_path / "odd"
    folder.mkdir()
    affine = mask.grid.affine.copy()
    affine[:3, :3] *= 1000
    write_mask(folder / "huge.nii.gz", mask.occupancy, Grid(mask.grid.shape, affine))
    write_mask(folder / "sound.nii.gz", mask.occupancy, mask.grid)
    for command, name in (
        ("reconstruct", "reconstructions.csv"),
        ("clean", "repairs.csv"),
        ("correspond", "correspondence.csv"),
    ):
        out = tmp_path / command
        assert run(command, model, folder, "-o", out) == 0
        doubts = {row["name"]: row["doubt"] for row in table(out / name)}
        assert "are its voxels in millimetres?" in doubts["huge"] and not doubts["sound"]
        assert "DOUBTFUL huge: its box of" in capsys.readouterr().out
