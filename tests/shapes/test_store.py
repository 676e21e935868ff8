"""Tests of implicit_atlas.shapes.store: a store holds what prepare gives, and notices what changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from shape_masks import NAMES, assert_same_shapes, ellipsoid_mask, save_mask

from implicit_atlas.errors import InputError
from implicit_atlas.io import read_mask
from implicit_atlas.shapes.shape import prepare, restore
from implicit_atlas.shapes.store import (
    PrepareConfig,
    load_shapes,
    open_store,
    prepare_cases,
    prepare_folder,
    shape_from_array,
)
from implicit_atlas.support.files import lock_folder

CONFIG = PrepareConfig(16)


def test_a_store_holds_what_prepare_gives(masks, tmp_path):
    report = prepare_folder(masks, tmp_path / "store", CONFIG)
    assert (report.prepared, report.reused, report.removed, report.quarantined) == (NAMES, (), (), ())
    store = open_store(tmp_path / "store")
    assert_same_shapes(store, [prepare(read_mask(path), 16) for path in sorted(masks.iterdir())])
    assert store.names == NAMES and store.config == CONFIG
    assert [shape.name for shape in store[2:5]] == list(NAMES[2:5])
    assert store[-1].source == "case_7.nii.gz"
    assert restore(store[3]).shape == (20, 18, 16)
    assert len(list((tmp_path / "store").glob("shard-*.bits"))) == 3


def test_nothing_is_done_twice(masks, tmp_path):
    prepare_folder(masks, tmp_path / "store", CONFIG)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    report = prepare_folder(masks, tmp_path / "store", CONFIG)
    assert (report.prepared, report.reused) == ((), NAMES)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before


def test_changed_added_and_removed_files_are_noticed(masks, tmp_path):
    store = tmp_path / "store"
    prepare_folder(masks, store, CONFIG)
    times = (masks / "case_1.nii.gz").stat()
    save_mask(masks, "case_1", ellipsoid_mask((22, 20, 18)))
    os.utime(masks / "case_1.nii.gz", ns=(times.st_atime_ns, times.st_mtime_ns))
    save_mask(masks, "case_0b", ellipsoid_mask((16, 16, 16), (5, 5, 5)))
    (masks / "case_6.nii.gz").unlink()
    (masks / "case_7.nii.gz").unlink()
    report = prepare_folder(masks, store, CONFIG)
    assert report.prepared == ("case_0b", "case_1")
    assert report.reused == ("case_0", "case_2", "case_3", "case_4", "case_5")
    assert report.removed == ("case_6", "case_7")
    assert_same_shapes(open_store(store), prepare_cases(masks, CONFIG).shapes)
    # 7 shapes in shards of 3: no gaps, no leftovers.
    assert sum(path.stat().st_size for path in store.glob("shard-*.bits")) == 7 * 16**3 // 8


@pytest.mark.parametrize(
    "config",
    [
        PrepareConfig(24),
        PrepareConfig(16, 0.1),
        PrepareConfig(16, 0.0, "isotropic"),
        PrepareConfig(16, labels=(1,)),
    ],
)
def test_other_parameters_prepare_everything_again(masks, tmp_path, config):
    prepare_folder(masks, tmp_path / "store", CONFIG)
    report = prepare_folder(masks, tmp_path / "store", config)
    assert (report.prepared, report.removed) == (NAMES, ())
    assert_same_shapes(open_store(tmp_path / "store"), prepare_cases(masks, config).shapes)


def test_bad_cases_are_set_aside_and_named(masks, tmp_path):
    data = (masks / "case_2.nii.gz").read_bytes()
    (masks / "case_2.nii.gz").write_bytes(data[:-20])
    empty = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    nibabel.save(empty, masks / "empty.nii.gz")
    (masks / "loop.nii.gz").symlink_to(masks / "loop.nii.gz")
    shutil.copy(masks / "case_3.nii.gz", masks / "case_3.nii.gz.nii.gz")
    nibabel.save(nibabel.load(masks / "case_4.nii.gz"), masks / "case_4.nii")
    report = prepare_folder(masks, tmp_path / "store", CONFIG)
    problems = [problem.name for problem in report.quarantined]
    assert problems == ["case_2", "case_4", "case_4", "empty", "loop"]
    for problem in report.quarantined:
        assert problem.name in problem.message and str(problem.path) in problem.message
    assert open_store(tmp_path / "store").names == report.prepared
    # A case that was good and is not any more leaves the store.
    (masks / "case_5.nii.gz").write_bytes(b"")
    report = prepare_folder(masks, tmp_path / "store", CONFIG)
    assert "case_5" in report.removed
    assert "case_5" not in open_store(tmp_path / "store").names


def test_a_store_in_use_is_left_alone(masks, tmp_path):
    (tmp_path / "store").mkdir()
    with lock_folder(tmp_path / "store"), pytest.raises(InputError, match="in use"):
        prepare_folder(masks, tmp_path / "store", CONFIG)


def test_two_processes_on_one_store(masks, tmp_path):
    code = (
        "import sys; from implicit_atlas.shapes.store import *\n"
        "try: prepare_folder(sys.argv[1], sys.argv[2], PrepareConfig(16))\n"
        "except Exception as error: sys.exit(f'{type(error).__name__} {error}')"
    )
    command = [sys.executable, "-c", code, str(masks), str(tmp_path / "store")]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [(run.communicate()[1], run.returncode) for run in runs]
    assert any(code == 0 for _, code in results), results
    assert all(code == 0 or ("InputError" in text and "in use" in text) for text, code in results), results
    assert open_store(tmp_path / "store").names == NAMES


def test_a_folder_of_the_user_is_not_turned_into_a_store(masks, tmp_path):
    with pytest.raises(InputError, match="holds other files"):
        prepare_folder(masks, masks, CONFIG)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        prepare_folder(masks, tmp_path / "file", CONFIG)
    assert len(list(masks.iterdir())) == len(NAMES)


def test_progress_names_every_case(masks, tmp_path):
    seen = []
    prepare_folder(masks, tmp_path / "store", CONFIG, progress=lambda *done: seen.append(done))
    assert seen == [(i + 1, len(NAMES), name) for i, name in enumerate(NAMES)]


def test_load_shapes_takes_stores_folders_files_and_lists(masks, tmp_path):
    prepare_folder(masks, tmp_path / "store", CONFIG)
    from_store = load_shapes(tmp_path / "store")
    assert_same_shapes(from_store, load_shapes(masks, resolution=16))
    assert_same_shapes(from_store[2:3], load_shapes(str(masks / "case_2.nii.gz"), resolution=16))
    assert_same_shapes(
        from_store[:2], load_shapes([masks / "case_0.nii.gz", masks / "case_1.nii.gz"], resolution=16)
    )
    assert_same_shapes(from_store, load_shapes(masks, resolution=16, cache=tmp_path / "cache"))
    assert_same_shapes(from_store, open_store(tmp_path / "cache"))
    wide = PrepareConfig(16, 0.1, "isotropic")
    assert_same_shapes(from_store, load_shapes(tmp_path / "store", like=CONFIG))
    with pytest.raises(InputError, match=r"at .* margin 0, kind box .*, not .* margin 0\.1, kind isotropic"):
        load_shapes(tmp_path / "store", like=wide)
    found = load_shapes(masks, like=wide)
    assert {(one.frame.resolution, one.frame.margin, one.frame.kind) for one in found} == {
        (16, 0.1, "isotropic")
    }


def test_load_shapes_leaves_bad_cases_out_and_says_so(masks, tmp_path, caplog):
    (masks / "case_2.nii.gz").write_bytes(b"bad")
    problems = []
    for cache in (None, tmp_path / "cache"):
        assert len(load_shapes(masks, resolution=16, cache=cache, on_problem=problems.append)) == 7
    assert [problem.name for problem in problems] == ["case_2", "case_2"]
    load_shapes(masks, resolution=16)
    assert "left out" in caplog.text and "case_2" in caplog.text
    with pytest.raises(InputError, match="case_2"):
        load_shapes(masks / "case_2.nii.gz")


def test_load_shapes_refuses_what_is_not_there(masks, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_shapes(tmp_path / "none")
    with pytest.raises(InputError, match="none can be used"):
        load_shapes(masks, labels=(7,))
    with pytest.raises(InputError, match="labels"):
        load_shapes(masks, labels=(0,))
    prepare_folder(masks, tmp_path / "store", CONFIG)
    assert len(load_shapes(tmp_path / "store", resolution=16)) == len(NAMES)
    for asked in ({"resolution": 24}, {"labels": (2,)}):
        with pytest.raises(InputError, match="was prepared at resolution 16"):
            load_shapes(tmp_path / "store", **asked)


def test_a_store_of_nothing_is_refused(masks, tmp_path):
    report = prepare_folder(masks, tmp_path / "store", PrepareConfig(16, labels=(9,)))
    assert len(report.quarantined) == len(NAMES)
    with pytest.raises(InputError, match="holds no shapes"):
        open_store(tmp_path / "store")


def test_labels_choose_the_organ(tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = ellipsoid_mask()
    values = mask.occupancy.astype(np.uint8) * 3
    values[:15] *= 2
    nibabel.save(nibabel.Nifti1Image(values, mask.grid.affine), masks / "case.nii.gz")
    whole, half = load_shapes(masks, resolution=16), load_shapes(masks, (3,), 16)
    assert restore(half[0]).sum() < restore(whole[0]).sum()
    assert_same_shapes(whole, load_shapes(masks, (6, 3), 16))


def test_a_mask_in_memory_is_prepared_as_one_in_a_file(masks, tmp_path):
    (path, *_) = sorted(masks.glob("*.nii.gz"))
    read = read_mask(path)
    like = PrepareConfig(32, 0.05)
    shape = shape_from_array(read.occupancy.astype(np.float32), read.grid.affine, name="memory", like=like)
    assert np.array_equal(shape.packed, prepare(read, 32, 0.05).packed) and shape.name == "memory"
    assert np.array_equal(
        shape.frame.affine_cube_to_world, prepare(read, 32, 0.05).frame.affine_cube_to_world
    )
    again = shape_from_array(read.occupancy, read.grid.affine, name="other", like=like)
    assert again.content_hash == shape.content_hash and again.frame.grid.spacing_mm.any()
    labelled = shape_from_array(np.where(read.occupancy, 3, 1), like=PrepareConfig(32, labels=(3,)))
    assert np.array_equal(restore(labelled).any((1, 2)), read.occupancy.any((1, 2)))


@pytest.mark.parametrize(
    ("array", "affine", "named"),
    [
        (np.zeros((4, 4, 4)), None, "is empty"),
        (np.ones((4, 4)), None, "2 axes"),
        (np.full((4, 4, 4), "organ"), None, "numbers"),
        (np.full((4, 4, 4), 0.5), None, "no whole numbers"),
        (np.full((4, 4, 4), -1), None, "negative"),
        (np.ones((4, 4, 4), bool), np.eye(3), "its affine one of"),
        (np.ones((4, 4, 4), bool), np.diag([0.0, 1, 1, 1]), "affine"),
    ],
)
def test_arrays_that_are_no_masks_are_refused(array, affine, named):
    with pytest.raises(InputError, match=named):
        shape_from_array(array, affine)
