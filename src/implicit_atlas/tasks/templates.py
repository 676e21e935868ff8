"""The learned templates, undeformed: which shapes use each, how alike they are, and their masks and meshes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from implicit_atlas.errors import InputError
from implicit_atlas.geometry.grid import as_numpy, lattice
from implicit_atlas.geometry.surface import CubeMesh, volume_mesh
from implicit_atlas.io import Mesh, write_mask, write_mesh
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.metrics import dsc
from implicit_atlas.support.files import write_atomic
from implicit_atlas.tasks.formats import DEFAULT, Formats
from implicit_atlas.trained_atlas import TrainedAtlas


@dataclass(frozen=True, eq=False)
class Template:
    """A learned template, undeformed: its occupancy and surface in the cube, and the shapes that use it."""

    index: int
    occupancy: np.ndarray
    mesh: CubeMesh
    users: tuple[str, ...]


def templates(atlas: TrainedAtlas, resolution: int | None = None) -> list[Template]:
    """Every learned template.

    Raises:
        InputError: the method has none.
    """
    if atlas.templates == 0:
        raise InputError(atlas.config.model.method, "has no templates", "Use a method with templates.")
    resolution = resolution or atlas.config.resolution
    points = as_numpy(lattice(resolution)).reshape(-1, 3)
    chosen = [atlas.selected_template(code) for code in atlas.codes]
    out = []
    for index in range(atlas.templates):
        logits = atlas.template_logits(index, points).reshape((resolution,) * 3)
        users = tuple(name for name, own in zip(atlas.config.names, chosen, strict=True) if own == index)
        out.append(Template(index, logits > 0, volume_mesh(logits), users))
    return out


def pairwise_dsc(found: Sequence[Template]) -> list[list[float]]:
    """DSC of every two templates, in percent."""
    return [[100 * dsc(a.occupancy, b.occupancy) for b in found] for a in found]


def write_templates(
    atlas: TrainedAtlas, found: Sequence[Template], folder: Path, formats: Formats = DEFAULT
) -> str:
    """Write templates as masks and meshes, in millimetres of the mean training cube around the origin.

    Returns:
        A table: how many shapes use each template, and the pairwise DSC.
    """
    size = np.asarray(atlas.config.size_mm)
    table = pairwise_dsc(found)
    lines = ["template  shapes  volume   pairwise DSC (%)"]
    for template, row in zip(found, table, strict=True):
        side = template.occupancy.shape[0]
        affine = np.diag([*(size / side), 1.0])
        affine[:3, 3] = (1 / side - 1) * size / 2
        name = f"template-{template.index}"
        write_mask(
            formats.mask_path(folder, name), template.occupancy, Grid(template.occupancy.shape, affine)
        )
        if len(template.mesh.faces):
            write_mesh(
                formats.mesh_path(folder, name),
                Mesh(template.mesh.vertices * (size / 2), template.mesh.faces),
            )
        volume_ml = template.occupancy.mean() * size.prod() / 1000
        scores = "  ".join(f"{value:5.1f}" for value in row)
        lines.append(f"{template.index:>8}  {len(template.users):>6}  {volume_ml:6.2f}   {scores}")
    content = {
        "pairwise_dsc": table,
        "users": {str(template.index): list(template.users) for template in found},
        "size_mm": list(atlas.config.size_mm),
    }
    write_atomic(
        folder / "templates.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    )
    return "\n".join(lines)
