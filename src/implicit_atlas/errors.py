"""Typed errors: each names the thing at fault, what is wrong with it and what to do."""

from __future__ import annotations

from pathlib import Path


class AtlasError(Exception):
    """Base of every error that this library raises on purpose; the command line prints it without a traceback."""


class InputError(AtlasError):
    """A file or argument that cannot be used.

    Args:
        source: the file (or argument) at fault.
        problem: what is wrong with it.
        remedy: what the user can do about it.
    """

    def __init__(self, source: str | Path, problem: str, remedy: str) -> None:
        self.source, self.problem, self.remedy = str(source), problem, remedy
        super().__init__(f"{self.source}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Pickle by the three parts, so that the error survives the process of a pool that uses this library."""
        return type(self), (self.source, self.problem, self.remedy)


class AbsentLabelError(InputError):
    """A label map that has no voxel of the organ: no fault of the file where several organs are asked for."""


class FitError(AtlasError):
    """A fit that produced no valid shape (non-finite values, or no gain over the mean code)."""


class TrainingError(AtlasError):
    """Training that cannot go on (non-finite loss, run folder in use, checkpoint of another configuration)."""
