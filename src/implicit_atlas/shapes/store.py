"""Shape stores: folders of bit-packed shapes with a manifest; and shapes from wherever they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.io import LabelMap, MaskSource, Problem, find_cases, read_mask, select_mask
from implicit_atlas.io.labels import as_label_ids
from implicit_atlas.io.output import make_folder
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.shapes.manifest import (
    MANIFEST_NAME,
    SHARD_PATTERN,
    Entry,
    Manifest,
    PrepareConfig,
    is_store,
    read_manifest,
)
from implicit_atlas.shapes.preparation import Progress, prepare_cases, prepare_each
from implicit_atlas.shapes.shape import Shape, hash_source
from implicit_atlas.shapes.shards import ShardReader, StoreWriter, remove_leftovers
from implicit_atlas.support.files import lock_folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare_folder` did.

    Args:
        prepared: names of the cases that were prepared now.
        reused: names of the cases that were prepared before and did not change.
        removed: names that the store held and that are no more.
        quarantined: the cases that could not be prepared; they are not in the store.
    """

    prepared: tuple[str, ...]
    reused: tuple[str, ...]
    removed: tuple[str, ...]
    quarantined: tuple[Problem, ...]


class ShapeStore(Sequence[Shape]):
    """A store's shapes, in the order of their names; bits are read, and checked, as each is asked for."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.config = manifest.parameters
        self._entries = manifest.shapes
        self._reader = ShardReader(folder, manifest)
        self._reader.check_sizes()

    @property
    def names(self) -> tuple[str, ...]:
        """The cases' names."""
        return tuple(entry.name for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Shape: ...
    @overload
    def __getitem__(self, index: slice) -> list[Shape]: ...
    def __getitem__(self, index: int | slice) -> Shape | list[Shape]:
        if isinstance(index, slice):
            return [self._shape(entry) for entry in self._entries[index]]
        return self._shape(self._entries[index])

    def __iter__(self) -> Iterator[Shape]:
        return map(self._shape, self._entries)

    def _shape(self, entry: Entry) -> Shape:
        return Shape(
            name=entry.name,
            packed=self._reader.packed(entry),
            frame=Frame.from_json(entry.frame, self.folder / MANIFEST_NAME),
            source=entry.source,
            content_hash=entry.source_sha256,
            dtype=entry.dtype,
            notes=entry.notes,
            labels=self.config.labels,
        )


def open_store(path: str | Path) -> ShapeStore:
    """Open a shape store; the manifest and the shards' sizes are checked now, a shape's bits when it is read.

    Raises:
        InputError: no store, an empty one, a damaged one, or one of a newer version.
    """
    folder = Path(path)
    store = ShapeStore(folder, read_manifest(folder))
    if not store:
        raise InputError(folder, "holds no shapes", "Prepare a folder of masks into it.")
    return store


def prepare_folder(
    source: MaskSource,
    output: str | Path,
    config: PrepareConfig | None = None,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> PrepareReport:
    """Prepare masks into a store, or bring a store up to date.

    Shapes whose file and parameters did not change are kept, changed files are prepared again, and shapes
    whose file is gone or has become unusable are removed. A kill at any moment leaves a sound store.

    Args:
        source: a folder of masks, a mask file, or several of them.
        output: the store's folder; made if it is missing.
        config: how masks become shapes.
        workers: processes to use.
        progress: called after every case.

    Raises:
        InputError: no masks, or an output that cannot be written, is in use, or holds anything but a store. A
            mask that cannot be prepared is in the report.
    """
    config, folder = config or PrepareConfig(), Path(output)
    cases = find_cases(source)
    make_folder(folder)
    _refuse_other_content(folder)
    sources, names = _relative_sources(cases.paths), {file.name for file in cases.files}
    prepared, reused, problems = [], [], list(cases.problems)
    with lock_folder(folder):
        remove_leftovers(folder)
        before = read_manifest(folder) if is_store(folder) else None
        kept = {
            name: entry for name, entry in _sound_entries(folder, before, config).items() if name in names
        }
        writer = StoreWriter(folder, config, before, kept, sorted(names))
        known = {name: entry.source_sha256 for name, entry in kept.items()}
        for file, outcome in prepare_each(cases.files, config, known, workers, progress):
            if isinstance(outcome, Shape):
                writer.put(outcome, sources[file.path])
                prepared.append(outcome.name)
            elif isinstance(outcome, Problem):
                writer.drop(outcome.name)
                problems.append(outcome)
            else:
                writer.keep(file.name, sources[file.path])
                reused.append(file.name)
        writer.finish()
    names_before = {entry.name for entry in before.shapes} if before else set()
    removed = names_before - set(prepared) - set(reused)
    quarantined = tuple(sorted(problems, key=lambda problem: problem.name))
    return PrepareReport(tuple(sorted(prepared)), tuple(sorted(reused)), tuple(sorted(removed)), quarantined)


def load_shapes(  # noqa: PLR0913 (options of a main verb)
    source: MaskSource,
    labels: int | Sequence[int] = (),
    resolution: int | None = None,
    *,
    like: PrepareConfig | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    on_problem: Callable[[Problem], object] | None = None,
) -> list[Shape]:
    """Return the shapes of a store, or of masks that are prepared now, in the paper's frame or as an atlas's were.

    In the order of the list, or of a folder in that of names, without those that cannot be used (`shape.source`).

    Args:
        source: a shape store, a folder of masks, a mask file, or several mask files.
        labels: label ids that make the organ; empty for everything above 0 (for a store: for its own).
        resolution: nodes along each axis of the cube; 128 by default (for a store: its own).
        like: how to prepare masks; `atlas.config.prepared` of an atlas that they are to be fitted by.
        cache: a store folder to keep the prepared shapes in; what did not change is taken from it.
        progress: called after every case.
        on_problem: called with every case that cannot be used while others can; by default it is logged.

    Raises:
        InputError: nothing usable was found, or a store that was prepared with other labels or resolution.
    """
    single = Path(source) if isinstance(source, (str, Path)) else None
    if single is not None and single.is_dir() and is_store(single):
        return list(_store_with(single, as_label_ids(labels), resolution, like))
    config = like or PrepareConfig()
    config = replace(
        config,
        resolution=config.resolution if resolution is None else resolution,
        labels=as_label_ids(labels) or config.labels,
    )
    if single is not None and single.is_file():
        content_hash = hash_source(single)
        mask = read_mask(single, config.labels)
        return [config.shape_of(mask, content_hash=content_hash)]
    if cache is None:
        done = prepare_cases(source, config, progress=progress)
        shapes, problems = list(done.shapes), done.problems
    else:
        problems = prepare_folder(source, cache, config, progress=progress).quarantined
        shapes = list(ShapeStore(Path(cache), read_manifest(Path(cache))))
        given = {file.name: place for place, file in enumerate(find_cases(source).files)}
        shapes.sort(key=lambda shape: given.get(shape.name, len(given)))
    for problem in problems:
        (on_problem or _log_problem)(problem)
    if not shapes:
        where = single if single is not None else "masks"
        problem = f"none can be used; the first: {problems[0].message.rstrip('.')}"
        raise InputError(where, problem, "Correct the masks.")
    return shapes


def shape_from_array(
    occupancy: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    name: str = "shape",
    like: PrepareConfig | None = None,
) -> Shape:
    """The shape of a mask in memory.

    Args:
        occupancy: (x, y, z), booleans or whole numbers; all above 0 is the organ, or the labels of `like`.
        affine: (4, 4) from voxel indices to RAS millimetres; voxels of 1 mm along its axes by default.
        name: of the case.
        like: how to prepare it; `atlas.config.prepared` of an atlas that it is to be fitted by.

    Raises:
        InputError: an array of another number of axes or of other values, an empty mask, an image, or an affine or
            `like` that is none.
    """
    config = PrepareConfig() if like is None else like
    if not isinstance(config, PrepareConfig):
        raise InputError(name, "`like` is no PrepareConfig", "Give atlas.config.prepared.")
    try:
        values = np.asarray(occupancy)
        matrix = np.eye(4) if affine is None else np.asarray(affine, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(name, f"is no array of numbers ({error})", "Give (x, y, z) and (4, 4).") from error
    if values.ndim != 3 or values.dtype.kind not in "biuf" or matrix.shape != (4, 4):
        problem = f"is an array of {values.ndim} axes of {values.dtype}, its affine one of {matrix.shape}"
        raise InputError(name, problem, "Give (x, y, z) of booleans or whole numbers, and (4, 4).")
    whole = values if values.dtype.kind in "iu" else np.rint(np.nan_to_num(values)).astype(np.int64)
    if not np.array_equal(whole, values):
        raise InputError(name, "has values that are no whole numbers", "Give booleans: values > 0.5.")
    dtype = values.dtype if values.dtype.kind in "iu" else np.dtype(np.uint8)
    labels = LabelMap(whole, Grid(values.shape, matrix), Path(f"{name} (in memory)"), dtype)
    mask = select_mask(labels, config.labels)
    return config.shape_of(mask, name)


def _store_with(
    folder: Path, labels: Sequence[int], resolution: int | None, like: PrepareConfig | None
) -> ShapeStore:
    """Open a store; refuse one that was prepared in another way than is asked for."""
    store = open_store(folder)
    as_it_is = like or store.config
    wanted = replace(
        as_it_is,
        resolution=as_it_is.resolution if resolution is None else resolution,
        labels=tuple(labels) or as_it_is.labels,
    )
    if wanted != store.config:
        has, asked = (
            f"resolution {one.resolution}, margin {one.margin:g}, kind {one.kind} and labels {one.labels}"
            for one in (store.config, wanted)
        )
        remedy = "Leave these options out, or prepare the masks again with them (or name their folder here)."
        raise InputError(folder, f"was prepared at {has}, not {asked}", remedy)
    return store


def _sound_entries(folder: Path, manifest: Manifest | None, config: PrepareConfig) -> dict[str, Entry]:
    """Return the entries, by name, that were prepared with these parameters and whose bits are sound."""
    if manifest is None or manifest.parameters != config:
        return {}
    reader, sound = ShardReader(folder, manifest), {}
    for entry in manifest.shapes:
        try:
            reader.packed(entry)
        except InputError as error:
            _log.warning("%s; it is prepared again", error)
        else:
            sound[entry.name] = entry
    return sound


def _refuse_other_content(folder: Path) -> None:
    """Refuse to turn a folder with the user's own files into a store."""
    if is_store(folder):
        return
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    others = [name for name in others if not Path(name).match(SHARD_PATTERN)]
    if others:
        problem = f"holds other files ('{min(others)}', {len(others)} in all)"
        raise InputError(folder, problem, "Choose a new or empty folder for the store.")


def _relative_sources(paths: Sequence[Path]) -> dict[Path, str]:
    """Return every file's path relative to the folder that they share, with forward slashes."""
    # Not resolved: a link to a file elsewhere keeps the place that it has here.
    absolute = {path: Path(os.path.normpath(path.absolute())) for path in paths}
    root = os.path.commonpath([path.parent for path in absolute.values()]) if paths else ""
    return {path: place.relative_to(root).as_posix() for path, place in absolute.items()}


def _log_problem(problem: Problem) -> None:
    _log.warning("left out: %s", problem.message)
