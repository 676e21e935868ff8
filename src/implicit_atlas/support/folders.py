"""A folder of files replaced as a whole: killed at any point, a complete one is there."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from implicit_atlas.support.files import flush_to_disk

_log = logging.getLogger(__name__)


def replace_folder(target: Path, contents: Mapping[str, bytes], own_names: Collection[str]) -> None:
    """Write a folder of files, in place of an earlier one as a whole.

    The new folder is written beside the old one and swapped in. At every moment the target or one of the
    `.previous-*` folders beside it is complete: a previous one is removed only when a complete folder is in
    place. Its name is unique, so that two processes that write the same target cannot remove each other's.

    Args:
        target: the folder; its parent must exist, and it must not be a link.
        contents: file names and their bytes.
        own_names: names that the folder may hold; entries of other names are the user's and are kept.

    Raises:
        OSError: the folder cannot be written; the earlier one is kept.
    """
    _remove_partials(target)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    partial.mkdir()
    try:
        for name, data in contents.items():
            (partial / name).write_bytes(data)
            flush_to_disk(partial / name)
        flush_to_disk(partial)
        _swap(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    flush_to_disk(target.parent)
    for previous in leftovers(target, "previous"):
        _retire(previous, target, own_names)


def leftovers(target: Path, kind: Literal["previous", "partial"]) -> list[Path]:
    """What interrupted calls of `replace_folder` left beside the target, the newest first.

    Args:
        target: the folder that was written.
        kind: "previous" (complete earlier folders) or "partial" (unfinished new ones).
    """
    prefix = f"{target.name}.{kind}-"
    try:
        found = [entry for entry in target.parent.iterdir() if entry.name.startswith(prefix)]
        return sorted(found, key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    except OSError:
        return []


def _swap(partial: Path, target: Path) -> None:
    for attempt in range(10):
        previous = target.with_name(f"{target.name}.previous-{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):
            target.rename(previous)
        try:
            partial.rename(target)
            return
        except OSError:
            # Another process may have put its own there in between: then that one is moved away in turn.
            if target.exists() and attempt < 9:
                continue
            with contextlib.suppress(OSError):
                previous.rename(target)
            raise


def _retire(previous: Path, target: Path, own_names: Collection[str]) -> None:
    """Remove a replaced folder, after what the user had put into it has moved to the new one."""
    try:
        for entry in previous.iterdir():
            if entry.name not in own_names and not (target / entry.name).exists():
                entry.rename(target / entry.name)
        shutil.rmtree(previous)
    except OSError as error:
        _log.warning("%s: the earlier folder cannot be removed (%s)", previous, error.strerror or error)


def _remove_partials(target: Path) -> None:
    """Remove what killed writers of this folder left behind; that of a living process is its own."""
    for partial in leftovers(target, "partial"):
        owner = partial.name.removeprefix(f"{target.name}.partial-").split("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            shutil.rmtree(partial, ignore_errors=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
