"""Masks, label maps and surfaces in other formats: at the same place, and nothing lost."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import trimesh
from commands import run

from implicit_atlas.io import (
    Mesh,
    read_grid,
    read_labels,
    read_mask,
    read_mesh,
    read_stored,
    write_label_map,
    write_mesh,
)
from implicit_atlas.io.voxel_grid import Grid

TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])


@pytest.fixture
def labels(tmp_path):
    """A label map of two parts on an oblique grid, stored from left to right."""
    x, y, z = np.indices((24, 22, 18)) - np.array([12, 11, 9]).reshape(3, 1, 1, 1)
    values = np.where((x / 9) ** 2 + (y / 8) ** 2 + (z / 6) ** 2 < 1, np.where(x < 0, 1, 2), 0).astype(
        np.uint8
    )
    affine = np.eye(4)
    affine[:3] = np.c_[TURN * (-1.5, 1.0, 2.0), (40, -30, 12)]
    write_label_map(tmp_path / "in" / "organ.nii.gz", values, Grid(values.shape, affine))
    return tmp_path / "in" / "organ.nii.gz"


def test_what_had_to_be_repaired_is_said(labels, tmp_path, caplog):
    found = read_labels(labels)
    image = nibabel.Nifti1Image(found.values, None)
    image.header.set_sform(None, 0)
    image.header.set_qform(None, 0)
    nibabel.save(image, tmp_path / "nowhere.nii.gz")
    assert run("convert", tmp_path / "nowhere.nii.gz", "-o", tmp_path / "out", "--to", "nrrd") == 0
    assert "nowhere.nii.gz: " in caplog.text
    before = len(caplog.records)
    read_grid(tmp_path / "nowhere.nii.gz")
    assert [one.getMessage() for one in caplog.records[before:]] == [
        one.getMessage() for one in caplog.records[:before]
    ]
    assert run("convert", labels, "-o", tmp_path / "out", "--to", "stl", "--label", "1,7") == 0
    assert "label 7 does not occur" in caplog.text


@pytest.mark.parametrize("to", ["nii", "nrrd", "mha"])
def test_label_maps_keep_their_labels_and_their_place(labels, tmp_path, to):
    assert run("convert", labels, "-o", tmp_path / "out", "--to", to) == 0
    before, after = read_labels(labels), read_labels(tmp_path / "out" / f"organ.{to}")
    assert np.array_equal(after.values, before.values) and after.grid.same_as(before.grid)


def test_one_label_becomes_a_mask(labels, tmp_path):
    assert run("convert", labels.parent, "-o", tmp_path / "out", "--to", "nrrd", "--label", 2) == 0
    found = read_labels(tmp_path / "out" / "organ.nrrd").values
    assert np.array_equal(found == 1, read_labels(labels).values == 2)


@pytest.mark.parametrize("to", ["nii.gz", "nrrd", "mha"])
def test_a_mask_becomes_its_signed_distance(tmp_path, to):
    """That of a ball of 9 mm, in voxels that are no cubes, is known."""
    grid = Grid((40, 30, 24), np.diag([0.7, 1.0, 1.2, 1.0]))
    places = np.indices(grid.shape).reshape(3, -1).T * (0.7, 1.0, 1.2)
    depth = (9 - np.linalg.norm(places - (14, 15, 14), axis=1)).reshape(grid.shape)
    write_label_map(tmp_path / "ball.nii.gz", (depth > 0).astype(np.uint8), grid)
    assert run("convert", tmp_path / "ball.nii.gz", "-o", tmp_path / "out", "--to", to, "--distance") == 0
    image = sitk.ReadImage(str(tmp_path / "out" / f"ball.{to}"))
    values = sitk.GetArrayFromImage(image).T
    np.testing.assert_allclose(image.GetSpacing(), (0.7, 1.0, 1.2), rtol=1e-6)
    assert values.dtype == np.float32 and np.array_equal(values > 0, depth > 0)
    error = np.abs(values - depth)
    assert error[np.abs(depth) < 2].mean() < 0.2 and error.mean() < 0.3 and error.max() < 0.65


def test_surfaces_have_no_distances(labels, tmp_path, capsys):
    assert run("convert", labels, "-o", tmp_path / "out", "--to", "stl", "--distance") == 1
    assert "--to nii.gz" in capsys.readouterr().err and not (tmp_path / "out" / "organ.stl").exists()


@pytest.mark.parametrize("to", ["stl", "ply", "obj", "vtp"])
def test_a_mask_becomes_a_surface_around_it_and_a_surface_a_mask_again(labels, tmp_path, to):
    assert run("convert", labels, "-o", tmp_path / "meshes", "--to", to) == 0
    mesh, mask = read_mesh(tmp_path / "meshes" / f"organ.{to}"), read_mask(labels)
    volume = mask.occupancy.sum() * mask.grid.voxel_volume_mm3
    assert mesh.volume_mm3 == pytest.approx(volume, rel=0.02)
    centre = mask.grid.affine @ [*np.argwhere(mask.occupancy).mean(0), 1]
    np.testing.assert_allclose(mesh.vertices.mean(0), centre[:3], atol=0.5)
    assert run("convert", tmp_path / "meshes", "-o", tmp_path / "back", "--to", "nii.gz") == 0
    back = read_mask(tmp_path / "back" / "organ.nii.gz")
    assert back.occupancy.sum() * back.grid.voxel_volume_mm3 == pytest.approx(volume, rel=0.03)


def test_meshes_of_one_topology_stay_so(tmp_path):
    vertices = np.array(
        [(0, 0, 0), (9, 9, 9), (1.0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]
    )  # some unused, one twice
    faces = np.array([(0, 3, 2), (0, 2, 4), (0, 4, 3), (2, 3, 4)])
    write_mesh(tmp_path / "in" / "case.ply", Mesh(vertices, faces))
    assert run("convert", tmp_path / "in" / "case.ply", "-o", tmp_path / "out", "--to", "ply") == 0
    found = read_stored(tmp_path / "out" / "case.ply")
    np.testing.assert_allclose(found.vertices, vertices)
    assert np.array_equal(found.faces, faces)
    assert run("convert", tmp_path / "in", "-o", tmp_path / "out", "--to", "glb") == 0
    assert (tmp_path / "out" / "case.glb").read_bytes()[:4] == b"glTF"


def test_a_damaged_ply_is_named_and_repairs_of_surfaces_are_said(tmp_path, caplog, capsys):
    box = trimesh.creation.box((9, 9, 9))
    (tmp_path / "in").mkdir()
    box.export(tmp_path / "in" / "sound.ply")
    text = box.export(file_type="ply", encoding="ascii").decode().rsplit("\n3 ", 1)[0] + "\n3 0 3 999\n"
    (tmp_path / "in" / "damaged.ply").write_text(text)
    box.faces = box.faces[:-1]
    box.export(tmp_path / "in" / "open.obj")
    for to in ("stl", "obj"):
        assert run("convert", tmp_path / "in", "-o", tmp_path / to, "--to", to) == 1
        assert "damaged.ply: has a face with vertex 999" in capsys.readouterr().err
        assert sorted(path.stem for path in (tmp_path / to).glob(f"*.{to}")) == ["open", "sound"]
        assert "open.obj: holes with 3 open edges were filled" in caplog.text
        caplog.clear()


def test_a_name_that_is_too_long_stops_no_other_case(labels, tmp_path, capsys):
    long = labels.parent / f"{'x' * 248}.stl"
    long.write_bytes(b"")
    assert run("convert", labels.parent, "-o", tmp_path / "out", "--to", "nii.gz") == 1
    assert "x" * 248 in capsys.readouterr().err and (tmp_path / "out" / "organ.nii.gz").exists()


def test_what_cannot_be_read_is_named_and_inputs_are_kept(labels, tmp_path, capsys):
    (labels.parent / "broken.nrrd").write_bytes(b"NRRD0004")
    assert run("convert", labels.parent, "-o", tmp_path / "out", "--to", "stl") == 1
    said = capsys.readouterr()
    assert "broken.nrrd" in said.err and (tmp_path / "out" / "organ.stl").exists()
    assert run("convert", labels, "-o", labels.parent, "--to", "nii.gz") == 1
    assert (
        run("convert", tmp_path / "out" / "organ.stl", "-o", tmp_path / "ply", "--to", "ply", "--label", 5)
        == 1
    )
    assert "Leave --label out" in capsys.readouterr().err and not (tmp_path / "ply" / "organ.ply").exists()
    assert run("convert", labels.parent, "-o", labels.parent, "--to", "stl") == 1
    assert "taken for cases the next time" in capsys.readouterr().err
    assert not (labels.parent / "organ.stl").exists()
