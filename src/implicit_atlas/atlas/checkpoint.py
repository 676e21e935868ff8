"""The model folder `*.atlas/`: JSON and safetensors with hashes, all of it checked on load."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from implicit_atlas.errors import InputError
from implicit_atlas.support.files import WRITE_REMEDY
from implicit_atlas.support.folders import leftovers, replace_folder
from implicit_atlas.support.records import dump_json, from_json, parse_json
from implicit_atlas.support.tensors import TensorSpec, encode_tensors, read_tensors

SCHEMA_VERSION = 7


def _from_schema_1(config: dict[str, Any]) -> dict[str, Any]:
    """Deformations were all additive, and templates had the plain field's decoder."""
    model = config["model"]
    return {**config, "model": {**model, "motion": "additive", "template": model["conv"]}}


def _from_schema_2(config: dict[str, Any]) -> dict[str, Any]:
    """There were no modes."""
    return {**config, "model": {**config["model"], "modes": 0}}


def _from_schema_3(config: dict[str, Any]) -> dict[str, Any] | None:
    """Modes were read at points of the shape, by other weights; atlases without them are the same."""
    return config if config["model"]["modes"] == 0 else None


def _from_schema_4(config: dict[str, Any]) -> dict[str, Any]:
    """Large weights were in single precision."""
    return {**config, "large_halves": False}


def _from_schema_5(config: dict[str, Any]) -> dict[str, Any]:
    """Only the mean size of the training shapes was kept."""
    mean = config.get("size_mm")
    return {**{key: value for key, value in config.items() if key != "size_mm"}, "sizes_mm": [mean]}


def _from_schema_6(config: dict[str, Any]) -> dict[str, Any]:
    """Modes had the normals of one surface for all templates, and the prior of codes was that of one cluster."""
    return {**config, "each_template": False}


Migration = Callable[[dict[str, Any]], dict[str, Any] | None]
MIGRATIONS: Mapping[int, Migration] = {
    1: _from_schema_1,
    2: _from_schema_2,
    3: _from_schema_3,
    4: _from_schema_4,
    5: _from_schema_5,
    6: _from_schema_6,
}
"""From schema n, what turns its config into that of schema n + 1, or None where that cannot be.

An older schema without one is refused.
"""

CONFIG, MANIFEST, CARD = "config.json", "manifest.json", "README.md"
WEIGHTS, CODES = "weights.safetensors", "codes.safetensors"
REQUIRED_FILES = (CONFIG, WEIGHTS, CARD)
MODEL_FILES = (*REQUIRED_FILES, CODES, MANIFEST)
MAX_TEXT_BYTES = 64 << 20
REMEDY = "Copy the whole model folder again from where it came, or train the model again."

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Hex SHA-256 of each file, and where the model comes from (content hashes of the training data)."""

    files: dict[str, str]
    provenance: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Expected:
    """Exact names, shapes and dtypes that the tensors of a model must have."""

    weights: Mapping[str, TensorSpec]
    codes: Mapping[str, TensorSpec]


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A checked model folder; `codes` is None where the training codes were left out."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    codes: dict[str, Tensor] | None
    card: str
    manifest: Manifest


def is_model(path: Path) -> bool:
    """True for a folder that holds a model, complete or not."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def save_folder(
    path: str | Path,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    codes: Mapping[str, Tensor] | None,
    card: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write a model folder, or replace one as a whole; killed at any point, a complete model is there.

    Files of the user's own in a replaced folder are kept.

    Args:
        path: the folder, `*.atlas` by convention; missing parents are created.
        config: JSON values from which the model is built; `schema_version` is added to them.
        weights: finite tensors by name.
        codes: the training codes by name, or None to leave them out.
        card: Markdown text of the model card.
        provenance: JSON values for the manifest: content hashes of the training data, program version.

    Raises:
        InputError: the folder cannot be written, or holds something else than a model.
        TrainingError: a tensor is not finite. In both cases the earlier model is kept.
    """
    if "schema_version" in config:
        raise ValueError("schema_version is added by save_folder")
    contents = {
        CONFIG: dump_json({"schema_version": SCHEMA_VERSION, **config}),
        WEIGHTS: encode_tensors(weights),
        CARD: card.encode(errors="backslashreplace"),
    }
    if codes is not None:
        contents[CODES] = encode_tensors(codes)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents[MANIFEST] = dump_json(dataclasses.asdict(Manifest(hashes, dict(provenance))))
    target = _resolve(path)
    try:
        refuse_foreign(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(target, contents, MODEL_FILES)
    except OSError as error:
        raise InputError(target, f"cannot be written ({error.strerror or error})", WRITE_REMEDY) from error


def load_folder(path: str | Path, expected: Expected | Callable[[dict[str, Any]], Expected]) -> ModelFolder:
    """Read a model folder and check all that it claims, before any of it is used.

    Where a save was killed between its two renames, the earlier model is read from where that save put it.
    Unknown files in the folder are ignored.

    Args:
        path: the folder.
        expected: the tensors that the model must have, or a function that says so from the config.

    Raises:
        InputError: a file is missing, cut or altered; a tensor is missing, too many, not finite, or of
            another shape or dtype; the schema is newer than this program, or too old for it.
    """
    target = _resolve(path)
    for _ in range(3):
        before = _identity(target)
        try:
            return _load(_find_folder(target), expected)
        except InputError:
            # Another process may have replaced the model while it was read; the new one is then read instead.
            if _identity(target) == before:
                raise
    raise InputError(path, "is replaced again and again while it is read", "Wait until the training ends.")


def _load(folder: Path, expected: Expected | Callable[[dict[str, Any]], Expected]) -> ModelFolder:
    config_bytes = _read_bytes(folder / CONFIG)
    config = parse_json(config_bytes, folder / CONFIG, REMEDY)
    version = _checked_version(config.pop("schema_version", None), folder)
    manifest = _read_manifest(folder)
    _check_digest(folder / CONFIG, config_bytes, manifest)
    card = _read_bytes(folder / CARD)  # its owner may have filled it in
    for old in range(version, SCHEMA_VERSION):
        migrated = MIGRATIONS[old](config)
        if migrated is None:
            raise _too_old(version, folder)
        config = migrated
    specs = expected(config) if callable(expected) else expected
    weights = read_tensors(folder / WEIGHTS, specs.weights, manifest.files[WEIGHTS], REMEDY)
    codes = None
    if CODES in manifest.files:
        codes = read_tensors(folder / CODES, specs.codes, manifest.files[CODES], REMEDY)
    return ModelFolder(config, weights, codes, card.decode("utf-8", errors="replace"), manifest)


def _checked_version(version: object, folder: Path) -> int:
    if type(version) is not int:
        raise InputError(folder / CONFIG, "has no schema_version", REMEDY)
    if version > SCHEMA_VERSION:
        problem = f"is of schema {version}, this program reads up to {SCHEMA_VERSION}"
        raise InputError(folder, problem, "Update implicit-atlas (pip install --upgrade implicit-atlas).")
    if any(old not in MIGRATIONS for old in range(version, SCHEMA_VERSION)):
        raise _too_old(version, folder)
    return version


def _too_old(version: int, folder: Path) -> InputError:
    problem = f"is of schema {version}, which this program no longer reads"
    return InputError(folder, problem, "Use the version of implicit-atlas that wrote it, or train again.")


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    manifest = from_json(Manifest, parse_json(_read_bytes(path), path, REMEDY), path, REMEDY)
    unknown = set(manifest.files) - {*REQUIRED_FILES, CODES}
    if unknown:
        raise InputError(path, f"lists {min(unknown)!r}, which is no part of a model", REMEDY)
    for name in REQUIRED_FILES:
        if name not in manifest.files:
            raise InputError(path, f"does not list {name}", REMEDY)
    if CODES not in manifest.files and (folder / CODES).exists():
        raise InputError(
            folder / CODES, "is not listed in the manifest", "Remove it, or copy the model again."
        )
    return manifest


def _check_digest(path: Path, data: bytes, manifest: Manifest) -> None:
    if hashlib.sha256(data).hexdigest() != manifest.files[path.name]:
        raise InputError(path, "was altered after it was written (its SHA-256 differs)", REMEDY)


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError(path, "is missing", REMEDY)
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise InputError(path, f"is larger than {MAX_TEXT_BYTES} bytes", REMEDY)
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})", REMEDY) from error


def _resolve(path: str | Path) -> Path:
    """The folder itself, where the path is a link to it: that folder is what a save renames."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise RuntimeError for a loop of links
        raise InputError(path, f"cannot be followed ({error})", "Give the path of a folder.") from error


def _find_folder(target: Path) -> Path:
    remedy = "Give the folder that the training wrote (*.atlas)."
    if target.is_dir():
        return target
    if target.exists():
        raise InputError(target, "is not a model folder", remedy)
    previous = leftovers(target, "previous")
    if previous:
        _log.warning("%s: a save was interrupted; the earlier model is read from %s", target, previous[0])
        return previous[0]
    raise InputError(target, "does not exist", remedy)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def refuse_foreign(target: Path) -> None:
    """Refuse a path for a model where something else lies.

    Raises:
        InputError: a file, or a folder with other files.
    """
    remedy = "Choose another path for the model."
    if target.is_dir():
        if any(target.iterdir()) and not ((target / CONFIG).is_file() and (target / WEIGHTS).is_file()):
            raise InputError(target, "is a folder with other files and no model", remedy)
    elif target.exists():
        raise InputError(target, "is a file, a model is a folder", remedy)
