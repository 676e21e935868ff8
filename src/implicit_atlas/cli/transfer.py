"""Commands that carry landmarks and labels from case to case through the template."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from implicit_atlas.cli.cases import labels_of, load_atlas, mask_files
from implicit_atlas.cli.options import Labels, LocalByDefault, MaskEnding, Model, OutputFolder, Side
from implicit_atlas.cli.output import finish, results_folder, say_doubts, table
from implicit_atlas.tasks.formats import Formats

app = typer.Typer(
    help="Carry landmarks or labels from cases to cases through the template.", no_args_is_help=True
)


@app.command()
def landmarks(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    source: Annotated[Path, typer.Argument(help="mask on which the landmarks lie")],
    points: Annotated[Path, typer.Argument(help="the landmarks (.csv, .mrk.json, .fcsv)")],
    targets: Annotated[
        list[Path], typer.Argument(help="masks, folders or patterns of masks, to carry them to")
    ],
    output: OutputFolder,
    label: Labels = "",
    local: LocalByDefault = True,
    mirror: Side = "no",
) -> None:
    """Carry landmarks of one case to others: a .mrk.json each, and a table with the error of every point."""
    from implicit_atlas.tasks.transfer import Alike, carry_landmarks

    atlas, problems = load_atlas(model), []
    wanted = mask_files(targets, problems)
    unusable = len(problems)
    results_folder(output, [source, points, *wanted, *targets])
    alike = Alike(atlas, labels_of(label, [source, *targets]), local, problems, mirror=mirror)
    with table(output / "landmarks.csv", "case") as rows:
        rows.extend(carry_landmarks(alike, source, points, wanted, output))
    doubtful = [row for row in rows if row["doubt"]]
    for row in doubtful:
        print(f"DOUBTFUL {row['case']}, {row['landmark']}: {row['doubt']}", file=sys.stderr)
    print(f"{output}: {len(rows)} landmarks, {len(doubtful)} of them doubtful")
    finish(problems, len(wanted) + unusable, output, [row["case"] for row in rows])


@app.command()
def labels(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    sources: Annotated[
        Path, typer.Argument(help="folder of label maps whose parts are known (or one label map)")
    ],
    targets: Annotated[
        list[Path], typer.Argument(help="masks, folders or patterns of masks, whose parts are wanted")
    ],
    output: OutputFolder,
    label: Labels = "",
    local: LocalByDefault = True,
    mirror: Side = "no",
    mask_format: MaskEnding = "nii.gz",
) -> None:
    """Carry the parts of labelled cases to masks: label maps on the targets' own grids."""
    from implicit_atlas.tasks.transfer import Alike, carry_labels

    atlas, problems = load_atlas(model), []
    known, wanted = mask_files([sources], problems), mask_files(targets, problems)
    unusable, formats = len(problems), Formats(mask_format)
    results_folder(output, [*known, *wanted, sources, *targets], formats)
    alike = Alike(atlas, labels_of(label, [sources, *targets]), local, problems, mirror=mirror)
    with table(output / "labels.csv", "case") as rows:
        rows.extend(carry_labels(alike, known, wanted, output, formats))
    unusable_known = {problem.path for problem in problems} & {file.path for file in known}
    count = len(known) - len(unusable_known)
    say_doubts(output, rows, f"label maps, from {count} labelled {'case' if count == 1 else 'cases'}", "case")
    finish(problems, len(known) + len(wanted) + unusable, output, [row["case"] for row in rows])
