"""Tests of implicit_atlas.store: a store is complete at every moment, notices what changed, and trusts nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from shape_masks import affine_of, ellipsoid_mask, save_mask

from implicit_atlas import manifest, preparation, shards
from implicit_atlas.errors import InputError
from implicit_atlas.files import lock_folder
from implicit_atlas.io import read_mask
from implicit_atlas.shapes import prepare, restore
from implicit_atlas.store import PrepareConfig, load_shapes, open_store, prepare_cases, prepare_folder

CONFIG = PrepareConfig(16)
NAMES = tuple(f"case_{i}" for i in range(8))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHAPES_PER_SHARD", 3)


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for i, name in enumerate(NAMES):
        affine = affine_of((1.0, 1.0, 1.0 + i / 4), (5 * i, 0, 0))
        save_mask(folder, name, ellipsoid_mask((20, 18, 16), (7 + i / 5, 6, 5), affine=affine))
    return folder


def same(first, second):
    assert [shape.name for shape in first] == [shape.name for shape in second]
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.packed, b.packed)
        assert a.frame.to_json() == b.frame.to_json()
        assert (a.content_hash, a.dtype, a.notes) == (b.content_hash, b.dtype, b.notes)


def rewrite_manifest(store, change, rehash=True):
    """Alter a manifest as someone who knows its format would."""
    path = store / "manifest.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest() if rehash else "0" * 64
    path.write_text(json.dumps(content))


def test_a_store_holds_what_prepare_gives(masks, tmp_path):
    report = prepare_folder(masks, tmp_path / "store", CONFIG)
    assert (report.prepared, report.reused, report.removed, report.quarantined) == (NAMES, (), (), ())
    store = open_store(tmp_path / "store")
    same(store, [prepare(read_mask(path), 16) for path in sorted(masks.iterdir())])
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
    same(open_store(store), prepare_cases(masks, CONFIG).shapes)
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
    same(open_store(tmp_path / "store"), prepare_cases(masks, config).shapes)


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


class KilledError(BaseException):
    """Stands for the end of the process."""


def writes_until_death(monkeypatch, count):
    """Let the first `count` changes to the store's files happen, and then kill the writer."""
    left = [count]

    def counted(function):
        def call(*args, **kwargs):
            if left[0] == 0:
                raise KilledError
            left[0] -= 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(shards, "write_atomic", counted(shards.write_atomic))
    monkeypatch.setattr(manifest, "write_atomic", counted(manifest.write_atomic))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))


@pytest.mark.parametrize("count", range(12))
def test_a_kill_at_any_write_leaves_a_sound_store(masks, tmp_path, count):
    store = tmp_path / "store"
    prepare_folder(masks, store, CONFIG)
    known = {shape.content_hash: shape.packed.tobytes() for shape in open_store(store)}
    for name in ("case_0", "case_4", "case_5", "case_7"):
        save_mask(masks, name, ellipsoid_mask((19, 19, 19), (6, 7, 8 - count / 10)))
    (masks / "case_1.nii.gz").unlink()
    fresh = prepare_cases(masks, CONFIG).shapes
    known |= {shape.content_hash: shape.packed.tobytes() for shape in fresh}
    with pytest.MonkeyPatch.context() as patch:
        writes_until_death(patch, count)
        try:
            prepare_folder(masks, store, CONFIG)
        except KilledError:
            pass
    for shape in open_store(store):
        assert shape.packed.tobytes() == known[shape.content_hash]
    prepare_folder(masks, store, CONFIG)
    same(open_store(store), fresh)
    assert sum(path.stat().st_size for path in store.glob("shard-*.bits")) == 7 * 16**3 // 8


def test_a_kill_in_the_first_run_loses_at_most_one_shard(masks, tmp_path):
    store = tmp_path / "store"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        writes_until_death(patch, 5)  # two shards with their manifests, and the third shard
        prepare_folder(masks, store, CONFIG)
    assert open_store(store).names == NAMES[:6]
    report = prepare_folder(masks, store, CONFIG)
    assert (report.reused, report.prepared) == (NAMES[:6], NAMES[6:])


def test_what_a_killed_writer_left_is_removed(masks, tmp_path):
    store = tmp_path / "store"
    (store / ".abc.partial").mkdir(parents=True)
    (store / ".abc.partial" / "shard-0.bits").write_bytes(b"half")
    (store / "shard-0123456789abcdef.bits").write_bytes(b"no manifest")
    prepare_folder(masks, store, CONFIG)
    assert sorted(path.suffix for path in store.iterdir()) == ["", ".bits", ".bits", ".bits", ".json"]


def test_damaged_bits_are_noticed_and_repaired(masks, tmp_path):
    store = tmp_path / "store"
    prepare_folder(masks, store, CONFIG)
    fresh = [shape.packed.copy() for shape in open_store(store)]
    shard = min(store.glob("shard-*.bits"))
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        list(open_store(store))
    assert len(prepare_folder(masks, store, CONFIG).prepared) == 1
    assert all(
        np.array_equal(shape.packed, bits) for shape, bits in zip(open_store(store), fresh, strict=True)
    )
    min(store.glob("shard-*.bits")).write_bytes(data[:-1])
    with pytest.raises(InputError, match="bytes, not"):
        open_store(store)
    prepare_folder(masks, store, CONFIG)
    min(store.glob("shard-*.bits")).unlink()
    with pytest.raises(InputError, match="is missing"):
        open_store(store)
    prepare_folder(masks, store, CONFIG)
    assert open_store(store).names == NAMES


def test_a_manifest_altered_by_one_character_is_refused(masks, tmp_path):
    store = tmp_path / "store"
    prepare_folder(masks, store, CONFIG)
    text = (store / "manifest.json").read_text()
    start = text.index('"start"')
    digit = next(i for i in range(start, len(text)) if text[i].isdigit())
    (store / "manifest.json").write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    with pytest.raises(InputError, match="altered or is damaged"):
        open_store(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(schema_version=2), "schema version 2"),
        (lambda content: content.update(schema_version="1"), "no manifest of a shape store"),
        (lambda content: content.update(format="other"), "no manifest of a shape store"),
        (lambda content: content.update(extra=1), "'extra' is unknown"),
        (lambda content: content.pop("shapes"), "'shapes' is missing"),
        (lambda content: content["parameters"].update(spacing=1), "spacing' is unknown"),
        (lambda content: content["parameters"].update(resolution=1 << 20), "out of range"),
        (lambda content: content["shapes"][0].update(colour="red"), "colour' is unknown"),
        (lambda content: content["shapes"][0].pop("dtype"), "dtype' is missing"),
        (lambda content: content["shapes"][0].update(source="../../secret.nii"), "leads out of the folder"),
        (lambda content: content["shapes"][0].update(source="/secret.nii"), "leads out of the folder"),
        (lambda content: content["shapes"][0].update(source_sha256="x"), "is no sha256"),
        (lambda content: content["shapes"][0].update(offset=-512), "lies outside its shard"),
        (lambda content: content["shapes"][0].update(offset=7), "lies outside its shard"),
        (lambda content: content["shapes"][0].update(offset=1 << 60), "lies outside its shard"),
        (lambda content: content["shapes"][0].update(shard="other"), "lies outside its shard"),
        (lambda content: content["shapes"][0].update(name="case_1"), "hold a name twice"),
        (
            lambda content: content["shapes"][0]["frame"].update(step=[0.0, 1.0, 1.0]),
            "three positive numbers",
        ),
        (lambda content: content["shapes"][0]["frame"].update(resolution=24), "another resolution"),
        (
            lambda content: content["shard_bytes"].update({"../shard-0123456789abcdef.bits": 9}),
            "no name of a shard",
        ),
    ],
)
def test_manifests_that_cannot_be_are_refused(masks, tmp_path, change, message):
    store = tmp_path / "store"
    prepare_folder(masks, store, CONFIG)
    rewrite_manifest(store, change)
    with pytest.raises(InputError, match=r"manifest\.json") as raised:
        open_store(store)
    assert message in str(raised.value)
    if "no manifest" not in message:
        # A writer must not overwrite what it does not understand.
        before = (store / "manifest.json").read_bytes()
        with pytest.raises(InputError):
            prepare_folder(masks, store, CONFIG)
        assert (store / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', "[" * 100_000, "\xff"])
def test_manifests_that_are_no_json_are_refused(masks, tmp_path, text):
    prepare_folder(masks, tmp_path / "store", CONFIG)
    (tmp_path / "store" / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest\.json"):
        load_shapes(tmp_path / "store")


def test_a_store_in_use_is_left_alone(masks, tmp_path):
    (tmp_path / "store").mkdir()
    with lock_folder(tmp_path / "store"), pytest.raises(InputError, match="in use"):
        prepare_folder(masks, tmp_path / "store", CONFIG)


def test_two_processes_on_one_store(masks, tmp_path):
    code = (
        "import sys; from implicit_atlas.store import *\n"
        "try: prepare_folder(sys.argv[1], sys.argv[2], PrepareConfig(16))\n"
        "except Exception as error: sys.exit(f'{type(error).__name__} {error}')"
    )
    command = [sys.executable, "-c", code, str(masks), str(tmp_path / "store")]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [(run.communicate()[1], run.returncode) for run in runs]
    assert any(code == 0 for _, code in results)
    assert all(code == 0 or ("InputError" in text and "in use" in text) for text, code in results)
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


def test_two_processes_prepare_what_one_does(masks, tmp_path, monkeypatch):
    alone = prepare_cases(masks, CONFIG, workers=1)
    monkeypatch.setattr(preparation, "START_SECONDS", 0.0)
    (masks / "bad.nii.gz").write_bytes(b"bad")
    together = prepare_cases(masks, CONFIG, workers=2)
    same(together.shapes, alone.shapes)
    assert [problem.name for problem in together.problems] == ["bad"]


def test_load_shapes_takes_stores_folders_files_and_lists(masks, tmp_path):
    prepare_folder(masks, tmp_path / "store", CONFIG)
    from_store = load_shapes(tmp_path / "store")
    same(from_store, load_shapes(masks, resolution=16))
    same(from_store[2:3], load_shapes(str(masks / "case_2.nii.gz"), resolution=16))
    same(from_store[:2], load_shapes([masks / "case_0.nii.gz", masks / "case_1.nii.gz"], resolution=16))
    same(from_store, load_shapes(masks, resolution=16, cache=tmp_path / "cache"))
    same(from_store, open_store(tmp_path / "cache"))


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
    same(whole, load_shapes(masks, (6, 3), 16))
