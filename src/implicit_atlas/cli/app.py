"""The command line: thin commands over the library."""

from __future__ import annotations

import dataclasses
import io
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from implicit_atlas import __version__
from implicit_atlas.cli import convert, dicom, organs, statistics, transfer, uses
from implicit_atlas.cli.cases import (
    chosen,
    fit_config,
    labels_of,
    list_file,
    load_atlas,
    mask_files,
    sources_of,
)
from implicit_atlas.cli.options import (
    AnyLabels,
    Folder,
    Iterations,
    JsonFile,
    Labels,
    Local,
    Margin,
    MaskEnding,
    Masks,
    MeshEnding,
    Method,
    Model,
    Only,
    Output,
    OutputFolder,
    Resolution,
    Side,
)
from implicit_atlas.cli.output import finish, keep_files, results_folder, say_doubts, table, write_json
from implicit_atlas.cli.report import report as report_page
from implicit_atlas.cli.train import Plan, learn
from implicit_atlas.errors import AtlasError, InputError
from implicit_atlas.support.memory import keep_freed_memory
from implicit_atlas.tasks.formats import Formats

INTERRUPTED = 130  # exit status that shells give to a command stopped by Ctrl-C

app = typer.Typer(
    help="From a folder of organ masks to a shape atlas: train, reconstruct, evaluate.",
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command()
def check(
    folder: Folder,
    label: AnyLabels = "",
    json_file: JsonFile = None,
) -> None:
    """Describe a folder of masks: sizes, spacing, orientation, components, holes, border contact, outliers."""
    from implicit_atlas.io import find_cases, printable
    from implicit_atlas.shapes.fingerprint import fingerprint
    from implicit_atlas.shapes.fingerprint_table import table

    keep_files(json_file, [folder])
    found = fingerprint(folder, labels_of(label, folder))
    print(table(found))
    write_json(json_file, found.to_json())
    cases = find_cases(folder)
    if cases.passed_over:
        first = ", ".join(printable(path.name) for path in cases.passed_over[:3])
        others = ", ..." if len(cases.passed_over) > 3 else ""
        print(f"passed over: {len(cases.passed_over)} files that are no masks ({first}{others})")
    finish(found.problems, len(cases.files) + len(cases.problems))


@app.command()
def prepare(
    folder: Folder,
    output: Output,
    label: AnyLabels = "",
    resolution: Resolution = 128,
    margin: Margin = 0.0,
) -> None:
    """Prepare masks into a bit-packed store of shapes; what did not change is not done again."""
    from implicit_atlas.shapes.manifest import PrepareConfig
    from implicit_atlas.shapes.store import prepare_folder
    from implicit_atlas.support import console

    config = PrepareConfig(resolution, margin, labels=labels_of(label, folder))
    with console.task("prepare") as report:
        done = prepare_folder(folder, output, config, progress=console.counted(report))
    print(
        f"{output}: {len(done.prepared)} prepared, {len(done.reused)} unchanged, {len(done.removed)} removed, "
        f"{len(done.quarantined)} unusable"
    )
    finish(done.quarantined, len(done.prepared) + len(done.reused) + len(done.quarantined))


@app.command()
def train(  # noqa: PLR0913 (each is an option of the command)
    source: Annotated[Path, typer.Argument(help="store of shapes, folder of masks, or a pattern in quotes")],
    output: Output,
    label: AnyLabels = "",
    method: Method = "implicit-atlas+reg",
    max_minutes: Annotated[float | None, typer.Option(help="fit the schedule into this time")] = None,
    steps: Annotated[int | None, typer.Option(help="length of the schedule, where no time is given")] = None,
    warps: Annotated[
        int | None, typer.Option(help="number of warped copies to train on beside the shapes")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of all random numbers")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the last state of this output")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a model or an unfinished training of this name")
    ] = False,
    only: Only = None,
    mirror: Annotated[
        str | None,
        typer.Option(help="names of cases of the other side, to be mirrored: a list as for --only"),
    ] = None,
) -> None:
    """Learn an atlas. The run's state and log lie beside it in OUTPUT with the suffix .run."""
    plan = Plan(method, max_minutes, steps, warps, seed, resume, only, overwrite, mirror)
    problems, total = learn(source, output, labels_of(label, source), plan)
    finish(problems, total)


@app.command()
def reconstruct(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    masks: Masks,
    output: OutputFolder,
    label: Labels = "",
    iterations: Iterations = None,
    local: Local = False,
    mirror: Side = "no",
    mask_format: MaskEnding = "nii.gz",
    mesh_format: MeshEnding = "ply",
) -> None:
    """Fit masks and write each as the atlas sees it: a mask on the original grid, and a mesh in millimetres."""
    from implicit_atlas.support import console
    from implicit_atlas.tasks.reconstruct import reconstruct as fit_all
    from implicit_atlas.tasks.results import write_reconstruction

    atlas, problems = load_atlas(model), []
    files, formats = mask_files(masks, problems), Formats(mask_format, mesh_format)
    results_folder(output, [*files, *masks], formats)
    config = fit_config(iterations, local)
    with console.task("reconstruct") as report, table(output / "reconstructions.csv") as rows:
        told = labels_of(label, masks), problems.append, report
        for found in fit_all(atlas, files, config, *told, mirror=mirror):
            rows.append(dataclasses.asdict(write_reconstruction(found, output, formats)))
    say_doubts(output, rows, "masks and meshes")
    finish(problems, len(rows) + len(problems), output, [row["name"] for row in rows])


@app.command()
def evaluate(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    folder: Annotated[Path, typer.Argument(help="folder of masks, pattern in quotes, or store of shapes")],
    label: Labels = "",
    json_file: JsonFile = None,
    iterations: Iterations = None,
    local: Local = False,
    known: Annotated[
        bool, typer.Option("--known", help="score training shapes by their training codes")
    ] = False,
    only: Only = None,
    mirror: Side = "no",
) -> None:
    """Score an atlas on masks: DSC, NSD, HD95 and ASSD, with the protocol that they follow."""
    from implicit_atlas.io import printable
    from implicit_atlas.io.output import make_folder
    from implicit_atlas.support import console
    from implicit_atlas.tasks.evaluate import evaluate as score_all
    from implicit_atlas.tasks.evaluate import evaluate_known

    lists = None if only is None else list_file(only)[0]
    keep_files(json_file, [folder, lists])
    if json_file is not None:
        make_folder(json_file.parent)  # that it cannot be written is better known now
    if known and (local or mirror != "no"):
        remedy = "Leave --local and --mirror out."
        raise InputError("--known", "known shapes are scored by their codes as they stand", remedy)
    atlas, problems = load_atlas(model), []
    labels = labels_of(label, folder)
    sources = chosen(sources_of(folder, labels, problems), only)
    with console.task("evaluate") as report:
        if known:
            result = evaluate_known(atlas, sources, labels, report)
        else:
            result = score_all(atlas, sources, fit_config(iterations, local), labels, report, mirror=mirror)
    result = dataclasses.replace(result, problems=(*problems, *result.problems))
    print(result.table())
    learned = sum(case.learned for case in result.cases)
    if learned and not known:
        what = "training shapes, by their name or their file: not unseen ones"
        print(f"WARNING: {learned} of {len(result.cases)} cases are {what}")
    for case in result.cases:
        if case.doubt:
            print(f"DOUBTFUL {printable(case.name)}: {case.doubt}")
    write_json(json_file, result.to_json())
    finish(result.problems, len(result.cases) + len(result.problems))


@app.command()
def templates(
    model: Model,
    output: OutputFolder,
    mask_format: MaskEnding = "nii.gz",
    mesh_format: MeshEnding = "ply",
) -> None:
    """Write every learned template as mask and mesh, their pairwise DSC, and how many shapes use each."""
    from implicit_atlas.tasks.templates import templates as all_templates
    from implicit_atlas.tasks.templates import write_templates

    atlas, formats = load_atlas(model), Formats(mask_format, mesh_format)
    results_folder(output, formats=formats)
    print(write_templates(atlas, all_templates(atlas), output, formats))


@app.command()
def models() -> None:
    """List the models that come with the package; give their names where a model folder is asked for."""
    from implicit_atlas.shipped import described, shipped_models

    for name, folder in shipped_models().items():
        print(f"{name:<16} {described(folder)}  {folder}")


for use in (
    uses.complete,
    uses.clean,
    uses.generate,
    uses.interpolate,
    uses.correspond,
):
    app.command()(use)
app.command("report")(report_page)
app.command()(statistics.statistics)
app.command()(convert.convert)
app.command("dicom-seg")(dicom.dicom_seg)
app.add_typer(transfer.app, name="transfer")
app.add_typer(organs.app, name="organs")


@app.command()
def info(model: Model) -> None:
    """Say what a model is, what it was trained on and how."""
    from implicit_atlas.card import facts
    from implicit_atlas.shipped import find_model, notes

    for name, value in facts(load_atlas(model)):
        print(f"{name:<22} {value}")
    print(f"\n{notes(find_model(str(model)))}")


@app.callback()
def _options(
    show: Annotated[bool, typer.Option("--version", is_eager=True, help="print the version")] = False,
) -> None:
    if show:
        version()
        raise typer.Exit


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """Run a command; errors are one line on standard error and a non-zero exit status, never a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):  # names of cases may have letters that the output cannot say
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    try:
        app()
    except AtlasError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Typer ends an interrupted command by itself, without a word.
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        _fail(
            "stopped; results that were written are kept, with their rows; of train, --resume goes on",
            INTERRUPTED,
        )
    except MemoryError:
        _fail("out of memory: use fewer or smaller cases at a time", 1)
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {error.strerror or error}", 1)


def _interrupt(number: int, frame: object) -> None:
    """Stop as Ctrl-C does, also where a shell started the command in the background with SIGINT ignored."""
    raise KeyboardInterrupt


def _fail(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
