"""Commands over several organs of label maps: an atlas of each, and results merged into one label map."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from implicit_atlas.cli.cases import check_in_any, fit_config, load_atlas, mask_files
from implicit_atlas.cli.options import (
    Local,
    Margin,
    MaskEnding,
    Method,
    Only,
    Resolution,
    Side,
)
from implicit_atlas.cli.output import finish, results_folder, table
from implicit_atlas.cli.train import Plan, learn
from implicit_atlas.errors import AtlasError, InputError
from implicit_atlas.tasks.formats import Formats

SUFFIX = ".atlas"

app = typer.Typer(
    help="Several organs of label maps in one go: prepare, train and reconstruct them.", no_args_is_help=True
)

LabelMaps = Annotated[Path, typer.Argument(help="folder of label maps, or a pattern in quotes")]
Organs = Annotated[
    list[str],
    typer.Option(
        "--organ",
        help="NAME=IDS (liver=1, kidneys=2,3); may be repeated; default: all that the data declares",
    ),
]


@app.command()
def prepare(
    folder: LabelMaps,
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of stores, one an organ")],
    organ: Organs = [],  # noqa: B006 (typer reads the default and never changes it)
    resolution: Resolution = 128,
    margin: Margin = 0.0,
) -> None:
    """Prepare every organ into a store of shapes of its own: OUTPUT/NAME."""
    from implicit_atlas.shapes.manifest import PrepareConfig
    from implicit_atlas.shapes.store import prepare_folder
    from implicit_atlas.support import console
    from implicit_atlas.tasks.organs import parse_organs

    problems, total = [], 0
    for name, ids in parse_organs(organ, folder).items():
        config = PrepareConfig(resolution, margin, labels=ids)
        with console.task(f"prepare {name}") as report:
            done = prepare_folder(folder, output / name, config, progress=console.counted(report))
        usable, damaged = len(done.prepared) + len(done.reused), _damaged(done.quarantined)
        print(f"{output / name}: {usable} shapes, {len(done.quarantined) - len(damaged)} cases without it")
        problems += damaged
        total = max(total, usable + len(done.quarantined))
    finish(_once(problems), total)


@app.command()
def train(  # noqa: PLR0913 (each is an option of the command)
    source: Annotated[
        Path, typer.Argument(help="folder or pattern of label maps, or folder that `organs prepare` made")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of models, one an organ")],
    organ: Organs = [],  # noqa: B006
    method: Method = "implicit-atlas+reg",
    max_minutes: Annotated[float | None, typer.Option(help="for each organ")] = None,
    steps: Annotated[
        int | None, typer.Option(help="of each organ's schedule, where no time is given")
    ] = None,
    warps: Annotated[int | None, typer.Option(help="number of warped copies of each organ")] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of all random numbers")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="keep finished models, go on with unfinished ones")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace models and unfinished trainings")
    ] = False,
    only: Only = None,
) -> None:
    """Learn an atlas of every organ: OUTPUT/NAME.atlas. An organ that cannot be learned does not stop the others."""
    from implicit_atlas.io import Problem
    from implicit_atlas.shapes.store import is_store

    plan = Plan(method, max_minutes, steps, warps, seed, resume, only, overwrite)
    failed, total, organs = [], 0, _sources(source, organ)
    stores = [path for path, _ in organs.values() if is_store(path)]
    if only is not None and stores:
        check_in_any(stores, only)
    for name, (shapes, ids) in organs.items():
        model = output / f"{name}{SUFFIX}"
        if resume and model.is_dir():
            print(f"{model}: is there")
            continue
        try:
            problems, cases = learn(shapes, model, ids, plan, name)
        except AtlasError as error:
            failed.append(Problem(name, shapes, str(error)))
            total += 1
            continue
        damaged = _damaged(problems)
        print(f"{model}: {len(problems) - len(damaged)} of {cases} cases are without it")
        failed += damaged
        total += cases
    finish(_once(failed), total)


@app.command()
def reconstruct(
    models: Annotated[Path, typer.Argument(help="folder of models, as `organs train` made it")],
    masks: Annotated[list[Path], typer.Argument(help="label maps, or folders or patterns of them")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder where label maps are written")],
    local: Local = False,
    mirror: Side = "no",
    mask_format: MaskEnding = "nii.gz",
) -> None:
    """Fit every organ by its atlas, and write one label map a case; voxels that two claim are given to one."""
    from implicit_atlas.io import printable, write_label_map
    from implicit_atlas.support import console
    from implicit_atlas.tasks.organs import reconstruct_organs

    atlases, problems = _atlases(models), []
    files = mask_files(masks, problems)
    unusable, formats = len(problems), Formats(mask_format)
    results_folder(output, [*files, *masks], formats)
    with console.task("reconstruct") as report, table(output / "organs.csv") as rows:
        told = problems.append, report, mirror
        for case in reconstruct_organs(atlases, files, fit_config(None, local), *told):
            write_label_map(formats.mask_path(output, case.name), case.labels, case.grid)
            rows += [_row(case, name) for name in atlases]
            if len(case.absent) == len(atlases):
                print(f"{printable(case.name)}: has none of the organs", file=sys.stderr)
    for row in rows:
        if row["doubt"]:
            print(f"DOUBTFUL {printable(row['name'])}, {row['organ']}: {row['doubt']}")
    contested = sum({row["name"]: row["contested_voxels"] for row in rows}.values())
    print(f"{output}: {len({row['name'] for row in rows})} label maps, {contested} voxels were claimed twice")
    done = [f"{row['name']}, {row['organ']}" for row in rows if row["state"] != "not used"]
    finish(problems, len(files) + unusable, output, [*done, *(row["name"] for row in rows)])


def _damaged(problems: Sequence[Any]) -> list[Any]:
    """Problems but those of label maps without the organ, which is no fault."""
    return [problem for problem in problems if not problem.absent]


def _once(problems: Sequence[Any]) -> list[Any]:
    """A file that cannot be read is so for every organ."""
    return list({(problem.path, problem.message): problem for problem in problems}.values())


def _row(case: Any, organ: str) -> dict[str, Any]:
    fit = case.fits.get(organ)
    state = "fitted" if fit else "absent" if organ in case.absent else "not used"
    voxels = case.voxels.get(organ, 0)
    return {
        "name": case.name,
        "organ": organ,
        "state": state,
        "volume_ml": round(voxels * case.grid.voxel_volume_mm3 / 1000, 3),
        "template": fit.found.template if fit else "",
        "degrees_of_freedom": fit.found.degrees_of_freedom if fit else "",
        "contested_voxels": case.contested,
        "doubt": case.doubts.get(organ) or "",
    }


def _sources(source: Path, words: list[str]) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Where each organ's shapes are, and its label ids: stores within a folder, or one folder of label maps."""
    from implicit_atlas.shapes.store import is_store
    from implicit_atlas.tasks.organs import parse_organs

    stores = sorted(path for path in source.iterdir() if is_store(path)) if source.is_dir() else []
    if not stores:
        return {name: (source, ids) for name, ids in parse_organs(words, source).items()}
    # They know their own labels.
    chosen: dict[str, tuple[Path, tuple[int, ...]]] = {path.name: (path, ()) for path in stores}
    missing = [word for word in words if word not in chosen]
    if missing:
        raise InputError(source, f"has no store '{missing[0]}'", f"It has {', '.join(chosen)}.")
    return {name: chosen[name] for name in words or chosen}


def _atlases(folder: Path) -> dict[str, Any]:
    found = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    if not found:
        raise InputError(
            folder, "holds no models", "Give the folder that `implicit-atlas organs train` made."
        )
    return {path.stem: load_atlas(path) for path in found}
