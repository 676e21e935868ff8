"""Making the folder that an output file goes to."""

from __future__ import annotations

import os
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
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            folder, "is a folder that cannot be written", "Correct its permissions, or choose another."
        )
