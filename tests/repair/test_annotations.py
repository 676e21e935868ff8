"""Repair of annotations: holes and islands go, detail near the surface stays, bad input is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlas_samples import RESOLUTION, dsc, phantom_shapes, tiny_atlas, tiny_model, tiny_training
from commands import run
from experiments import repairs, uses_page
from scipy.ndimage import distance_transform_edt

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.generation import generate, pieces_of
from implicit_atlas.io import Mask, read_labels, read_mask, read_mesh, write_label_map, write_mask
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.repair.annotations import block_sums, loose_voxels, noisy, repair, repaired
from implicit_atlas.shapes.shape import Shape, prepare, restore
from implicit_atlas.tasks.results import write_made, write_repair
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training.learning import train

UNSEEN = phantom_shapes(8)[7]


def pair(seed: int) -> Shape:
    """Two ellipsoids side by side, some of one size and some of another."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in (30, 16, 18)), indexing="ij"), axis=-1)
    radii = rng.uniform(4.5, 6, (2, 3))
    halves = [(((at - (x, 8, 9)) / own) ** 2).sum(-1) < 1 for x, own in zip((7, 22), radii, strict=True)]
    mask = Mask(
        halves[0] | halves[1], Grid((30, 16, 18), np.eye(4)), Path(f"pair-{seed}"), (), np.dtype(np.uint8)
    )
    return prepare(mask, RESOLUTION)


@pytest.fixture(scope="module")
def clean_mask(tmp_path_factory) -> Mask:
    path = tmp_path_factory.mktemp("mask") / "organ.nii.gz"
    occupancy = np.pad(restore(UNSEEN), 4)
    write_mask(path, occupancy, replace(UNSEEN.frame.grid, shape=occupancy.shape))
    return read_mask(path)


@pytest.fixture(scope="module")
def poor_mask(clean_mask, tmp_path_factory) -> Mask:
    """With a hole in its middle, and an island far off."""
    occupancy = clean_mask.occupancy.copy()
    deepest = np.unravel_index(np.argmax(distance_transform_edt(occupancy)), occupancy.shape)
    occupancy[tuple(slice(k - 1, k + 2) for k in deepest)] = False
    occupancy[:2, :2, :2] = True
    path = tmp_path_factory.mktemp("poor") / "organ.nii.gz"
    write_mask(path, occupancy, clean_mask.grid)
    return read_mask(path)


def test_holes_and_islands_go(clean_mask, poor_mask):
    problems = []
    keep_mm = 1.3 * float(poor_mask.grid.spacing_mm.mean())  # the atlas of six phantoms is a rough one
    (done,) = repair(tiny_atlas(), [poor_mask.path], keep_mm=keep_mm, on_problem=problems.append)
    assert not problems
    hole = clean_mask.occupancy & ~poor_mask.occupancy
    assert hole.sum() == 27 and done.occupancy[hole].mean() > 0.9
    assert not done.occupancy[:2, :2, :2].any() and done.removed >= 8 and done.added >= hole.sum()
    assert dsc(done.occupancy, clean_mask.occupancy) > dsc(poor_mask.occupancy, clean_mask.occupancy)
    assert done.doubt is None


def test_what_lies_near_the_surface_keeps_its_label(clean_mask):
    (fit,) = tiny_atlas().fit([UNSEEN])
    near, nothing, everything = (repaired(clean_mask, fit, keep) for keep in (None, 0.0, 1e3))
    assert np.array_equal(everything.occupancy, clean_mask.occupancy)
    assert np.array_equal(nothing.occupancy, fit.mask_on(clean_mask.grid))
    assert near.added + near.removed < nothing.added + nothing.removed
    changed = near.occupancy != clean_mask.occupancy
    assert not (changed & (nothing.occupancy == clean_mask.occupancy)).any()
    assert changed.sum() == near.added + near.removed


def test_enclosed_pockets_are_filled_however_small(clean_mask, tmp_path):
    """Of two voxels a side, which differ too little from clean outlines to be taken for noise."""
    occupancy = clean_mask.occupancy.copy()
    deepest = np.unravel_index(np.argmax(distance_transform_edt(occupancy)), occupancy.shape)
    pocket = tuple(slice(k, k + 2) for k in deepest)
    occupancy[pocket] = False
    write_mask(tmp_path / "organ.nii.gz", occupancy, clean_mask.grid)
    (done,) = repair(tiny_atlas(), [tmp_path / "organ.nii.gz"])
    assert done.occupancy[pocket].all()


def test_an_outline_beside_an_island_stays(clean_mask):
    """An island goes by itself: that it is there is no reason to correct the outline around it."""
    (fit,) = tiny_atlas().fit([UNSEEN])
    inside = fit.mask_on(clean_mask.grid)
    outside_mm = distance_transform_edt(~(inside | clean_mask.occupancy), sampling=clean_mask.grid.spacing_mm)
    voxel = float(clean_mask.grid.spacing_mm.mean())
    corner = np.argwhere((outside_mm > 2.2 * voxel) & (outside_mm < 3 * voxel))[0]
    island = np.zeros_like(clean_mask.occupancy)
    island[tuple(slice(k, k + 1) for k in corner)] = True
    alone, beside = (
        repaired(replace(clean_mask, occupancy=clean_mask.occupancy | one), fit)
        for one in (np.zeros_like(island), island)
    )
    assert np.array_equal(beside.occupancy, alone.occupancy) and beside.removed == alone.removed + 1
    assert np.array_equal(loose_voxels(clean_mask.occupancy | island), island)


def test_a_pair_stays_a_pair(tmp_path):
    """An organ of two pieces, as its templates are, loses neither."""
    shape = pair(0)
    path = tmp_path / "pair.nii.gz"
    write_mask(path, restore(shape), shape.frame.grid)
    atlas = train([pair(seed) for seed in range(4)], tiny_model(), tiny_training(steps=120))
    assert pieces_of(atlas) == 2 and pieces_of(tiny_atlas()) == 1
    (done,) = repair(atlas, [path])
    assert dsc(done.occupancy, restore(shape)) > 0.9
    mean = generate(atlas, 1, temperature=0)[0]
    one, both = (write_made(mean, f"made-{most}", tmp_path, most)["volume_ml"] for most in (1, 2))
    assert 1.5 * one < both <= 2 * one
    assert read_mesh(tmp_path / "meshes" / "made-2.ply").volume_mm3 == pytest.approx(1000 * both, rel=0.1)


def test_what_a_plane_cut_off_is_put_back(tmp_path):
    """A tenth of an organ that the atlas knows, on a fine grid, by an oblique plane; of the whole organ nothing."""
    atlas, coarse = tiny_atlas(), UNSEEN.frame.grid
    shape = tuple(2 * n + 8 for n in coarse.shape)
    affine = coarse.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= affine[:3, :3] @ [4, 4, 4]
    grid = Grid((shape[0], shape[1], shape[2]), affine)
    whole = atlas.fit([UNSEEN])[0].mask_on(grid)
    height = np.stack(np.indices(whole.shape), axis=-1) @ (grid.spacing_mm * [0.9, 0.3, -0.3])
    gone = whole & (height > np.quantile(height[whole], 0.9))
    for name, occupancy in (("cut", whole & ~gone), ("whole", whole)):
        write_mask(tmp_path / f"{name}.nii.gz", occupancy, grid)
    done, same = repair(atlas, [tmp_path / "cut.nii.gz", tmp_path / "whole.nii.gz"])
    assert same.put_back == 0
    assert done.added >= done.put_back > 0.7 * gone.sum() and done.occupancy[gone].mean() > 0.7
    assert dsc(done.occupancy, whole) > 0.96 > dsc(whole & ~gone, whole)
    (as_told,) = repair(atlas, [tmp_path / "cut.nii.gz"], keep_mm=1e3)
    assert as_told.put_back == 0 and not as_told.occupancy[gone].any()


def test_another_organ_is_doubted(clean_mask):
    box = np.zeros_like(clean_mask.occupancy)
    box[3:-3, 3:-3, ::4] = True
    (fit,) = tiny_atlas().fit([UNSEEN])
    assert "another organ" in (repaired(replace(clean_mask, occupancy=box), fit).doubt or "")


def test_what_is_no_mask_of_the_organ_is_not_rewritten(clean_mask, tmp_path):
    """Thin plates all over the volume."""
    plates = np.zeros_like(clean_mask.occupancy)
    plates[:, :, ::4] = True
    write_mask(tmp_path / "plates.nii.gz", plates, clean_mask.grid)
    write_mask(tmp_path / "organ.nii.gz", clean_mask.occupancy, clean_mask.grid)
    problems = []
    found = repair(
        tiny_atlas(), [tmp_path / f"{n}.nii.gz" for n in ("plates", "organ")], on_problem=problems.append
    )
    assert [one.fit.name for one in found] == ["organ"]
    assert [problem.name for problem in problems] == ["plates"] and "another organ" in problems[0].message


def balls(radius: float, dent: float) -> tuple[np.ndarray, np.ndarray]:
    """A ball of voxels as a shape has it, and a mask of it: a flat side, and an island in a corner."""
    at = np.indices((60, 56, 52)) - np.array([30, 28, 26])[:, None, None, None]
    ball = (at**2).sum(0) < radius**2
    mask = ball & (at[0] < radius - dent)
    mask[3:6, 3:6, 3:6] = True
    return mask, ball


def test_what_shapes_do_not_follow_is_no_noise():
    """In a fine scan, a flat side of a few voxels is what a shape of few numbers misses; an island never is."""
    spacing = np.array([0.5, 0.5, 0.5])
    mask, ball = balls(18, 5)
    side = (np.indices(mask.shape)[0] > 30 + 18 - 5) & (mask != ball)
    by_voxels, by_steps = noisy(mask, ball, spacing, 0.5), noisy(mask, ball, spacing, 2.5)
    assert by_voxels[side].mean() > 0.9 and not by_steps[side].any()
    assert by_voxels[3:6, 3:6, 3:6].all() and by_steps[3:6, 3:6, 3:6].all()


def test_blocks_hold_all_that_was_in_them():
    values = np.random.default_rng(0).random((7, 5, 4))
    sums = block_sums(values, np.array([3, 2, 1]))
    assert sums.shape == (3, 3, 4) and sums.sum() == pytest.approx(values.sum())
    assert sums[1, 2, 3] == pytest.approx(values[3:6, 4:, 3].sum())


@pytest.mark.parametrize("keep_mm", [-1.0, np.nan, np.inf])
def test_distances_that_are_none_are_refused(poor_mask, keep_mm):
    with pytest.raises(InputError, match="not a distance"):
        list(repair(tiny_atlas(), [poor_mask.path], keep_mm=keep_mm))


def test_the_command_writes_masks_and_says_what_it_changed(poor_mask, tmp_path, capsys):
    model, out, broken = tmp_path / "organ.atlas", tmp_path / "out", tmp_path / "broken.nii.gz"
    tiny_atlas().save(model, "")
    broken.write_bytes(b"nothing")
    assert run("clean", model, poor_mask.path, broken, "-o", out) == 1
    assert "broken" in capsys.readouterr().err
    (row,) = csv.DictReader((out / "repairs.csv").open())
    assert row["name"] == "organ" and float(row["removed_ml"]) > 0 and row["doubt"] == ""
    found = read_mask(out / "organ.nii.gz")
    assert found.grid.same_as(poor_mask.grid) and not found.occupancy[:2, :2, :2].any()


def test_a_fit_that_explains_little_of_a_poor_mask_is_no_failure(poor_mask, monkeypatch):
    """The mask is not to be believed: what is said of a fit to it goes for the likeness to tell."""
    fitted = TrainedAtlas.fit

    def poor(self: TrainedAtlas, *args: Any) -> list[Fit]:
        failure = "it is hardly better than no shape at all"
        return [replace(fit, found=replace(fit.found, failure=failure)) for fit in fitted(self, *args)]

    monkeypatch.setattr(TrainedAtlas, "fit", poor)
    (done,) = repair(tiny_atlas(), [poor_mask.path])
    assert done.likeness > 0.6 and done.fit.failure is None


def test_measured_repairs_become_a_table(clean_mask, tmp_path, monkeypatch):
    monkeypatch.setattr(repairs, "KINDS", ("pieces-1",))
    found = repairs.measure(tiny_atlas(), [clean_mask], lambda text: None)
    assert found["clean"]["as it is"] == [100, 100, 0, 100]
    before, after = found["pieces-1"]["as it is"], found["pieces-1"]["repaired"]
    assert before[0] < 100 and len(after) == 4
    about = dict.fromkeys(
        ("organ", "cases", "thin_mm", "keep_voxels", "training_shapes", "steps", "seed", "every"), 1
    )
    about |= {"degrees_of_freedom": 16, "device": "cpu"}
    (tmp_path / "repairs-phantom.json").write_text(json.dumps({"about": about, "repairs": found}))
    page = uses_page.section("repairs", tmp_path)
    assert "| pieces-1 |" in page and "median" in page


def test_what_is_thin_is_what_no_ball_reaches(clean_mask):
    slab = np.zeros((30, 30, 30), bool)
    slab[5:25, 5:25, 5:25] = True
    slab[14:16, 14:16, 25:29] = True  # a spike
    grid = replace(clean_mask.grid, shape=slab.shape, affine=np.eye(4))
    thin = repairs.thin_part(replace(clean_mask, occupancy=slab, grid=grid))
    assert thin[14:16, 14:16, 26:29].all() and not thin[8:22, 8:22, 8:22].any()


def test_parts_keep_their_labels(clean_mask, tmp_path):
    """A mask of two parts with a hole through their border: what is filled is of the nearer one."""
    half = clean_mask.grid.shape[0] // 2
    parts = np.where(clean_mask.occupancy, 2, 0).astype(np.uint8)
    parts[:half][clean_mask.occupancy[:half]] = 5
    middle = np.argwhere(clean_mask.occupancy[half])
    y, z = middle[np.abs(middle - middle.mean(0)).sum(1).argmin()]
    parts[half - 2 : half + 2, y : y + 2, z : z + 2] = 0
    write_label_map(tmp_path / "parts.nii.gz", parts, clean_mask.grid)
    (done,) = repair(tiny_atlas(), [tmp_path / "parts.nii.gz"])
    write_repair(done, tmp_path / "out")
    found = read_labels(tmp_path / "out" / "parts.nii.gz").values
    assert np.array_equal(found > 0, done.occupancy)
    both = (parts > 0) & done.occupancy
    assert np.array_equal(found[both], parts[both])
    hole = found[half - 2 : half + 2, y, z]
    assert hole.tolist() == [5, 5, 2, 2]


def test_a_mask_of_one_label_keeps_it(clean_mask, tmp_path):
    write_label_map(tmp_path / "six.nii.gz", clean_mask.occupancy * np.uint8(6), clean_mask.grid)
    (done,) = repair(tiny_atlas(), [tmp_path / "six.nii.gz"])
    write_repair(done, tmp_path / "out")
    assert np.array_equal(read_labels(tmp_path / "out" / "six.nii.gz").values, 6 * done.occupancy)


def test_stairs_are_smoothed_before_a_shape_is_fitted(clean_mask, tmp_path):
    axis = int(np.argmax([np.ptp(index) for index in np.nonzero(clean_mask.occupancy)]))
    drawn = np.moveaxis(clean_mask.occupancy, axis, 0)[1::3]
    poor = np.moveaxis(np.repeat(drawn, 3, axis=0)[: clean_mask.grid.shape[axis]], 0, axis)
    poor = np.pad(poor, [(0, n - m) for n, m in zip(clean_mask.grid.shape, poor.shape, strict=True)])
    write_mask(tmp_path / "organ.nii.gz", poor, clean_mask.grid)
    (done,) = repair(tiny_atlas(), [tmp_path / "organ.nii.gz"])
    spacing = float(clean_mask.grid.spacing_mm[axis])
    assert done.slice_mm == pytest.approx(3 * spacing)
    assert dsc(done.occupancy, clean_mask.occupancy) > dsc(poor, clean_mask.occupancy) + 0.01
    (as_told,) = repair(tiny_atlas(), [tmp_path / "organ.nii.gz"], keep_mm=1e3)
    assert np.array_equal(as_told.occupancy, poor) and as_told.slice_mm == 0
