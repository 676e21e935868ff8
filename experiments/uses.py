"""Pictures of the uses of an atlas: python -m experiments.uses MODEL --organ ORGAN, of one that learned `train` alone.

Of unseen cases, completed, repaired, and made; they go to docs/uses/, whose pages show them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import implicit_atlas
from experiments.cells.data import DEFAULT_DATA, HERE
from experiments.cells.measurement import unseen
from experiments.cells.observed import clicks, cut_off, kept_slices
from experiments.gallery import FOUND, MADE, TRUTH
from experiments.populations import red_and_blue
from experiments.repairs import changed
from implicit_atlas.completion import Completion, complete, from_mask
from implicit_atlas.correspondence.through_template import reference_template
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.generation import generate, interpolate
from implicit_atlas.geometry.surface import occupancy_mesh
from implicit_atlas.io import Mask, Mesh, case_name, write_mask
from implicit_atlas.pictures import Panel, surfaces
from implicit_atlas.repair import repair
from implicit_atlas.shapes.shape import prepare
from implicit_atlas.support.console import exit_status
from implicit_atlas.trained_atlas import TrainedAtlas

DOCS = HERE.parent / "docs" / "uses"
RESOLUTION, DRAWS, EVERY, CASE = 72, 8, 13, 1
KINDS = {
    "label-2": "outline moved at random",
    "slices-2": "few slices were drawn",
    "pieces-2": "holes and islands",
}
CHANGES = {"liver": {"border-2": "a tenth was cut off", "border-3": "a fifth was cut off"}}
NO_FACES = np.zeros((0, 3), np.int64)


def of_mask(mask: Mask, caption: str, colour: tuple[float, float, float] = TRUTH) -> Panel:
    """The surface of a mask as it is."""
    shape = prepare(mask)
    mesh = occupancy_mesh(shape.occupancy, shape.frame)
    return Panel(mesh.vertices, mesh.faces, caption, colour)


def of_fit(fit: Fit, caption: str, colour: tuple[float, float, float] = FOUND) -> Panel:
    """The surface of a shape."""
    return of_mesh(fit.mesh(RESOLUTION), caption, colour)


def of_mesh(mesh: Mesh, caption: str, colour: tuple[float, float, float] = FOUND) -> Panel:
    """A surface."""
    return Panel(mesh.vertices, mesh.faces, caption, colour)


def uncertain(done: Completion) -> Panel:
    """A completed surface, the redder the farther its draws are from it."""
    mesh = done.mesh()
    spread = done.spread_mm(mesh.vertices)[mesh.faces].mean(1)
    most = float(np.percentile(spread, 98))
    return Panel(
        mesh.vertices, mesh.faces, f"spread of draws, red: {most:.1f} mm", red_and_blue(spread / most)
    )


def completion(atlas: TrainedAtlas, mask: Mask, path: Path) -> None:
    """What was observed, what was completed, how far draws lie apart, and the truth: of clicks, slices and a half."""
    name = case_name(mask.path)
    seen = clicks(mask, 64)
    slices, half = kept_slices(mask, 3)[0], cut_off(mask, 50)
    told = [seen, from_mask(slices, "slices", name), from_mask(half, "volume", name)]
    observed = [
        Panel(
            seen.points,
            NO_FACES,
            "64 clicks, inside (red) or outside (blue)",
            marks=seen.points,
            mark_colours=["tab:red" if inside > 0.5 else "tab:blue" for inside in seen.occupancy],
        ),
        of_mask(slices, "3 slices"),
        of_mask(half, "a half, the rest cut off"),
    ]
    rows = []
    for panel, done in zip(observed, complete(atlas, told, DRAWS), strict=True):
        caption = "completed, doubtful" if done.doubt else "completed"
        rows.append([panel, of_mesh(done.mesh(), caption), uncertain(done), of_mask(mask, "truth")])
    surfaces(path, rows)


def repairs(atlas: TrainedAtlas, mask: Mask, path: Path, kinds: Mapping[str, str]) -> None:
    """Clean, changed and repaired."""
    rows = []
    for kind, words in kinds.items():
        poor = dataclasses.replace(mask, occupancy=changed(mask, kind))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "poor.nii.gz"
            write_mask(file, poor.occupancy, mask.grid)
            (done,) = repair(atlas, [file], (1,))
        better = dataclasses.replace(mask, occupancy=done.occupancy)
        rows.append([of_mask(mask, "clean"), of_mask(poor, words, MADE), of_mask(better, "repaired", FOUND)])
    surfaces(path, rows)


def generation(atlas: TrainedAtlas, masks: Sequence[Mask], path: Path) -> None:
    """Random shapes, and those on the line between two unseen ones."""
    shapes = [atlas.config.prepared.shape_of(mask) for mask in (masks[0], masks[-1])]
    ends = atlas.fit(shapes, template=reference_template(atlas))
    line = interpolate(atlas, ends[0], ends[1], 5)
    rows = [
        [of_fit(fit, "random", MADE) for fit in generate(atlas, 5, 0, 0.8)],
        [of_fit(step, f"{i / 4:.2f} of the way") for i, step in enumerate(line)],
    ]
    surfaces(path, rows)


def draw(atlas: TrainedAtlas, masks: Sequence[Mask], organ: str, folder: Path = DOCS) -> None:
    """All of them, of unseen cases of an organ."""
    repairs(atlas, masks[CASE], folder / f"repair-{organ}.png", CHANGES.get(organ, KINDS))
    generation(atlas, masks, folder / f"generation-{organ}.png")
    completion(atlas, masks[CASE], folder / f"completion-{organ}.png")


@exit_status
def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--organ", default="hippocampus")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args()
    masks = unseen(options.data / options.organ, EVERY)
    draw(implicit_atlas.load(options.model), masks, options.organ)


if __name__ == "__main__":
    sys.exit(main())
