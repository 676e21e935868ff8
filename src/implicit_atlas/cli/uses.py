"""Commands that use an atlas for more than reconstruction: complete, clean, generate, interpolate, correspond."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from implicit_atlas.cli.cases import labels_of, load_atlas, mask_files
from implicit_atlas.cli.options import (
    Labels,
    LocalByDefault,
    MaskEnding,
    Masks,
    MeshEnding,
    Model,
    OutputFolder,
    Seed,
    Side,
)
from implicit_atlas.cli.output import finish, remove_results, results_folder, say_doubts, table
from implicit_atlas.tasks.formats import Formats


def complete(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="clicks (.csv, .mrk.json, .fcsv), masks that were drawn in part, or folders or patterns of them"
        ),
    ],
    output: OutputFolder,
    image: Annotated[
        Path | None,
        typer.Option(
            help="volume on whose grid masks are written; by default a mask's own, larger where the organ goes beyond"
        ),
    ] = None,
    seen: Annotated[
        Literal["slices", "volume"],
        typer.Option(help="of masks: some slices were drawn, or all of a volume that cuts the organ off"),
    ] = "slices",
    spread_mm: Annotated[float, typer.Option(help="how far from the boundary clicks on it lie")] = 1.0,
    draws: Annotated[
        int, typer.Option(min=0, max=64, help="other probable shapes, to see what is uncertain")
    ] = 0,
    label: Labels = "",
    mirror: Side = "no",
    mask_format: MaskEnding = "nii.gz",
    mesh_format: MeshEnding = "ply",
) -> None:
    """Complete an organ from clicks, a few slices, or a mask that the field of view cut off."""
    from implicit_atlas.io import read_grid
    from implicit_atlas.support import console
    from implicit_atlas.tasks.observations import complete_each, observation_files, read_observations
    from implicit_atlas.tasks.results import write_completion

    atlas, formats = load_atlas(model), Formats(mask_format, mesh_format)
    grid = None if image is None else read_grid(image)
    files = observation_files(sources)
    read = [*files, *([image] if image else []), *sources]
    results_folder(output, read, formats)
    labels = labels_of(label, sources) or atlas.config.labels
    problems: list[Any] = []
    known = read_observations(files, seen, spread_mm, labels, problems)
    with console.task("complete") as report, table(output / "completions.csv") as rows:
        rows.extend(
            row
            for done, told in complete_each(atlas, known, len(files), draws, problems, report, mirror)
            if (row := write_completion(done, output, problems, grid, told.drawn, told.source, formats))
        )
    say_doubts(output, rows, "completed")
    finish(problems, len(files), output, [row["name"] for row in rows])


def clean(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    masks: Masks,
    output: OutputFolder,
    label: Labels = "",
    keep_mm: Annotated[
        float | None,
        typer.Option(
            help="labels nearer to the likely surface stay; default: 0.6 of a voxel, and where little differs"
        ),
    ] = None,
    mirror: Side = "no",
    mask_format: MaskEnding = "nii.gz",
) -> None:
    """Repair annotations: holes, islands, stairs, cut-off ends, outlines; detail near the likely surface stays."""
    from implicit_atlas.repair.annotations import repair
    from implicit_atlas.support import console
    from implicit_atlas.tasks.results import write_repair

    atlas, problems = load_atlas(model), []
    files, formats = mask_files(masks, problems), Formats(mask_format)
    results_folder(output, [*files, *masks], formats)
    with console.task("clean") as report, table(output / "repairs.csv") as rows:
        told = problems.append, report, mirror
        found = repair(atlas, files, labels_of(label, masks), keep_mm, *told)
        rows.extend(write_repair(done, output, formats) for done in found)
    say_doubts(output, rows, "masks")
    finish(problems, len(rows) + len(problems), output, [row["name"] for row in rows])


def generate(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    output: OutputFolder,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="how many")] = 10,
    temperature: Annotated[float, typer.Option(help="0: the mean shape; below 1: typical ones")] = 0.8,
    template: Annotated[int | None, typer.Option(help="template that all deform, counted from 0")] = None,
    seed: Seed = 0,
    mask_format: MaskEnding = "nii.gz",
    mesh_format: MeshEnding = "ply",
) -> None:
    """Make new random shapes: meshes and masks, in millimetres about the origin."""
    from implicit_atlas.generation import generate as make
    from implicit_atlas.generation import pieces_of
    from implicit_atlas.tasks.results import write_made

    atlas, formats = load_atlas(model), Formats(mask_format, mesh_format)
    results_folder(output, formats=formats)
    fits, most = make(atlas, count, seed, temperature, template), pieces_of(atlas)
    remove_results(output, "generated-*")
    with table(output / "shapes.csv", gone="generated-") as rows:
        rows.extend(
            write_made(fit, f"generated-{index:04d}", output, most, formats) for index, fit in enumerate(fits)
        )
    print(f"{output}: {len(rows)} shapes")


def interpolate(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    first: Annotated[Path, typer.Argument(help="mask at one end")],
    last: Annotated[Path, typer.Argument(help="mask at the other end")],
    output: OutputFolder,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="shapes, both ends counted")] = 7,
    label: Labels = "",
    mirror: Side = "no",
    mask_format: MaskEnding = "nii.gz",
    mesh_format: MeshEnding = "ply",
) -> None:
    """Make the shapes between two masks: meshes, masks and a contact sheet."""
    from implicit_atlas.correspondence.through_template import reference_template
    from implicit_atlas.errors import AtlasError
    from implicit_atlas.generation import interpolate as between
    from implicit_atlas.generation import pieces_of
    from implicit_atlas.pictures import Panel, surfaces
    from implicit_atlas.tasks.reconstruct import reconstruct
    from implicit_atlas.tasks.results import write_made

    atlas, problems = load_atlas(model), []
    common = reference_template(atlas) if atlas.templates else None
    labels = labels_of(label, [first, last])
    ends = list(
        reconstruct(atlas, [first, last], None, labels, problems.append, template=common, mirror=mirror)
    )
    if problems:
        first_bad, message = problems[0].path, problems[0].message
        raise AtlasError(message if message.startswith(str(first_bad)) else f"{first_bad}: {message}")
    formats = Formats(mask_format, mesh_format)
    results_folder(output, [first, last], formats)
    for end in ends:
        if end.doubt:
            print(f"DOUBTFUL {end.fit.name}: {end.doubt}")
    fits = between(atlas, ends[0].fit, ends[1].fit, steps)
    most = pieces_of(atlas)
    remove_results(output, "step-*", [first, last])
    with table(output / "shapes.csv", gone="step-") as rows:
        rows.extend(
            write_made(fit, f"step-{index:03d}", output, most, formats) for index, fit in enumerate(fits)
        )
    meshes = [fit.mesh(64) for fit in fits]
    panels = [
        Panel(mesh.vertices, mesh.faces, f"{index / (steps - 1):.2f}") for index, mesh in enumerate(meshes)
    ]
    surfaces(
        output / "steps.png",
        [panels[i : i + 6] for i in range(0, len(panels), 6)],
        f"{first.name} to {last.name}",
    )
    print(f"{output}: {len(rows)} shapes and steps.png")


def correspond(  # noqa: PLR0913 (each is an option of the command)
    model: Model,
    masks: Masks,
    output: OutputFolder,
    label: Labels = "",
    local: LocalByDefault = True,
    resolution: Annotated[int, typer.Option(min=16, max=256, help="of the template's mesh")] = 64,
    mirror: Side = "no",
) -> None:
    """Give all masks meshes of one topology: vertex i is the same place in each, as statistics need it."""
    from implicit_atlas.support import console
    from implicit_atlas.tasks.transfer import Alike, correspond_all

    atlas, problems = load_atlas(model), []
    files = mask_files(masks, problems)
    results_folder(output, [*files, *masks])
    with console.task("correspond") as report, table(output / "correspondence.csv") as rows:
        alike = Alike(atlas, labels_of(label, masks), local, problems, report, mirror)
        rows.extend(correspond_all(alike, files, output, resolution))
    say_doubts(output, rows, "meshes of one topology")
    finish(problems, len(rows) + len(problems), output, [row["name"] for row in rows])
