"""The bits of a shape store: shard files that are never changed, only written, referred to and removed."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from implicit_atlas.errors import InputError
from implicit_atlas.shapes.manifest import SHARD_PATTERN, Entry, Manifest, PrepareConfig, write_manifest
from implicit_atlas.shapes.shape import Shape, packed_size
from implicit_atlas.support.files import PARTIAL_PATTERN, write_atomic

SHAPES_PER_SHARD = 64
BITS_REMEDY = "Prepare the masks again into the same folder: what is damaged is then replaced."


class ShardReader:
    """Reads a store's bits through memory maps, each shard opened when it is first needed."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._shard_bytes = manifest.shard_bytes
        self._shape_bytes = packed_size(manifest.parameters.resolution)
        self._maps: dict[str, np.memmap] = {}

    def check_sizes(self) -> None:
        """Check that every shard is there, with its size.

        Raises:
            InputError: naming the shard.
        """
        for name in self._shard_bytes:
            self._check_size(name)

    def packed(self, entry: Entry) -> UInt8[np.ndarray, " bytes"]:
        """Return a shape's bits, checked against their hash.

        Raises:
            InputError: the shard is missing or damaged.
        """
        if entry.shard not in self._maps:
            self._check_size(entry.shard)
            self._maps[entry.shard] = np.memmap(self._folder / entry.shard, np.uint8, "r")
        packed = self._maps[entry.shard][entry.offset : entry.offset + self._shape_bytes]
        if hashlib.sha256(packed.tobytes()).hexdigest() != entry.packed_sha256:
            raise InputError(
                self._folder / entry.shard, f"the bits of '{entry.name}' are damaged", BITS_REMEDY
            )
        return packed

    def _check_size(self, name: str) -> None:
        path = self._folder / name
        if not path.is_file():
            raise InputError(path, "is missing", BITS_REMEDY)
        size, expected = path.stat().st_size, self._shard_bytes[name]
        if size != expected:
            raise InputError(path, f"has {size} bytes, not {expected}", BITS_REMEDY)


class StoreWriter:
    """Brings a store up to date; at every moment the folder holds a complete store of what was committed.

    New shapes go to new shards, a full shard is committed by a new manifest, and only then are shards that
    nothing refers to removed.
    """

    def __init__(
        self,
        folder: Path,
        config: PrepareConfig,
        before: Manifest | None,
        kept: Mapping[str, Entry],
        order: Sequence[str],
    ) -> None:
        """Start from a store as it is.

        Args:
            folder: the store's folder, locked by the caller.
            config: how its shapes are prepared.
            before: its manifest, if it has one.
            kept: the entries of `before` that stay, by name.
            order: names of all shapes that may be there in the end.
        """
        self._folder, self._config, self._order = folder, config, order
        self._committed = before
        self._shard_bytes = dict(before.shard_bytes) if before else {}
        self._entries = dict(kept)
        self._waiting: list[tuple[Entry, bytes]] = []

    def put(self, shape: Shape, source: str) -> None:
        """Add a shape, or replace the one of its name; `source` is its file relative to the input folder."""
        entry = Entry(
            name=shape.name,
            source=source,
            source_sha256=shape.content_hash,
            packed_sha256=hashlib.sha256(shape.packed.tobytes()).hexdigest(),
            dtype=shape.dtype,
            notes=shape.notes,
            shard="",
            offset=0,
            frame=shape.frame.to_json(),
        )
        self._wait(entry, shape.packed.tobytes())

    def keep(self, name: str, source: str) -> None:
        """Keep a shape whose file did not change; the file may have another path now."""
        self._entries[name] = replace(self._entries[name], source=source)

    def drop(self, name: str) -> None:
        """Remove a shape, if it is there."""
        self._entries.pop(name, None)

    def finish(self) -> None:
        """Commit everything, with all shards full but one."""
        for entry, _ in self._waiting:
            self._entries.pop(entry.name, None)
        loose = self._loose_shards()
        if self._waiting or len(loose) > 1 or any(self._has_gaps(name) for name in loose):
            reader = ShardReader(self._folder, self._manifest())
            for entry in [entry for entry in self._entries.values() if entry.shard in loose]:
                self._wait(entry, reader.packed(entry).tobytes())
            self._write_shard()
        self._commit()

    def _wait(self, entry: Entry, packed: bytes) -> None:
        self._waiting.append((entry, packed))
        if len(self._waiting) == SHAPES_PER_SHARD:
            self._write_shard()
            self._commit()

    def _write_shard(self) -> None:
        data = b"".join(packed for _, packed in self._waiting)
        name = f"shard-{hashlib.sha256(data).hexdigest()[:16]}.bits"
        if data:
            write_atomic(self._folder / name, data)
            self._shard_bytes[name] = len(data)
        for index, (entry, packed) in enumerate(self._waiting):
            self._entries[entry.name] = replace(entry, shard=name, offset=index * len(packed))
        self._waiting = []

    def _commit(self) -> None:
        manifest = self._manifest()
        if manifest != self._committed:
            write_manifest(self._folder, manifest)
            self._committed = manifest
        for path in self._folder.glob(SHARD_PATTERN):
            if path.name not in manifest.shard_bytes:
                path.unlink()

    def _manifest(self) -> Manifest:
        entries = tuple(self._entries[name] for name in self._order if name in self._entries)
        used = {entry.shard for entry in entries}
        shard_bytes = {name: size for name, size in sorted(self._shard_bytes.items()) if name in used}
        return Manifest(self._config, shard_bytes, entries)

    def _loose_shards(self) -> set[str]:
        """Return the shards in use that have gaps or room left."""
        full = SHAPES_PER_SHARD * packed_size(self._config.resolution)
        used = {entry.shard for entry in self._entries.values()}
        return {name for name in used if self._shard_bytes[name] < full or self._has_gaps(name)}

    def _has_gaps(self, shard: str) -> bool:
        live = Counter(entry.shard for entry in self._entries.values())[shard]
        return live * packed_size(self._config.resolution) < self._shard_bytes[shard]


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer left in a folder; the caller holds its lock."""
    for leftover in folder.glob(PARTIAL_PATTERN):
        shutil.rmtree(leftover, ignore_errors=True)
