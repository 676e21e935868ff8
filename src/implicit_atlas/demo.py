"""The main job from end to end: masks in; atlas, scores, masks, meshes, templates and a picture out."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from implicit_atlas import pictures
from implicit_atlas.cli.output import write_json
from implicit_atlas.completion.completion import complete
from implicit_atlas.completion.observe import from_landmarks
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.surface import occupancy_mesh, to_world
from implicit_atlas.io import Landmarks, find_cases, read_landmarks, read_mask, write_landmarks
from implicit_atlas.io.output import make_folder
from implicit_atlas.metrics import dsc
from implicit_atlas.phantoms import write_phantoms
from implicit_atlas.report import write_report
from implicit_atlas.shapes.manifest import PrepareConfig
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.shapes.store import open_store, prepare_folder
from implicit_atlas.support import console
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.memory import keep_freed_memory
from implicit_atlas.tasks.evaluate import Evaluation, evaluate, evaluate_known
from implicit_atlas.tasks.reconstruct import Reconstruction
from implicit_atlas.tasks.results import write_completion, write_reconstruction
from implicit_atlas.tasks.templates import Template, templates, write_templates
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import default_config
from implicit_atlas.training.learning import best_device, train

PHANTOMS = 40
UNSEEN_AT_MOST = 40
SHOWN = 3
CLICKS = 64
MARGIN = 0.05  # so that what is found closes within the cube, also where it is larger than it should be
TRUTH_COLOUR, FIT_COLOUR, TEMPLATE_COLOUR = (0.55, 0.66, 0.78), (0.80, 0.62, 0.42), (0.62, 0.75, 0.55)


def run(data: Path | None, output: Path, minutes: float) -> None:
    """Do the whole job.

    Args:
        data: a folder of masks; None makes phantoms.
        output: folder for everything that is written.
        minutes: time for training.

    Raises:
        InputError: fewer than four masks can be used, or the output cannot be written.
    """
    begun = time.perf_counter()
    make_folder(output)
    if data is None:
        data = output / "phantoms"
        write_phantoms(data, "curved-tube", PHANTOMS)
        print(f"1. made {PHANTOMS} synthetic organs in {data}")
    else:
        print(f"1. reading {len(find_cases(data).paths)} masks of {data}")
    seen, unseen = _split(_prepared(data, output / "shapes"))
    print(f"2. training on {len(seen)} shapes, {len(unseen)} are kept unseen")
    atlas = _train(seen, output, minutes)
    print("3. reconstructing")
    known, unknown, found = _evaluate(
        atlas,
        [data / shape.source for shape in seen[: len(unseen)]],
        [data / shape.source for shape in unseen],
        output / "reconstructions",
    )
    make_folder(output / "templates")
    learned = templates(atlas)
    table = write_templates(atlas, learned, output / "templates")
    _picture(found[:SHOWN], learned, output / "demo.png")
    results = {"known": known.to_json(), "unknown": unknown.to_json()}
    write_json(output / "evaluation.json", results)
    write_json(output / "unknown.json", results["unknown"])
    write_report(atlas, output / "demo.atlas", output / "report.html", output / "unknown.json")
    try:
        said = _complete(atlas, data / unseen[0].source, output)
    except InputError as error:
        said = f"{unseen[0].name} could not be completed: {error}"
    print("\n" + _summary(known, unknown) + "\n\n" + table + "\n\n" + said)
    print(
        f"\neverything is in {output} (start with demo.png and report.html); {time.perf_counter() - begun:.0f} s in all"
    )


def _prepared(data: Path, store: Path) -> list[Shape]:
    with console.task("prepare") as report:
        done = prepare_folder(data, store, PrepareConfig(margin=MARGIN), progress=console.counted(report))
    for problem in done.quarantined:
        print(f"   not used: {problem.name}: {problem.message}", file=sys.stderr)
    return list(open_store(store))


def _split(shapes: list[Shape]) -> tuple[list[Shape], list[Shape]]:
    """Three quarters to learn from, a quarter (at most 40) to test with, in the order of their names."""
    if len(shapes) < 4:
        raise InputError(
            "demo", f"only {len(shapes)} masks can be used", "Give a folder of at least four masks."
        )
    unseen = min(UNSEEN_AT_MOST, len(shapes) // 4)
    return shapes[:-unseen], shapes[-unseen:]


def _train(shapes: list[Shape], output: Path, minutes: float) -> TrainedAtlas:
    config = default_config(len(shapes), best_device(), minutes)
    folder = output / "demo.run"
    with console.task("train") as report:
        atlas = train(shapes, config=config, run=folder, progress=report)
    atlas.save(output / "demo.atlas")
    pictures.training_curves(output / "training.png", atlas.provenance["curves"])
    return atlas


def _evaluate(
    atlas: TrainedAtlas, seen: list[Path], unseen: list[Path], folder: Path
) -> tuple[Evaluation, Evaluation, list[Reconstruction]]:
    """Scores of seen and unseen masks against their files; the unseen ones' fits are written."""
    make_folder(folder)
    found: list[Reconstruction] = []

    def keep(one: Reconstruction) -> None:
        write_reconstruction(one, folder)
        found.append(one)

    with console.task("known shapes") as report:
        known = evaluate_known(atlas, seen, report=report)
    with console.task("unknown shapes") as report:
        unknown = evaluate(atlas, unseen, report=report, on_case=keep)
    return known, unknown, found


def _complete(atlas: TrainedAtlas, unseen: Path, output: Path) -> str:
    """Complete an unseen shape from clicks on its surface, wherever it may lie; what to say of it."""
    mask, problems = read_mask(unseen), []
    vertices = occupancy_mesh(mask.occupancy, mask.grid).vertices
    points = np.random.default_rng(0).permutation(vertices)[:CLICKS]
    clicks = output / "clicks.mrk.json"
    write_landmarks(clicks, Landmarks(points, ("",) * len(points), None, clicks))
    done = complete(atlas, [from_landmarks(read_landmarks(clicks))])[0]
    if write_completion(done, output / "completion", problems, mask.grid) is None:
        return f"{unseen.name} could not be completed: {problems[0].message}"
    share = 100 * dsc(mask.occupancy, done.mask_on(mask.grid))
    return (
        f"{unseen.name} completed from {len(points)} clicks on its surface ({clicks.name}): {share:.2f} DSC %"
    )


def _summary(known: Evaluation, unknown: Evaluation) -> str:
    lines = [unknown.protocol.line(), "", f"{'':<22}{'DSC %':>8}{'NSD %':>8}{'HD95 mm':>9}{'ASSD mm':>9}"]
    for title, result in (("known", known), ("unknown", unknown)):
        mean = result.mean()
        if not mean:
            lines.append(f"{title:<22}none could be fitted")
            continue
        values = f"{mean['dsc']:8.2f}{mean['nsd']:8.2f}{mean['hd95_mm']:9.2f}{mean['assd_mm']:9.2f}"
        lines.append(f"{f'{title} ({len(result.cases)} shapes)':<22}{values}")
    return "\n".join(lines)


def _picture(found: list[Reconstruction], learned: list[Template], path: Path) -> None:
    """Truth, reconstruction and template of some unseen shapes, side by side."""
    rows = []
    for one in found:
        frame = one.case.shape.frame
        template = learned[one.fit.found.template or 0]
        meshes = (
            occupancy_mesh(one.case.mask.occupancy, one.case.mask.grid),
            one.mesh(),
            to_world(template.mesh, frame),
        )
        captions = (f"{one.fit.name}: truth", "reconstruction", f"template {template.index}")
        colours = (TRUTH_COLOUR, FIT_COLOUR, TEMPLATE_COLOUR)
        rows.append(
            [
                pictures.Panel(m.vertices, m.faces, c, k)
                for m, c, k in zip(meshes, captions, colours, strict=True)
            ]
        )
    if rows:
        pictures.surfaces(path, rows, "Shapes that the atlas has not seen")


@exit_status
def main() -> None:
    """Parse options and run; errors are one line."""
    parser = argparse.ArgumentParser(prog="python -m implicit_atlas.demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of masks (default: synthetic organs)")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for the results")
    parser.add_argument("--minutes", type=float, default=4.0, help="time for training")
    options = parser.parse_args()
    keep_freed_memory()
    run(options.data, options.output, options.minutes)


if __name__ == "__main__":
    sys.exit(main())
