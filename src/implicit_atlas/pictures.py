"""Pictures: shaded surfaces side by side, and curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.colors import to_rgba
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from implicit_atlas.support.files import write_atomic

LIGHT = np.array([0.4, -0.6, 0.7]) / np.linalg.norm([0.4, -0.6, 0.7])
DPI = 110
WIDE, HIGH, TITLE = 3.0, 2.3, 0.4  # inches: of a panel, and above all of them
FILL = np.array([0.94, 0.76])  # of a panel's width and height, by a surface; the caption stands below
UNIT = 0.2975  # share of a square panel's side that matplotlib gives half of the axes' range, without zoom
AZIMUTH, ELEVATION = -60, 20  # degrees
# Of a surface's size: how near on the screen, and how much nearer to the viewer, what hides a mark is.
BESIDE, BEHIND, PALE = 0.02, 0.08, 0.25


@dataclass(frozen=True, eq=False)
class Panel:
    """A surface to draw: vertices (v, 3) in any length unit, faces (f, 3), what to write below.

    Its colour is one for all or one a face; `marks` are points that are drawn upon it, in colours that differ or in
    `mark_colours`, pale where the surface hides them.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    caption: str
    colour: tuple[float, float, float] | Float[np.ndarray, "f 3"] = (0.80, 0.62, 0.42)
    marks: Float[np.ndarray, "m 3"] | None = None
    mark_colours: Sequence[str] | None = None


def surfaces(path: Path, rows: Sequence[Sequence[Panel]], title: str = "") -> None:
    """Draw rows of surfaces, each row at one scale."""
    columns = max(len(row) for row in rows)
    height = HIGH * len(rows) + TITLE
    figure = plt.figure(figsize=(WIDE * columns, height))
    room = FILL * np.array([WIDE, HIGH])
    for r, row in enumerate(rows):
        extent = np.max([np.ptp(panel.vertices @ _screen(), axis=0) for panel in row], axis=0)
        scale = float((room / extent).min())  # inches per unit of length
        for c, panel in enumerate(row):
            low = 1 - (TITLE + (r + 1) * HIGH) / height
            # As high as it is wide, as matplotlib cuts off what lies outside of a square.
            place = (c / columns, low + (HIGH - WIDE) / 2 / height, 1 / columns, WIDE / height)
            _draw(figure.add_axes(place, projection="3d", proj_type="ortho"), panel, scale)
            figure.text(
                (c + 0.5) / columns,
                low + 0.04 * HIGH / height,
                panel.caption,
                fontsize=9,
                ha="center",
                parse_math=False,
            )
    figure.suptitle(title, fontsize=11, parse_math=False)
    _save(figure, path)


def _screen() -> Float[np.ndarray, "3 2"]:
    """The directions to the right and upwards, as columns."""
    azimuth, elevation = np.deg2rad([AZIMUTH, ELEVATION])
    right = [-np.sin(azimuth), np.cos(azimuth), 0]
    up = [-np.sin(elevation) * np.cos(azimuth), -np.sin(elevation) * np.sin(azimuth), np.cos(elevation)]
    return np.array([right, up]).T


def _toward() -> Float[np.ndarray, "3"]:
    """The direction to the viewer."""
    return np.cross(*_screen().T)


def hidden(vertices: Float[np.ndarray, "v 3"], marks: Float[np.ndarray, "m 3"]) -> Bool[np.ndarray, " m"]:
    """Marks with vertices of a surface before them."""
    size = np.linalg.norm(np.ptp(vertices, axis=0))
    shown, depth = vertices @ _screen(), vertices @ _toward()
    beside = np.linalg.norm((marks @ _screen())[:, None] - shown, axis=-1) < BESIDE * size
    front = np.where(beside, depth, -np.inf).max(1)
    return front - marks @ _toward() > BEHIND * size


def training_curves(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    """Draw the loss terms of a training against its steps: values by name, "step" among them."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for name in ("loss", "task", "laplacian", "deformation"):
        if name in curves:
            axes.plot(curves["step"], curves[name], label=name, linewidth=1)
    axes.set(xlabel="step", ylabel="value before weights", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    _save(figure, path)


def _draw(axes, panel: Panel, scale: float) -> None:
    corners = panel.vertices[panel.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    shade = 0.35 + 0.65 * np.clip(normals @ LIGHT, 0, 1)
    colours = (shade[:, None] * np.asarray(panel.colour)).clip(0, 1)
    front = normals @ _toward() > 0  # others lie behind these, as surfaces are closed
    corners, colours = corners[front], colours[front]
    # Thin edges of the same colours close the seams between faces.
    axes.add_collection3d(Poly3DCollection(corners, facecolors=colours, edgecolors=colours, linewidths=0.3))
    if panel.marks is not None:
        axes.computed_zorder = False  # marks stand before the surface, drawn after it
        colours = panel.mark_colours or [f"C{i % 10}" for i in range(len(panel.marks))]
        alpha = np.where(hidden(panel.vertices, panel.marks), PALE, 1.0)
        axes.scatter(
            *panel.marks.T,
            s=20,
            c=[to_rgba(colour, a) for colour, a in zip(colours, alpha, strict=True)],
            edgecolors=[to_rgba("black", a) for a in alpha],
            depthshade=False,
            zorder=3,
        )
    shown = panel.vertices @ _screen()
    middle = (shown.max(0) + shown.min(0)) / 2 - [0, (1 - FILL[1]) / 3 * HIGH / scale]
    centre = panel.vertices.mean(0)
    centre = centre + _screen() @ (middle - centre @ _screen())
    reach = UNIT * WIDE / scale
    for axis, at in zip("xyz", centre, strict=True):
        getattr(axes, f"set_{axis}lim")(at - reach, at + reach)
    axes.set_box_aspect((1, 1, 1), zoom=1)
    axes.view_init(elev=ELEVATION, azim=AZIMUTH)
    axes.set_axis_off()


def _save(figure, path: Path) -> None:
    write_atomic(path, lambda partial: figure.savefig(partial, dpi=DPI))
    plt.close(figure)
