"""Model folders: round trip, every kind of damage, and a crash at every step of a save."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from implicit_atlas.atlas import checkpoint
from implicit_atlas.atlas.checkpoint import Expected, load_folder, save_folder
from implicit_atlas.errors import InputError, TrainingError
from implicit_atlas.support.tensors import specs_of

CONFIG = {"method": "implicit-atlas", "channels": [8, 4], "jitter": 0.5}
PROVENANCE = {"shapes": {"case_1": "ab" * 32}}


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"head.weight": torch.full((3, 2), value), "steps": torch.tensor(7)}


def codes(value: float) -> dict[str, torch.Tensor]:
    return {"codes": torch.full((5, 4), value)}


EXPECTED = Expected(specs_of(weights(0.0)), specs_of(codes(0.0)))


def save(path: Path, value: float = 1.0, with_codes: bool = True) -> Path:
    save_folder(path, CONFIG, weights(value), codes(value) if with_codes else None, "# Card\n", PROVENANCE)
    return path


def value_of(path: Path) -> float:
    """The value that the folder was saved with; weights and codes must agree."""
    model = load_folder(path, EXPECTED)
    assert model.codes is not None
    values = {*model.weights["head.weight"].flatten().tolist(), *model.codes["codes"].flatten().tolist()}
    assert len(values) == 1
    return values.pop()


def names_beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "organ.atlas")


def refresh_hashes(folder: Path) -> None:
    """Make the manifest agree with the files, as someone who alters a model on purpose would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


class TestRoundTrip:
    def test_returns_what_was_saved(self, model: Path) -> None:
        loaded = load_folder(model, EXPECTED)
        assert loaded.config == CONFIG
        assert loaded.card == "# Card\n"
        assert loaded.manifest.provenance == PROVENANCE
        assert set(loaded.manifest.files) == {entry.name for entry in model.iterdir()} - {"manifest.json"}
        assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in weights(1.0).items())

    def test_codes_are_optional(self, tmp_path: Path) -> None:
        assert load_folder(save(tmp_path / "m.atlas", with_codes=False), EXPECTED).codes is None

    def test_expectation_may_come_from_the_config(self, model: Path) -> None:
        seen: list[object] = []

        def expected(config: dict) -> Expected:
            seen.append(config["channels"])
            return EXPECTED

        load_folder(model, expected)
        assert seen == [[8, 4]]

    def test_same_content_gives_the_same_bytes(self, tmp_path: Path) -> None:
        one, two = save(tmp_path / "one.atlas"), save(tmp_path / "two.atlas")
        assert all((two / entry.name).read_bytes() == entry.read_bytes() for entry in one.iterdir())

    def test_new_folder_replaces_the_old_one_and_nothing_is_left_beside_it(self, model: Path) -> None:
        save(model, 2.0, with_codes=False)
        assert load_folder(model, EXPECTED).codes is None
        assert names_beside(model) == ["organ.atlas"]

    def test_own_files_of_the_user_survive_a_replacement(self, model: Path) -> None:
        (model / "notes.txt").write_text("mine")
        assert value_of(save(model, 2.0)) == 2.0
        assert (model / "notes.txt").read_text() == "mine"

    def test_link_to_a_folder_stays_a_link(self, model: Path, tmp_path: Path) -> None:
        link = tmp_path / "latest.atlas"
        link.symlink_to(model)
        save(link, 2.0)
        assert link.is_symlink()
        assert value_of(model) == 2.0

    def test_parents_are_created_and_names_may_be_odd(self, tmp_path: Path) -> None:
        assert value_of(save(tmp_path / "a b" / "größe\n[1]*.atlas", 3.0)) == 3.0


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 16)


class TestDamage:
    @pytest.mark.parametrize("name", checkpoint.MODEL_FILES)
    @pytest.mark.parametrize("damage", [truncate, append, Path.unlink])
    def test_every_file_is_checked(self, model: Path, name: str, damage: Callable[[Path], None]) -> None:
        damage(model / name)
        if name != checkpoint.CARD or damage is Path.unlink:  # a card may be edited
            with pytest.raises(InputError, match=name.replace(".", r"\.")):
                load_folder(model, EXPECTED)

    @pytest.mark.parametrize("name", sorted({*checkpoint.MODEL_FILES} - {"manifest.json", checkpoint.CARD}))
    def test_every_bit_flip_is_found(self, model: Path, name: str) -> None:
        original = (model / name).read_bytes()
        choice = random.Random(0)
        for _ in range(30):
            data = bytearray(original)
            data[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
            (model / name).write_bytes(data)
            with pytest.raises(InputError):
                load_folder(model, EXPECTED)

    @pytest.mark.parametrize("name", checkpoint.MODEL_FILES)
    def test_a_folder_or_pipe_in_place_of_a_file_is_refused(self, model: Path, name: str) -> None:
        (model / name).unlink()
        (model / name).mkdir()
        with pytest.raises(InputError, match="is missing"):
            load_folder(model, EXPECTED)
        (model / name).rmdir()
        os.mkfifo(model / name)
        with pytest.raises(InputError, match="is missing"):
            load_folder(model, EXPECTED)

    def test_extra_files_are_ignored(self, model: Path) -> None:
        (model / ".DS_Store").write_bytes(b"\0")
        assert value_of(model) == 1.0

    def test_codes_that_the_manifest_does_not_list_are_refused(self, model: Path, tmp_path: Path) -> None:
        other = save(tmp_path / "other.atlas", with_codes=False)
        shutil.copy(model / "codes.safetensors", other)
        with pytest.raises(InputError, match="not listed"):
            load_folder(other, EXPECTED)

    @pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "notes.txt"])
    def test_manifest_lists_only_files_of_a_model(self, model: Path, name: str) -> None:
        manifest = json.loads((model / "manifest.json").read_text())
        manifest["files"][name] = "0" * 64
        (model / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match="no part of a model"):
            load_folder(model, EXPECTED)

    def test_unknown_key_in_the_manifest_is_refused(self, model: Path) -> None:
        manifest = json.loads((model / "manifest.json").read_text())
        (model / "manifest.json").write_text(json.dumps({**manifest, "extra": 1}))
        with pytest.raises(InputError, match="'extra' is unknown"):
            load_folder(model, EXPECTED)

    @pytest.mark.parametrize(
        ("tensors", "problem"),
        [
            ({**weights(1.0), "extra": torch.zeros(1)}, "1 too many"),
            ({"steps": torch.tensor(7)}, "1 missing"),
            ({**weights(1.0), "head.weight": torch.zeros(2, 3)}, "shape"),
            ({**weights(1.0), "head.weight": torch.zeros(3, 2).double()}, "float64"),
        ],
    )
    def test_other_tensors_are_refused(self, tmp_path: Path, tensors: dict, problem: str) -> None:
        save_folder(tmp_path / "m.atlas", CONFIG, tensors, None, "", {})
        with pytest.raises(InputError, match=problem):
            load_folder(tmp_path / "m.atlas", EXPECTED)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite_are_refused_though_the_hash_fits(
        self, model: Path, value: float
    ) -> None:
        path = model / "weights.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[:-4] + struct.pack("<f", value))
        refresh_hashes(model)
        with pytest.raises(InputError, match="NaN or infinite"):
            load_folder(model, EXPECTED)

    def test_values_that_are_not_finite_are_not_saved_over_a_good_model(self, model: Path) -> None:
        with pytest.raises(TrainingError, match=r"head\.weight"):
            save(model, float("nan"))
        assert value_of(model) == 1.0

    @pytest.mark.parametrize(
        ("version", "problem"), [(99, "schema 99"), (0, "no longer"), ("1", "schema_version")]
    )
    def test_another_schema_is_refused(self, model: Path, version: object, problem: str) -> None:
        (model / "config.json").write_text(json.dumps({**CONFIG, "schema_version": version}))
        refresh_hashes(model)
        with pytest.raises(InputError, match=problem):
            load_folder(model, EXPECTED)

    def test_older_schema_is_migrated(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def rename_jitter(config: dict) -> dict:
            return {**config, "noise": config["jitter"]}

        (model / "config.json").write_text(json.dumps({**CONFIG, "schema_version": 0}))
        refresh_hashes(model)
        monkeypatch.setattr(checkpoint, "MIGRATIONS", {0: rename_jitter})
        monkeypatch.setattr(checkpoint, "SCHEMA_VERSION", 1)
        assert load_folder(model, EXPECTED).config["noise"] == 0.5

    def test_config_that_cannot_be_read_back_is_not_written(self, model: Path) -> None:
        with pytest.raises(ValueError, match="JSON"):
            save_folder(model, {"jitter": float("inf")}, weights(2.0), None, "", {})
        with pytest.raises(ValueError, match="schema_version"):
            save_folder(model, {"schema_version": 3}, weights(2.0), None, "", {})
        assert value_of(model) == 1.0


class TestPaths:
    def test_missing_model(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            load_folder(tmp_path / "no.atlas", EXPECTED)

    def test_file_in_place_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "m.atlas").write_text("text")
        with pytest.raises(InputError, match="not a model folder"):
            load_folder(tmp_path / "m.atlas", EXPECTED)
        with pytest.raises(InputError, match="is a file"):
            save(tmp_path / "m.atlas")

    def test_folder_with_other_files_is_never_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "manifest.json").write_text("{}")
        with pytest.raises(InputError, match="other files"):
            save(tmp_path / "photos")
        assert names_beside(tmp_path / "photos" / "manifest.json") == ["manifest.json"]

    def test_loop_of_links(self, tmp_path: Path) -> None:
        (tmp_path / "a.atlas").symlink_to(tmp_path / "b.atlas")
        (tmp_path / "b.atlas").symlink_to(tmp_path / "a.atlas")
        with pytest.raises(InputError):
            load_folder(tmp_path / "a.atlas", EXPECTED)
        with pytest.raises(InputError):
            save(tmp_path / "a.atlas")

    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")]
    )
    def test_failed_write_keeps_the_old_model(
        self, model: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: Path, data: bytes) -> int:
            raise error

        monkeypatch.setattr(Path, "write_bytes", fail)
        with pytest.raises(InputError, match=error.strerror):
            save(model, 2.0)
        monkeypatch.undo()
        assert value_of(model) == 1.0
        assert names_beside(model) == ["organ.atlas"]


class TestInterruptedSave:
    def test_earlier_model_is_read_from_where_the_save_put_it(
        self, model: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model.rename(model.with_name("organ.atlas.previous-12ab"))
        assert value_of(model) == 1.0
        assert "interrupted" in caplog.text
        assert value_of(save(model, 2.0)) == 2.0
        assert names_beside(model) == ["organ.atlas"]

    def test_model_replaced_while_it_is_read_is_read_anew(self, model: Path) -> None:
        calls = []

        def expected(config: dict) -> Expected:
            calls.append(config)
            if len(calls) == 1:
                save(model, 2.0)
            return EXPECTED

        assert load_folder(model, expected).weights["head.weight"][0, 0] == 2.0 and len(calls) == 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to start a writer quickly")
    def test_killed_writer_leaves_a_whole_model(self, model: Path) -> None:
        choice = random.Random(1)
        for _ in range(6):
            writer = multiprocessing.get_context("fork").Process(target=save_forever, args=(model,))
            writer.start()
            time.sleep(choice.uniform(0.0, 0.05))
            writer.kill()
            writer.join()
            assert value_of(model) in (1.0, 2.0, 3.0)
        save(model, 4.0)
        assert names_beside(model) == ["organ.atlas"]


def save_forever(path: Path) -> None:
    torch.set_num_threads(1)
    while True:
        save(path, 2.0)
        save(path, 3.0)
