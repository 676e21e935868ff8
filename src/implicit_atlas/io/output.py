"""Making the folder that an output file goes to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from implicit_atlas.errors import InputError


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are missing.

    Raises:
        InputError: the folder cannot be made, or not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made a folder ({error.strerror or error})"
        raise InputError(folder, problem, "Choose a folder that can be written.") from error
    try:
        # What permissions say is not what an administrator, a full disk or a read-only one does.
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"\0")
    except OSError as error:
        problem = f"is a folder that cannot be written ({error.strerror or error})"
        raise InputError(folder, problem, "Correct its permissions, or choose another.") from error
