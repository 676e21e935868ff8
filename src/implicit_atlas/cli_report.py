"""The command that writes a model's report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from implicit_atlas.cli_cases import load_atlas
from implicit_atlas.cli_output import keep_files
from implicit_atlas.cli_uses import Model


def report(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write")],
    scores: Annotated[
        Path | None, typer.Option(help="what `evaluate --json` wrote, to show with the model")
    ] = None,
) -> None:
    """Write one HTML file about a model, to open in any browser, offline: templates, shapes, codes, curves, scores."""
    from implicit_atlas import console
    from implicit_atlas.io.output import make_folder
    from implicit_atlas.report import write_report

    keep_files(output, [scores, model])
    with console.task("report") as progress:
        make_folder(output.parent)
        size = write_report(load_atlas(model), model, output, scores, progress)
    print(f"{output}: {size / 1e6:.1f} MB")
