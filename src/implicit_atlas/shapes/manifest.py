"""The manifest of a shape store: what was prepared, from which bytes, how, and where its bits are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Frame, FrameKind, check_frame_options
from implicit_atlas.io import Mask
from implicit_atlas.io.labels import check_label_ids
from implicit_atlas.shapes.shape import Shape, packed_size, prepare
from implicit_atlas.support import records
from implicit_atlas.support.files import write_atomic

FORMAT = "implicit-atlas shape store"
SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SHARD_PATTERN = "shard-*.bits"
STORE_REMEDY = "Delete the folder and prepare the masks again."

_SHARD_NAME = re.compile(r"shard-[0-9a-f]{16}\.bits")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PrepareConfig:
    """How masks become shapes.

    Args:
        resolution: nodes along each axis of the cube.
        margin: empty border, as a fraction of the organ's box, added on each side.
        kind: "box" (the paper's) or "isotropic" (proportions kept).
        labels: label ids that make the organ; empty for everything above 0.

    Raises:
        InputError: an option out of range.
    """

    resolution: int = 128
    margin: float = 0.0
    kind: FrameKind = "box"
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", float(self.margin))
        object.__setattr__(self, "labels", tuple(sorted({int(label) for label in self.labels})))
        check_frame_options(self.resolution, self.margin, self.kind)
        check_label_ids(self.labels)

    def shape_of(self, mask: Mask, name: str | None = None, content_hash: str | None = None) -> Shape:
        """A mask as such a shape; see `shapes.prepare`.

        Raises:
            InputError: an empty mask, or an organ too thin to survive at this resolution.
        """
        shape = prepare(mask, self.resolution, self.margin, self.kind, name, content_hash)
        return replace(shape, labels=self.labels)


@dataclass(frozen=True)
class Entry:
    """One shape of a store.

    Args:
        name: the case's name, unique in the store.
        source: the mask file, relative to the folder that was prepared, with forward slashes.
        source_sha256: hash of the mask file (`shapes.hash_source`).
        packed_sha256: hash of the packed bits.
        dtype: name of the voxel type in the mask file.
        notes: repairs made and doubts found while the mask was read.
        shard: name of the file with the bits.
        offset: first byte of the bits in it.
        frame: where the cube lies (`Frame.to_json`).

    Raises:
        InputError: a hash that is none, or a source that leads out of its folder.
    """

    name: str
    source: str
    source_sha256: str
    packed_sha256: str
    dtype: str
    notes: tuple[str, ...]
    shard: str
    offset: int
    frame: dict[str, Any]

    def __post_init__(self) -> None:
        source = PurePosixPath(self.source)
        if source.is_absolute() or ".." in source.parts:
            raise InputError(self.name, f"source '{source}' leads out of the folder", STORE_REMEDY)
        for digest in (self.source_sha256, self.packed_sha256):
            if not _SHA256.fullmatch(digest):
                raise InputError(self.name, f"'{digest}' is no sha256", STORE_REMEDY)


@dataclass(frozen=True)
class Manifest:
    """A store's shapes in order, how they were prepared, and the size of every shard in bytes.

    Raises:
        InputError: a shard that is no file of the store, a shape outside its shard, or a name twice.
    """

    parameters: PrepareConfig
    shard_bytes: dict[str, int]
    shapes: tuple[Entry, ...]

    def __post_init__(self) -> None:
        for name in self.shard_bytes:
            # A plain name of the store's own pattern cannot lead out of the folder.
            if not _SHARD_NAME.fullmatch(name):
                raise InputError(name, "is no name of a shard", STORE_REMEDY)
        size = packed_size(self.parameters.resolution)
        for entry in self.shapes:
            end = entry.offset + size
            if entry.offset < 0 or entry.offset % size or end > self.shard_bytes.get(entry.shard, 0):
                raise InputError(entry.name, f"lies outside its shard '{entry.shard}'", STORE_REMEDY)
        if len({entry.name for entry in self.shapes}) != len(self.shapes):
            raise InputError("shapes", "hold a name twice", STORE_REMEDY)


def is_store(folder: Path) -> bool:
    """Whether a folder is a shape store, sound or not."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return FORMAT.encode() in stream.read(4096) or any(folder.glob(SHARD_PATTERN))
    except OSError:
        return True  # Reading it then says what is wrong with it.


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a store's manifest, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    content = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(manifest)}
    content["sha256"] = _hash(content)
    write_atomic(folder / MANIFEST_NAME, json.dumps(content, indent=1).encode())


def read_manifest(folder: Path) -> Manifest:
    """Read a store's manifest and check every field of it.

    Raises:
        InputError: it is missing, damaged, altered, of a newer version, or names files outside the folder.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise InputError(path, problem, "Give a folder that `prepare` wrote.") from error
    content = records.parse_json(data, path, STORE_REMEDY)
    version = content.pop("schema_version", None)
    if content.pop("format", None) != FORMAT or type(version) is not int:
        raise InputError(path, "is no manifest of a shape store", "Give a folder that `prepare` wrote.")
    if version != SCHEMA_VERSION:
        problem = f"has schema version {version}, and this version reads {SCHEMA_VERSION}"
        raise InputError(path, problem, "Update implicit-atlas, or prepare the masks again.")
    stated = content.pop("sha256", None)
    manifest = records.from_json(Manifest, content, path, STORE_REMEDY)
    if stated != _hash({"format": FORMAT, "schema_version": version, **content}):
        raise InputError(path, "was altered or is damaged (its hash differs)", STORE_REMEDY)
    for entry in manifest.shapes:
        if Frame.from_json(entry.frame, path).resolution != manifest.parameters.resolution:
            raise InputError(path, f"'{entry.name}' has another resolution", STORE_REMEDY)
    return manifest


def _hash(content: Mapping[str, Any]) -> str:
    """Hash JSON values, however they are laid out in a file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
