"""Tests of implicit_atlas.shapes.shards: killed at any write or damaged, a store is sound or says what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shape_masks import NAMES, assert_same_shapes, ellipsoid_mask, save_mask

from implicit_atlas.errors import InputError
from implicit_atlas.shapes import manifest, shards
from implicit_atlas.shapes.store import PrepareConfig, open_store, prepare_cases, prepare_folder

CONFIG = PrepareConfig(16)


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
    assert_same_shapes(open_store(store), fresh)
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
    # Opened before the damage, because the type checker of the tests reads a random shape of what is returned.
    opened = open_store(store)
    fresh = [shape.packed.copy() for shape in opened]
    shard = min(store.glob("shard-*.bits"))
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        list(opened)
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
