"""File formats by suffix, and the name of a case by its file name."""

from __future__ import annotations

from pathlib import Path

from implicit_atlas.errors import InputError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
MESH_SUFFIXES = (".stl", ".ply", ".obj", ".vtp", ".vtk")
MASK_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES + MESH_SUFFIXES
"""Every suffix that `read_mask` reads."""

# Listed with the masks so that the case is named as bad, with its remedy, and not passed over.
ANALYZE_SUFFIX = ".hdr"
_COMPOUND_ENDINGS = (".nii.gz", ".seg.nrrd")

FORMAT_REMEDY = f"Use one of {', '.join(MASK_SUFFIXES)}."


def suffix_of(path: Path) -> str:
    """Return a path's suffix in lower case, with ".nii.gz" as one suffix."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()


def is_mask_name(name: str) -> bool:
    """Whether a file of this name is taken for a mask: a known suffix, and not hidden."""
    return not name.startswith(".") and name.lower().endswith((*MASK_SUFFIXES, ANALYZE_SUFFIX))


def case_name(path: Path) -> str:
    """Return the name of the case in a file: the file's name without its format's suffixes."""
    for ending in _COMPOUND_ENDINGS:
        if path.name.lower().endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return path.stem


def unknown_format(path: Path) -> InputError:
    """Return the error for a file whose suffix says no format that is read."""
    return InputError(path, f"'{suffix_of(path)}' is not a known format", FORMAT_REMEDY)


def name_for_library(path: Path) -> str:
    """Return a path as text for SimpleITK and vtk, which end the process on a name that is not Unicode.

    Raises:
        InputError: the name has bytes that are not UTF-8.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(path, "its name is not valid Unicode", "Rename the file or folder.") from error
    return str(path)


def printable(text: str) -> str:
    """Return text on one line for a table or message: line breaks and undecodable bytes are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
