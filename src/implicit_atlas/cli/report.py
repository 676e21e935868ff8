"""The command that writes a model's report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from implicit_atlas.cli.cases import load_atlas
from implicit_atlas.cli.output import keep_files
from implicit_atlas.errors import InputError


def report(
    model: Annotated[
        Path, typer.Argument(help="model folder (*.atlas), its run (*.run), or the name of one that ships")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write")],
    scores: Annotated[
        Path | None, typer.Option(help="what `evaluate --json` wrote, to show with the model")
    ] = None,
) -> None:
    """Write one HTML file about a model, to open in any browser, offline: templates, shapes, codes, curves, scores."""
    from implicit_atlas.io.output import make_folder
    from implicit_atlas.report import write_report
    from implicit_atlas.support import console

    model = model_of(model)
    keep_files(output, [scores, model])
    with console.task("report") as progress:
        make_folder(output.parent)
        size = write_report(load_atlas(model), model, output, scores, progress)
    print(f"{output}: {size / 1e6:.1f} MB")


def model_of(path: Path) -> Path:
    """The model that a run has learned, by the run's folder beside it; other paths and names are as they were.

    Raises:
        InputError: the training has not ended.
    """
    if path.suffix != ".run" or not path.is_dir():
        return path
    for model in (path.with_suffix(".atlas"), path.with_suffix("")):
        if model.is_dir():
            return model
    raise InputError(
        path, "is a training that has not ended", "Go on with it by train --resume, then report it."
    )
