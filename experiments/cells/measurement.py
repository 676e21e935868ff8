"""How a use of an atlas is measured by the command line, on unseen masks, and what is kept beside the numbers."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import implicit_atlas
from experiments.cells.cell import RESULTS
from experiments.cells.data import DEFAULT_DATA
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.pose import FREE
from implicit_atlas.fitting.sparse import SparseConfig
from implicit_atlas.io import Mask, case_name, find_cases, read_mask
from implicit_atlas.shapes.shape import Shape, prepare
from implicit_atlas.support.console import exit_status
from implicit_atlas.support.files import write_atomic
from implicit_atlas.trained_atlas import TrainedAtlas

TOLERANCE_MM = 1.0


def free_numbers(atlas: TrainedAtlas) -> int:
    """Numbers of a completion: code, residual and pose, all under a prior."""
    nodes = atlas.residual_nodes(SparseConfig().residual_nodes)
    return atlas.codes.shape[1] + (0 if nodes is None else nodes.free) + FREE


def unseen(folder: Path, every: int) -> list[Mask]:
    """Every n-th of the masks that no training saw, of a folder with masks/ and splits.json."""
    names = json.loads((folder / "splits.json").read_text())["val"][::every]
    wanted = {case_name(Path(name)) for name in names}
    return [read_mask(path) for path in find_cases(folder / "masks").paths if case_name(path) in wanted]


def known_shapes(atlas: TrainedAtlas, folder: Path, margin: float = 0.0) -> list[Shape]:
    """The shapes that an atlas has learned, of one mask after the other: scans of livers together fill a memory.

    Raises:
        InputError: they do not lie in this folder.
    """
    names = set(atlas.config.names)
    paths = [path for path in find_cases(folder).paths if case_name(path) in names]
    if len(paths) < len(names):
        problem = f"holds {len(paths)} of the {len(names)} masks that the model has learned"
        raise InputError(str(folder), problem, "Give the folder that it was trained on.")
    return [prepare(read_mask(path), margin=margin) for path in paths]


def about_run(atlas: TrainedAtlas, organ: str, masks: list[Mask]) -> dict[str, Any]:
    """What to know of measurements."""
    return {
        "organ": organ,
        "cases": len(masks),
        "tolerance_mm": TOLERANCE_MM,
        "training_shapes": len(atlas.config.names),
        "margin": atlas.config.margin,
        "steps": atlas.provenance["steps"],
        "seed": atlas.provenance["training"]["seed"],
        "device": f"{atlas.device} ({platform.machine()}, {torch.get_num_threads()} threads)",
    }


def protocol_of(about: dict[str, Any], module: str) -> str:
    """With what a use was measured, and by which command, for its page."""
    return (
        f"an atlas of {about['training_shapes']} training shapes and {about['steps']} steps, seed {about['seed']}; "
        f"{about['degrees_of_freedom']} numbers; {about['device']}; {about['seconds']:.0f} s; MODEL with a margin of "
        f"{100 * about['margin']:g} %. `python -m experiments.{module} MODEL --organ {about['organ']} "
        f"--every {about['every']}`."
    )


@exit_status
def run_measurement(
    text: str | None,
    name: str,
    key: str,
    measure: Callable[..., Any],
    more: Callable[[TrainedAtlas], dict[str, Any]],
    tasks: Sequence[str] = (),
) -> None:
    """Measure a use of a model on unseen masks, by the command line, and keep what was found.

    Args:
        text: of the help.
        name: of the result file, before the organ's.
        key: under which the file has the measurements.
        measure: of an atlas, masks, what to say lines by, and, where there are tasks, the chosen ones.
        more: what else to know of it.
        tasks: of which the command line may choose some; what the file has of others stays.
    """
    options = _options(text, tasks)
    folder = options.data or DEFAULT_DATA / options.organ
    atlas = implicit_atlas.load(str(options.model))
    masks = unseen(folder, options.every)
    begun = time.perf_counter()
    chosen = (options.tasks,) if tasks else ()
    found = measure(atlas, masks, lambda line: print(line, flush=True), *chosen)
    seconds = round(time.perf_counter() - begun, 1)
    about = {**about_run(atlas, options.organ, masks), **more(atlas)}
    about |= {"every": options.every, "seconds": seconds}
    path = RESULTS / f"{name}-{options.organ}.json"
    if tasks and len(options.tasks) < len(tasks) and path.exists():
        about, found = _beside_others(json.loads(path.read_text()), key, about, found)
    write_atomic(path, (json.dumps({"about": about, key: found}, indent=1) + "\n").encode())


def _options(text: str | None, tasks: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("model", type=Path)
    parser.add_argument("--organ", default="hippocampus")
    parser.add_argument("--data", type=Path, help="folder with masks/ and splits.json")
    parser.add_argument("--every", type=int, default=1, help="of the unseen cases, take every n-th")
    if tasks:
        parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks, help="these alone")
    return parser.parse_args()


def _beside_others(
    before: dict[str, Any], key: str, about: dict[str, Any], found: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was measured again, beside what a file has of other tasks, which keeps what is said of it.

    What is said of the file's first run goes with the last task that it measured.
    """
    once_more = {
        "measured": list(found),
        **{name: about[name] for name in ("cases", "every", "seconds", "degrees_of_freedom")},
    }
    earlier = before["about"].get("again", [])
    still_there = [one for one in earlier if not set(one["measured"]) <= set(found)]
    of_others = {task for one in (*still_there, once_more) for task in one["measured"]}
    if set(before[key]) <= of_others:
        return {**about, "again": still_there}, before[key] | found
    return {**before["about"], "again": [*still_there, once_more]}, before[key] | found
