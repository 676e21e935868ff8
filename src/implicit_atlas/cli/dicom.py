"""The command that turns a mask into a DICOM segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from implicit_atlas.cli.output import keep_files
from implicit_atlas.errors import InputError

LONGEST_NAME = 64  # letters of a LO (DICOM PS3.5)


def dicom_seg(
    mask: Annotated[Path, typer.Argument(help="mask or label map on the series' grid")],
    series: Annotated[Path, typer.Argument(help="folder of the DICOM images of that series")],
    output: Annotated[Path, typer.Option("-o", "--output", help="file to write")],
    segment: Annotated[
        list[str] | None, typer.Option(help="NAME=ID; may be repeated; default: every label that occurs")
    ] = None,
) -> None:
    """Write a mask as a DICOM segmentation of its image series (needs the package highdicom)."""
    from implicit_atlas.io import label_ids, read_labels
    from implicit_atlas.io.dicom_seg import write_dicom_seg

    keep_files(output, [mask, series])
    labels = read_labels(mask)
    found = {label: f"label {label}" for label in label_ids(labels.values) if label > 0}
    names: dict[int, str] = {}
    for label, name in map(_named, segment or []):
        if label in names:
            raise InputError(
                f"segment '{name}'", f"label {label} is '{names[label]}' already", "Name it once."
            )
        names[label] = name
    names = names or found
    if not names:
        raise InputError(mask, "is empty", "Give a mask with an organ in it.")
    write_dicom_seg(output, labels, series, names)
    print(f"{output}: {', '.join(names.values())}")


def _named(word: str) -> tuple[int, str]:
    name, _, label = word.partition("=")
    if not name.strip() or not label.strip().isdecimal() or not int(label):
        raise InputError(f"segment '{word}'", "is not NAME=ID with an ID above 0", "Write --segment liver=1.")
    if len(name.strip()) > LONGEST_NAME:
        problem = f"has a name of more than {LONGEST_NAME} letters, which DICOM does not allow"
        raise InputError(f"segment '{word}'", problem, "Give a shorter one.")
    return int(label), name.strip()
