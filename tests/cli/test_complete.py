"""The command that completes organs, from clicks, slices and masks that were cut off."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from commands import paths, run, surface_points, table

from implicit_atlas.io import (
    Landmarks,
    read_mask,
    read_mesh,
    write_landmarks,
    write_mask,
)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_clicks_become_a_mask_on_the_images_grid(model, masks, tmp_path):
    mask = read_mask(paths(masks)[0])
    clicks = tmp_path / "clicks.mrk.json"
    write_landmarks(clicks, Landmarks(surface_points(mask, 200), ("",) * 200, None, clicks))
    out = tmp_path / "out"
    assert run("complete", model, clicks, "-o", out, "--image", mask.path, "--draws", 2) == 0
    found = read_mask(out / "clicks.nii.gz")
    assert found.grid.same_as(mask.grid) and overlap(found.occupancy, mask.occupancy) > 0.8
    (row,) = table(out / "completions.csv")
    assert float(row["boundary_mm"]) < 5 and row["doubt"] == "" and float(row["spread_mm"]) > 0
    likely = np.asarray(nibabel.load(out / "probability" / "clicks.nii.gz").dataobj)
    assert 0 <= likely.min() and likely.max() == 1 and (likely[found.occupancy] >= 1 / 3 - 1e-6).all()
    assert len(read_mesh(out / "meshes" / "clicks.ply").faces)
    assert "spread_mm" in (out / "meshes" / "clicks.vtp").read_bytes().decode("latin-1")


def test_an_organ_that_an_image_cuts_off_is_doubtful(model, masks, tmp_path, capsys):
    """An image of another scan, or of the wrong space, may still overlap with the organ."""
    mask = read_mask(paths(masks)[0])
    clicks, image = tmp_path / "clicks.mrk.json", tmp_path / "image.nii.gz"
    write_landmarks(clicks, Landmarks(surface_points(mask, 200), ("",) * 200, None, clicks))
    planes = np.flatnonzero(mask.occupancy.any((1, 2)))
    part = mask.occupancy[: (planes[0] + planes[-1]) // 2].astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(part, mask.grid.affine), image)
    assert run("complete", model, clicks, "-o", tmp_path / "out", "--image", image) == 0
    (row,) = table(tmp_path / "out" / "completions.csv")
    assert "lies outside the volume that was given" in row["doubt"] and "--image" in row["doubt"]
    assert "DOUBTFUL clicks" in capsys.readouterr().out


def test_what_is_done_before_a_stop_has_its_row(model, masks, tmp_path, monkeypatch):
    from implicit_atlas.tasks import results

    write = results.write_completion

    def stopped(done, *rest):
        if done.fit.name.startswith("second"):
            raise KeyboardInterrupt
        return write(done, *rest)

    monkeypatch.setattr(results, "write_completion", stopped)
    clicks = [tmp_path / "first.mrk.json", tmp_path / "second.mrk.json"]
    for path in clicks:
        write_landmarks(
            path, Landmarks(surface_points(read_mask(paths(masks)[0]), 64), ("",) * 64, None, path)
        )
    assert run("complete", model, *clicks, "-o", tmp_path / "out") == 130
    assert [row["name"] for row in table(tmp_path / "out" / "completions.csv")] == ["first"]
    assert [path.name for path in paths(tmp_path / "out")] == ["first.nii.gz"]


def test_a_few_slices_become_the_whole(model, masks, tmp_path):
    mask = read_mask(paths(masks)[1])
    axis = int(np.argmax(mask.occupancy.shape))
    planes = np.flatnonzero(np.moveaxis(mask.occupancy, axis, 0).any((1, 2)))
    kept = np.zeros(mask.occupancy.shape, np.uint8)
    chosen = planes[[1, len(planes) // 3, len(planes) // 2, 2 * len(planes) // 3, -2]]
    np.moveaxis(kept, axis, 0)[chosen] = np.moveaxis(mask.occupancy, axis, 0)[chosen]
    nibabel.save(nibabel.Nifti1Image(kept, mask.grid.affine), tmp_path / "slices.nii.gz")
    assert run("complete", model, tmp_path / "slices.nii.gz", "-o", tmp_path / "out") == 0
    found = read_mask(tmp_path / "out" / "slices.nii.gz")
    assert overlap(found.occupancy, mask.occupancy) > 0.75 > overlap(kept > 0, mask.occupancy)
    drawn, written = (np.moveaxis(of, axis, 0)[chosen] for of in (kept > 0, found.occupancy))
    assert np.array_equal(drawn, written) and found.grid.same_as(mask.grid)


def test_what_was_cut_off_is_continued(model, masks, tmp_path):
    mask = read_mask(paths(masks)[2])
    axis = int(np.argmax(mask.occupancy.shape))
    planes = np.flatnonzero(np.moveaxis(mask.occupancy, axis, 0).any((1, 2)))
    cut = np.moveaxis(np.moveaxis(mask.occupancy, axis, 0)[: planes[len(planes) * 3 // 4]], 0, axis)
    nibabel.save(nibabel.Nifti1Image(cut.astype(np.uint8), mask.grid.affine), tmp_path / "cut.nii.gz")
    full = ("--image", mask.path, "--seen", "volume")
    assert run("complete", model, tmp_path / "cut.nii.gz", "-o", tmp_path / "out", *full) == 0
    found = read_mask(tmp_path / "out" / "cut.nii.gz")
    beyond = np.moveaxis(found.occupancy & mask.occupancy, axis, 0)[cut.shape[axis] :]
    assert beyond.any() and found.grid.same_as(mask.grid)
    first = np.moveaxis(found.occupancy, axis, 0)[: cut.shape[axis]]
    assert np.array_equal(np.moveaxis(first, 0, axis), cut)  # what was drawn stays


@pytest.mark.parametrize("from_the_end", [False, True])
def test_a_volume_that_ended_too_early_grows_by_whole_voxels(model, masks, tmp_path, from_the_end):
    mask = read_mask(paths(masks)[2])
    axis = int(np.argmax(mask.occupancy.shape))
    planes = np.flatnonzero(np.moveaxis(mask.occupancy, axis, 0).any((1, 2)))
    middle = int(planes[len(planes) // 2])
    part = slice(middle, None) if from_the_end else slice(0, middle)
    cut = np.moveaxis(np.moveaxis(mask.occupancy, axis, 0)[part], 0, axis)
    affine = mask.grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (middle if from_the_end else 0)
    nibabel.save(nibabel.Nifti1Image(cut.astype(np.uint8), affine), tmp_path / "cut.nii.gz")
    assert run("complete", model, tmp_path / "cut.nii.gz", "-o", tmp_path / "out", "--seen", "volume") == 0
    found = read_mask(tmp_path / "out" / "cut.nii.gz")
    np.testing.assert_allclose(found.grid.affine[:3, :3], affine[:3, :3])
    moved = np.linalg.inv(affine) @ found.grid.affine[:, 3]
    np.testing.assert_allclose(moved[:3], np.rint(moved[:3]), atol=1e-3)
    first = -np.rint(moved[:3]).astype(int)
    inner = tuple(slice(a, a + n) for a, n in zip(first, cut.shape, strict=True))
    assert np.array_equal(found.occupancy[inner], cut)
    assert (first[axis] > 0) == from_the_end and found.occupancy.sum() > 1.3 * cut.sum()


def test_clicks_that_cannot_be_are_refused_and_the_others_go_on(model, masks, tmp_path, capsys):
    mask = read_mask(paths(masks)[0])
    good = surface_points(mask, 60)
    written = {
        "good.csv": good,
        "few.csv": good[:3],
        "far.csv": np.concatenate([good, [[9000.0, 0, 0]]]),
    }
    for name, points in written.items():
        write_landmarks(tmp_path / name, Landmarks(points, ("",) * len(points), None, tmp_path / name))
    (tmp_path / "bad.fcsv").write_bytes(b"\x00\xff")
    sources = [tmp_path / name for name in ("few.csv", "bad.fcsv", "far.csv", "good.csv")]
    assert run("complete", model, *sources, "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "few.csv" in said and "bad.fcsv" in said and "far.csv" in said and "span" in said
    assert "mm RAS is farthest" in said
    assert (tmp_path / "out" / "good.nii.gz").exists()
    assert len(table(tmp_path / "out" / "completions.csv")) == 1


def test_a_shape_of_which_little_was_seen_is_doubtful(model, masks, tmp_path):
    mask = read_mask(paths(masks)[1])
    axis = int(np.argmax([np.ptp(places) for places in np.nonzero(mask.occupancy)]))
    planes = np.flatnonzero(mask.occupancy.any(tuple({0, 1, 2} - {axis})))
    one = np.zeros_like(mask.occupancy)
    middle = planes[len(planes) // 2]
    np.moveaxis(one, axis, 0)[middle] = np.moveaxis(mask.occupancy, axis, 0)[middle]
    write_mask(tmp_path / "slice.nii.gz", one, mask.grid)
    assert run("complete", model, tmp_path / "slice.nii.gz", "-o", tmp_path / "out") == 0
    (row,) = table(tmp_path / "out" / "completions.csv")
    assert float(row["guessed"]) > 0.25 and "from all that was observed" in row["doubt"]


def test_contradictory_clicks_are_doubtful(model, masks, tmp_path, capsys):
    mask = read_mask(paths(masks)[0])
    points = surface_points(mask, 80)
    inside_points = np.repeat(points[:40], 2, axis=0)
    contradiction = Landmarks(inside_points, ("",) * 80, np.tile([0.0, 1.0], 40), tmp_path / "both.csv")
    write_landmarks(contradiction.path, contradiction)
    assert run("complete", model, contradiction.path, "-o", tmp_path / "out") == 0
    assert "contradict" in table(tmp_path / "out" / "completions.csv")[0]["doubt"]
    assert "DOUBTFUL both" in capsys.readouterr().out
