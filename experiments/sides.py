"""Organs of the other side, measured: python -m experiments.sides MODEL --organ hippocampus.

MODEL has learned from `train` alone, of an organ whose cases are all of one side. The unseen ones are mirrored in
space; how many of these and of the others are taken for the other side, and how well mirrored ones are followed as
they are and as `--mirror auto` has them. Results: experiments/results/sides-ORGAN.json, for docs/uses/sides.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.cells.data import HERE
from experiments.cells.measurement import TOLERANCE_MM, run_measurement
from implicit_atlas.fitting.code_fit import FEW_AT_ONCE, FitConfig
from implicit_atlas.geometry.surface import occupancy_mesh
from implicit_atlas.io import Mask, Mesh, case_name
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.metrics import score
from implicit_atlas.pictures import Panel, surfaces
from implicit_atlas.sides import sided
from implicit_atlas.trained_atlas import TrainedAtlas

WAYS = "as it is", "mirrored"
REFLECTION = np.diag([-1.0, 1.0, 1.0, 1.0])


def image_of(mask: Mask) -> Mask:
    """The mirror image of an organ: the same voxels on the image of their grid."""
    return replace(mask, grid=Grid(mask.grid.shape, REFLECTION @ mask.grid.affine))


def measure(atlas: TrainedAtlas, masks: list[Mask], report: Callable[[str], object]) -> list[dict[str, Any]]:
    """Of each case whether it is taken for the other side, whether its image is, and the image's scores in percent.

    The first one's image is drawn, docs/uses/sides-ORGAN.png.
    """
    images = [image_of(mask) for mask in masks]
    chosen = [sided(atlas, atlas.config.prepared.shape_of(image), "auto")[0] for image in images]
    rows: list[dict[str, Any]] = [
        {
            "name": case_name(mask.path),
            "taken for the other side": sided(atlas, atlas.config.prepared.shape_of(mask), "auto")[
                0
            ].frame.mirrored,
            "image found": shape.frame.mirrored,
        }
        for mask, shape in zip(masks, chosen, strict=True)
    ]
    unturned = [shape.mirrored() if shape.frame.mirrored else shape for shape in chosen]
    panels = [panel_of(occupancy_mesh(images[0].occupancy, images[0].grid), "mirror image of a mask")]
    for way, shapes in zip(WAYS, (unturned, chosen), strict=True):
        fits = atlas.fit(shapes, FitConfig(batch=FEW_AT_ONCE))
        for row, image, fit in zip(rows, images, fits, strict=True):
            row[way] = None
            if fit.failure is None:
                scores = score(image.occupancy, fit.mask(), image.grid.spacing_mm.tolist(), TOLERANCE_MM)
                row[way] = [round(100 * scores.dsc, 3), round(100 * scores.nsd, 3)]
        panels.append(panel_of(fits[0].mesh(), f"followed {way}"))
        report(f"{way}: {[row[way] for row in rows]}")
    organ = masks[0].path.parent.parent.name  # of ORGAN/masks
    surfaces(HERE.parent / "docs" / "uses" / f"sides-{organ}.png", [panels])
    return rows


def panel_of(mesh: Mesh, caption: str) -> Panel:
    """A surface to draw."""
    return Panel(mesh.vertices, mesh.faces, caption)


def main() -> int:
    """Measure and keep."""
    return run_measurement(
        __doc__,
        "sides",
        "sides",
        measure,
        lambda atlas: {"degrees_of_freedom": atlas.codes.shape[1]},
    )


if __name__ == "__main__":
    sys.exit(main())
