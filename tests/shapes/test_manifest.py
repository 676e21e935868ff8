"""Tests of implicit_atlas.shapes.manifest: what was altered or cannot be is refused by name."""

from __future__ import annotations

import hashlib
import json

import pytest

from implicit_atlas.errors import InputError
from implicit_atlas.shapes.store import PrepareConfig, load_shapes, open_store, prepare_folder

CONFIG = PrepareConfig(16)


def rewrite_manifest(store, change, rehash=True):
    """Alter a manifest as someone who knows its format would."""
    path = store / "manifest.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest() if rehash else "0" * 64
    path.write_text(json.dumps(content))


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
