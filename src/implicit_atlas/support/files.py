"""Files written whole or not at all, content hashes, and the lock on a folder in use."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from implicit_atlas.errors import InputError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


PARTIAL_PATTERN = ".*.partial"
"""Glob of what a killed `write_atomic` leaves behind; safe to delete while nobody writes."""

AGAIN = 0.02  # seconds until a lock is tried again

WRITE_REMEDY = "Free some space, or choose a folder that can be written."


def write_atomic(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old file or the new one, never a part.

    Args:
        path: the file to write; its folder must exist.
        content: the bytes, or a function that writes one file at the path it is given. That path has the
            same name as `path` (so libraries that choose a format by suffix work) in a folder beside it.

    Raises:
        InputError: the file cannot be written (no space, no permission, no such folder), or is a device or a pipe.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise InputError(path, "is no regular file", "Give another file.")
    try:
        # A folder and not a file, because the file inside then gets the user's own permissions (umask).
        partial_folder = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise InputError(path, f"cannot be written ({error.strerror})", WRITE_REMEDY) from error
    try:
        partial = partial_folder / path.name
        if isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            content(partial)
        flush_to_disk(partial)
        partial.replace(path)
        flush_to_disk(path.parent)
    except OSError as error:
        raise InputError(path, f"cannot be written ({error.strerror or error})", WRITE_REMEDY) from error
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Ask the system to put a file, or a folder's list of names, on the disk.

    Raises:
        OSError: the system refuses.
    """
    if path.is_dir() and os.name == "nt":
        return  # Windows has no fsync of folders.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            path, f"cannot be read ({error.strerror})", "Check the path and its permissions."
        ) from error


def _is_locked(descriptor: int, last: float) -> bool:
    """Try to lock a file; False where another process holds it and there is time to wait.

    Raises:
        OSError: it cannot be locked, or there is no time left.
    """
    try:
        _try_lock(descriptor)
    except (BlockingIOError, PermissionError):
        if time.monotonic() > last:
            raise
        return False
    return True


@contextmanager
def lock_folder(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder for this process; the system frees the lock when the process ends, however it ends.

    Args:
        folder: that gets a file `.lock`.
        patience: seconds to wait for another process that holds it.

    Raises:
        InputError: another process holds the folder, or it cannot be locked.
    """
    lock_path = folder / ".lock"
    try:
        stream = lock_path.open("a")
    except OSError as error:
        raise InputError(folder, f"cannot be written ({error.strerror})", WRITE_REMEDY) from error
    with stream:
        last = time.monotonic() + patience
        try:
            while not _is_locked(stream.fileno(), last):
                time.sleep(AGAIN)
        except (BlockingIOError, PermissionError) as error:
            remedy = "Wait until it ends, or choose another folder."
            raise InputError(folder, "is in use by another process", remedy) from error
        except OSError as error:
            remedy = "Choose a folder on a local disk."
            raise InputError(folder, f"cannot be locked ({error.strerror})", remedy) from error
        yield
