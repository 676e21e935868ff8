"""Uses of an atlas where the truth is known: python -m experiments.known_truth --family curved-tube --steps 600.

An atlas learns synthetic organs by the product's defaults and is used on others, of which the exact surface and what
is where on it are known: places and landmarks are carried from one to the next, modes are compared with those of the
exact surfaces, random shapes with new organs, and completions, their draws and repairs with clean masks.
Results: experiments/results/known-truth-FAMILY.json and pictures, for docs/uses/known-truth.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from experiments import applications, calibration, repairs, uses
from experiments.cells.cell import RESULTS, RUNS
from experiments.cells.measurement import about_run
from experiments.gallery import by_place, coloured
from implicit_atlas import load, train
from implicit_atlas.correspondence.through_template import (
    places_in,
    reference_template,
    surface_map,
    template_map,
    template_mesh,
)
from implicit_atlas.fitting.code_fit import FEW_AT_ONCE, FitConfig
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.fitting.local import LocalConfig
from implicit_atlas.generation import generate
from implicit_atlas.io import Mask, find_cases, read_mask
from implicit_atlas.phantoms import FAMILIES, Phantom, make_phantoms, write_phantoms
from implicit_atlas.pictures import surfaces
from implicit_atlas.shapes.manifest import PrepareConfig
from implicit_atlas.statistics import align, compactness, principal_modes
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.files import write_atomic
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training import default_config
from implicit_atlas.training.learning import best_device

KNOWN, UNSEEN, NEW = 40, 10, 100
MARGIN, RESOLUTION, MODES = 0.05, 40, 5
EVERY_DRAWN = 2  # of the organs, which have draws
SHOWN = 4  # organs of a picture, of which the first brings colours to the others
PARTS = ("shapes", "volumes", "completion", "repairs", "calibration")
TASKS = ("clicks", "slices", "cut off")
KINDS = ("label-2", "slices-2", "border-2", "pieces-2")

NAMES = {"exact": "the exact surfaces", "ours": "the atlas's meshes"}

Numbers = dict[str, Any]


def carried(atlas: TrainedAtlas, fits: list[Fit], organs: list[Phantom]) -> Numbers:
    """Errors in mm of exact places and landmarks of each organ that are carried to the next one.

    Through the template by the smooth map of surfaces, by the shapes' displacements (the paper's), and by the place in
    the box and the point of the exact surface that is nearest to it.
    """
    template = template_mesh(atlas, reference_template(atlas))
    maps = [(surface_map(atlas, fit, template), template_map(atlas, fit.found)) for fit in fits]
    found: dict[str, list[np.ndarray]] = {}
    left = []
    for index, source in enumerate(organs):
        after = (index + 1) % len(organs)
        target, pair = organs[after], (fits[index], fits[after])
        for what, points, truth in (
            ("surface", source.vertices_mm, target.vertices_mm),
            ("landmarks", source.landmarks_mm, target.landmarks_mm),
        ):
            own = pair[0].placed().world_to_cube(points)
            boxed = pair[1].placed().cube_to_world(own)
            there = {"box": target.vertices_mm[KDTree(target.vertices_mm).query(boxed)[1]]}
            for way, first, second in zip(
                ("template", "displacement"), maps[index], maps[after], strict=True
            ):
                there[way], missed = places_in(pair[1], second, first(own))
                left.append(missed)
            for way, places in there.items():
                found.setdefault(f"{what}, {way}", []).append(np.linalg.norm(places - truth, axis=1))
    out: Numbers = {name: _summary(np.concatenate(errors)) for name, errors in found.items()}
    out["equation left"] = _summary(np.concatenate(left))
    return out


def _summary(errors_mm: np.ndarray) -> Numbers:
    return {
        "mean_mm": round(float(errors_mm.mean()), 3),
        "p95_mm": round(float(np.percentile(errors_mm, 95)), 3),
    }


def modes_of(atlas: TrainedAtlas, fits: list[Fit], organs: list[Phantom]) -> Numbers:
    """Deviation of a vertex in mm and shares of variance in the first modes, of exact surfaces and of the atlas's."""
    template = template_mesh(atlas, reference_template(atlas), RESOLUTION)
    ours = [places_in(fit, surface_map(atlas, fit, template), template.vertices)[0] for fit in fits]
    out = {}
    for name, cases in (("exact", [organ.vertices_mm for organ in organs]), ("ours", ours)):
        stats = principal_modes(align(np.stack(cases)), MODES)
        rms_mm = float(np.sqrt(stats.total_variance_mm2 / len(cases[0])))
        out[name] = {"rms_mm": round(rms_mm, 3), "shares": compactness(stats).values.round(4).tolist()}
    return out


def volumes_of(atlas: TrainedAtlas, family: str) -> Numbers:
    """Mean and deviation of the volume in ml: of random shapes, and of as many new organs."""
    made = [fit.mesh().volume_mm3 / 1000 for fit in generate(atlas, NEW, temperature=1.0)]
    new = [organ.volume_mm3 / 1000 for organ in make_phantoms(family, NEW, seed=1)]
    return {
        name: [round(float(np.mean(v)), 3), round(float(np.std(v)), 3)]
        for name, v in (("made", made), ("new", new))
    }


def fits_of(atlas: TrainedAtlas, organs: list[Phantom]) -> list[Fit]:
    """Organs in one template, with what the codes cannot say added."""
    shapes = [atlas.config.prepared.shape_of(organ.mask, organ.name) for organ in organs]
    config = FitConfig(local=LocalConfig(), batch=FEW_AT_ONCE)
    return atlas.fit(shapes, config, template=reference_template(atlas))


def picture(atlas: TrainedAtlas, organs: list[Phantom], path: Path) -> None:
    """Exact places of the first organ, carried to the others (above), and where they truly are (below)."""
    template = template_mesh(atlas, reference_template(atlas))
    fits = fits_of(atlas, organs)
    first, *maps = [surface_map(atlas, fit, template) for fit in fits]
    source, frame = organs[0], fits[0].placed()
    colours = by_place(source.vertices_mm)
    rows = []
    for way in ("carried", "truth"):
        row = [coloured(source.vertices_mm, source.faces, colours, source.landmarks_mm, "one organ")]
        for organ, fit, there in zip(organs[1:], fits[1:], maps, strict=True):
            places, marks = organ.vertices_mm, organ.landmarks_mm
            if way == "carried":
                places, marks = (
                    places_in(fit, there, first(frame.world_to_cube(points)))[0]
                    for points in (source.vertices_mm, source.landmarks_mm)
                )
            row.append(coloured(places, source.faces, colours, marks, f"{organ.name}, {way}"))
        rows.append(row)
    surfaces(path, rows)


def measure(
    atlas: TrainedAtlas,
    masks: list[Mask],
    family: str,
    organs: list[Phantom],
    kept: Path,
    wanted: Sequence[str] = PARTS,
) -> Numbers:
    """What is measured of organs that were not learned: the parts that are wanted, and those of earlier calls."""

    def shapes() -> Numbers:
        fits = fits_of(atlas, organs)
        return {"correspondence": carried(atlas, fits, organs), "modes": modes_of(atlas, fits, organs)}

    def completion() -> Numbers:
        completed = applications.run_completion(atlas, masks, print, TASKS)
        return {
            task: {amount: applications.means(rows) for amount, rows in amounts.items()}
            for task, amounts in completed.items()
        }

    def draws() -> Numbers:
        rows = calibration.measure(atlas, masks[::EVERY_DRAWN], print)
        return {task: calibration.means(cases) for task, cases in rows.items()}

    ways: tuple[Callable[[], Numbers], ...] = (
        shapes,
        lambda: volumes_of(atlas, family),
        completion,
        lambda: repairs.measure(atlas, masks, print, KINDS),
        draws,
    )
    out: Numbers = json.loads(kept.read_text()) if kept.exists() else {"seconds": 0.0}
    for name, part in zip(PARTS, ways, strict=True):
        if name in wanted and name not in out:
            begun = time.perf_counter()
            out[name] = part()
            out["seconds"] += time.perf_counter() - begun
            write_atomic(kept, json.dumps(out).encode())
    return out


def lines_of(found: Numbers) -> list[str]:
    """What is said of one family, for a page."""
    about, rows = found["about"], found["known_truth"]
    moved, modes, volumes = rows["shapes"]["correspondence"], rows["shapes"]["modes"], rows["volumes"]
    lines = [
        f"\n**{about['organ'].capitalize()}.** {about['cases']} unseen organs; an atlas of "
        f"{about['training_shapes']} and {about['steps']} steps, seed {about['seed']}; {about['device']}; "
        f"{about['seconds']:.0f} s besides training. "
        f"`python -m experiments.known_truth --family {about['organ']} --steps {about['steps']}`.",
        "\nPlaces of one organ, carried to the next: mean error (95 % of places), mm.\n",
        "| what is carried | through the template | by the shapes' displacements alone | by the place in the box, to "
        "the nearest point of the surface |",
        "|---|---|---|---|",
    ]
    for what in ("surface", "landmarks"):
        cells = (moved[f"{what}, {way}"] for way in ("template", "displacement", "box"))
        lines.append(
            f"| {what} | " + " | ".join(f"{c['mean_mm']:.2f} ({c['p95_mm']:.2f})" for c in cells) + " |"
        )
    left = moved["equation left"]
    lines += [
        f"\nOf these errors, the equation that was solved left {left['mean_mm']:.3f} ({left['p95_mm']:.3f}).\n",
        f"| vertices of | root mean square deviation, mm | share of variance in 1 to {MODES} modes, % |",
        "|---|---|---|",
    ]
    for name, row in modes.items():
        shares = ", ".join(f"{100 * share:.1f}" for share in row["shares"][1:])
        lines.append(f"| {NAMES[name]} | {row['rms_mm']:.2f} | {shares} |")
    made, new = ("{:.2f} ± {:.2f} ml".format(*volumes[name]) for name in ("made", "new"))
    lines.append(f"\nVolume of {NEW} random shapes {made}, of {NEW} new organs {new}.")
    repaired = {"change": rows["repairs"]} if "repairs" in rows else {}
    for title, table in (("completed", rows["completion"]), ("repaired", repaired)):
        for task, amounts in table.items():
            ways = list(next(iter(amounts.values())))
            lines += [f"\n| {title}: {task} | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
            for amount, row in amounts.items():
                lines.append(
                    f"| {amount} | " + " | ".join(f"{row[w][0]:.2f} / {row[w][1]:.2f}" for w in ways) + " |"
                )
    if "calibration" not in rows:
        return [*lines, "\nDraws: not measured." if repaired else "\nRepairs and draws: not measured."]
    lines.append(
        f"\nOf one organ in {EVERY_DRAWN}: covered by 19 draws, and the draws' spread in mm, where it was seen "
        "and where it was not:"
    )
    for task, row in rows["calibration"].items():
        lines.append(f"- {task}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
    return lines


def model_of(path: Path, masks: Path, steps: int) -> TrainedAtlas:
    """An atlas of the first organs; that of an earlier call, where there is one."""
    if path.exists():
        return load(str(path))
    prepared = PrepareConfig(margin=MARGIN)
    shapes = [prepared.shape_of(read_mask(mask)) for mask in find_cases(masks).paths[:KNOWN]]
    atlas = train(shapes, config=default_config(KNOWN, best_device(), steps=steps))
    path.parent.mkdir(parents=True, exist_ok=True)
    atlas.save(path)
    return atlas


@exit_status
def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="curved-tube")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument(
        "--runs", type=Path, default=RUNS / "known-truth", help="where organs and models are kept"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    folder = options.runs / options.family / "masks"
    write_phantoms(folder, options.family, KNOWN + UNSEEN)
    atlas = model_of(options.runs / f"{options.family}.atlas", folder, options.steps)
    masks = [read_mask(path) for path in find_cases(folder).paths[KNOWN:]]
    organs = make_phantoms(options.family, KNOWN + UNSEEN)[KNOWN:]
    kept = options.runs / f"{options.family}.parts.json"
    found = measure(atlas, masks, options.family, organs, kept, options.parts)
    about = about_run(atlas, options.family, masks)
    about |= {"seconds": round(found.pop("seconds"), 1)}
    text = json.dumps({"about": about, "known_truth": found}, indent=1) + "\n"
    write_atomic(RESULTS / f"known-truth-{options.family}.json", text.encode())
    uses.draw(atlas, masks, options.family)
    picture(atlas, organs[:SHOWN], uses.DOCS / f"correspondence-{options.family}.png")


if __name__ == "__main__":
    sys.exit(main())
