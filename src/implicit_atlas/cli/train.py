"""Learning an atlas, as the commands do it: shapes of a store or folder in; a model folder, a run and a picture out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from implicit_atlas.cli.cases import chosen, mirrored, sources_of, wanted_names
from implicit_atlas.errors import InputError

FEW_SHAPES = 5
FEW_STEPS = 100  # an atlas of fewer knows little


@dataclass(frozen=True)
class Plan:
    """What the commands that train are told; the options of `implicit-atlas train`."""

    method: str = "implicit-atlas+reg"
    max_minutes: float | None = None
    steps: int | None = None
    warps: int | None = None
    seed: int = 0
    resume: bool = False
    only: str | None = None
    overwrite: bool = False
    mirror: str | None = None


def _keep_trained(output: Path, run: Path) -> None:
    """Refuse to train anew what is trained already, or partly."""
    from implicit_atlas.atlas.checkpoint import CONFIG
    from implicit_atlas.training.learning import STATE

    if (output / CONFIG).exists():
        remedy = "Give another -o; or --overwrite to train it anew."
        raise InputError(output, "is a model already", remedy)
    if (run / STATE).exists():
        remedy = "Give --resume to go on with it, or --overwrite to train anew."
        raise InputError(run, "holds a training already", remedy)


def run_of(output: Path) -> Path:
    """The folder of a model's training: beside it, with the suffix .run.

    Raises:
        InputError: no model can have that name.
    """
    if not output.name or output.suffix == ".run":
        raise InputError(str(output), "cannot be the name of a model", "Give one like -o liver.atlas.")
    return output.with_name(output.name.removesuffix(".atlas") + ".run")


def learn(
    source: Path, output: Path, labels: tuple[int, ...], plan: Plan, organ: str = ""
) -> tuple[list[Any], int]:
    """Learn an atlas and write it; the cases that could not be used, and how many there were.

    `organ` is named in what is said of the progress, where there are several.
    """
    from implicit_atlas import pictures
    from implicit_atlas.atlas.checkpoint import refuse_foreign
    from implicit_atlas.atlas.methods import ModelConfig
    from implicit_atlas.card import model_card
    from implicit_atlas.io.output import make_folder
    from implicit_atlas.shapes.store import is_store, load_shapes, open_store
    from implicit_atlas.support import console
    from implicit_atlas.training import default_config
    from implicit_atlas.training.config import check_minutes
    from implicit_atlas.training.learning import best_device, train

    problems, run = [], run_of(output)
    refuse_foreign(output)
    check_minutes(plan.max_minutes)
    if not plan.resume and not plan.overwrite:
        _keep_trained(output, run)
    if is_store(source):
        labels = labels or open_store(source).config.labels  # the atlas is to know what it stands for
    model = ModelConfig(method=plan.method)
    if plan.mirror is not None:
        wanted_names(plan.mirror)  # that it cannot be read is better known now
    listed, there = None, set()
    if plan.only is not None or plan.mirror is not None:
        sources = sources_of(source, labels, problems)
        there = {one.name for one in [*sources, *problems]}
        # A store of one of several organs lacks the cases that are without it.
        listed = chosen(sources, plan.only, not (organ and is_store(source)))
    make_folder(output.resolve().parent)
    with console.task(f"prepare {organ}".strip()) as report:
        if listed is not None and is_store(source):
            shapes = listed
        else:
            shapes = load_shapes(
                source if listed is None else listed,
                labels,
                progress=console.counted(report),
                on_problem=problems.append,
            )
    if plan.mirror is not None:
        shapes = mirrored(shapes, wanted_names(plan.mirror, shapes), plan.mirror, there)
    config = default_config(len(shapes), best_device(), plan.max_minutes, plan.seed, plan.method, plan.steps)
    if plan.warps is not None:
        config = dataclasses.replace(config, warps=plan.warps)
    with console.task(f"train {organ}".strip()) as report:
        atlas = train(shapes, model, config, labels=labels, run=run, resume=plan.resume, progress=report)
    atlas.save(output, model_card(atlas, organ or output.stem))
    pictures.training_curves(run / "training.png", atlas.provenance["curves"])
    steps, seconds = atlas.provenance["steps"], atlas.provenance["seconds"]
    print(f"{output}: {len(shapes)} shapes, {steps} steps in {seconds:.0f} s")
    if len(shapes) < FEW_SHAPES:
        print(f"WARNING: {output}: {len(shapes)} shapes are too few to learn an organ from; five do.")
    if steps < FEW_STEPS:
        remedy = (
            "Give more --max-minutes, or --steps." if plan.max_minutes is not None else "Give more --steps."
        )
        print(f"WARNING: {output}: {steps} steps are too few to be of use. {remedy}")
    return problems, len(shapes) + len(problems)
