"""Templates and a few training shapes as surfaces in millimetres, coarse enough for a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from implicit_atlas.geometry.surface import CubeMesh
from implicit_atlas.io.mesh_repair import enclosed_volume
from implicit_atlas.report.latent import spread
from implicit_atlas.support.console import Report
from implicit_atlas.tasks.templates import pairwise_dsc, templates
from implicit_atlas.trained_atlas import TrainedAtlas

SIDES = (64, 56, 48, 40, 32, 24)
"""Nodes along each axis, tried from the finest on until the surfaces fit into the page."""
MOST_BYTES = 2_400_000
TEMPLATES, EXAMPLES = 12, 6
"""How many are drawn at most."""


@dataclass(frozen=True, eq=False)
class Solid:
    """A closed surface about the origin, axes to the right, to the front and up.

    Args:
        vertices_mm: (v, 3).
        faces: (f, 3) indices of vertices.
        title: its name.
        note: a line about it.
        template: the one that it is or deforms; None for a field without templates.
    """

    vertices_mm: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    title: str
    note: str
    template: int | None

    @property
    def bytes(self) -> int:
        """How much room it takes in a page, as base64 of single precision and of indices."""
        width = 2 if len(self.vertices_mm) <= 1 << 16 else 4
        return (12 * len(self.vertices_mm) + 3 * width * len(self.faces)) * 4 // 3


@dataclass(frozen=True, eq=False)
class Gallery:
    """Surfaces to draw, decoded on a lattice of so many nodes a side.

    Args:
        overlaps: pairwise DSC of all templates in percent, on that lattice.
    """

    side: int
    templates: tuple[Solid, ...]
    examples: tuple[Solid, ...]
    overlaps: list[list[float]]


def gallery(atlas: TrainedAtlas, report: Report) -> Gallery:
    """Decode what a page shows, as finely as it has room for."""
    for side in SIDES[:-1]:
        found = _decoded(atlas, side, report)
        if sum(solid.bytes for solid in (*found.templates, *found.examples)) <= MOST_BYTES:
            return found
    return _decoded(atlas, SIDES[-1], report)


def _decoded(atlas: TrainedAtlas, side: int, report: Report) -> Gallery:
    report(0.1, f"templates, {side} nodes a side")
    learned = templates(atlas, side) if atlas.templates else []
    total = len(atlas.config.names)
    shown = [
        _solid(
            template.mesh,
            np.asarray(atlas.config.size_mm),
            f"Template {template.index}",
            f"{len(template.users) or 'none'} of {total} training shapes",
            template.index,
        )
        for template in learned[:TEMPLATES]
    ]
    examples = []
    for place, index in enumerate(spread(atlas.codes, EXAMPLES)):
        report(0.4 + 0.5 * place / EXAMPLES, f"training shapes, {side} nodes a side")
        examples.append(_example(atlas, index, side, place == 0))
    return Gallery(side, tuple(shown), tuple(examples), pairwise_dsc(learned))


def _example(atlas: TrainedAtlas, index: int, side: int, typical: bool) -> Solid:
    about = atlas.config
    own = len(about.sizes_mm) == len(about.names)
    size = np.asarray(about.sizes_mm[index] if own else about.size_mm)
    fit = atlas.known(about.names[index])
    which = fit.found.template
    note = "" if which is None else f"template {which}"
    if typical:
        note = f"{note}{', ' if note else ''}nearest to the mean code"
    return _solid(fit.cube_mesh(side), size, fit.name, note, which)


def _solid(
    mesh: CubeMesh, size_mm: Float[np.ndarray, " 3"], title: str, note: str, template: int | None
) -> Solid:
    vertices = mesh.vertices * (size_mm / 2)
    volume = f"{enclosed_volume(vertices, mesh.faces) / 1000:.3g} ml" if len(mesh.faces) else "no surface"
    return Solid(vertices, mesh.faces, title, f"{note}{', ' if note else ''}{volume}", template)
