"""Pictures: shaded surfaces side by side, and curves of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from implicit_atlas.files import write_atomic

LIGHT = np.array([0.4, -0.6, 0.7]) / np.linalg.norm([0.4, -0.6, 0.7])
DPI = 110
MOST = 1.4  # zoom at which a long surface still fits between the sides
FILL = 2.1  # of a panel, by the diagonal of the largest surface's box: none is cut off from any side


@dataclass(frozen=True, eq=False)
class Panel:
    """A surface to draw: vertices (v, 3) in any length unit, faces (f, 3), what to write below.

    Its colour is one for all or one a face; `marks` are points that are drawn upon it.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    caption: str
    colour: tuple[float, float, float] | Float[np.ndarray, "f 3"] = (0.80, 0.62, 0.42)
    marks: Float[np.ndarray, "m 3"] | None = None


def surfaces(path: Path, rows: Sequence[Sequence[Panel]], title: str = "") -> None:
    """Draw rows of surfaces, each row at one scale."""
    columns = max(len(row) for row in rows)
    figure = plt.figure(figsize=(3.0 * columns, 2.3 * len(rows) + 0.4))
    for r, row in enumerate(rows):
        spans = [np.ptp(panel.vertices, axis=0) for panel in row]
        reach = max(span.max() for span in spans) / 2
        zoom = min(MOST, FILL * 2 * reach / max(np.linalg.norm(span) for span in spans))
        for c, panel in enumerate(row):
            axes = figure.add_subplot(len(rows), columns, r * columns + c + 1, projection="3d")
            _draw(axes, panel, reach, zoom)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    _save(figure, path)


def training_curves(path: Path, log: Sequence[dict[str, float]]) -> None:
    """Draw the loss terms of a run against its steps."""
    figure, axes = plt.subplots(figsize=(7, 4))
    steps = [line["step"] for line in log]
    for name in ("loss", "task", "laplacian", "deformation"):
        if log and name in log[0]:
            axes.plot(steps, [line[name] for line in log], label=name, linewidth=1)
    axes.set(xlabel="step", ylabel="value before weights", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    _save(figure, path)


def _draw(axes, panel: Panel, reach: float, zoom: float) -> None:
    corners = panel.vertices[panel.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    shade = 0.35 + 0.65 * np.clip(normals @ LIGHT, 0, 1)
    axes.add_collection3d(
        Poly3DCollection(
            corners, facecolors=(shade[:, None] * np.asarray(panel.colour)).clip(0, 1), edgecolors="none"
        )
    )
    if panel.marks is not None:
        axes.scatter(
            *panel.marks.T,
            s=14,
            c=np.arange(len(panel.marks)),
            cmap="tab10",
            edgecolors="black",
            depthshade=False,
        )
    centre = (panel.vertices.max(0) + panel.vertices.min(0)) / 2
    for axis, middle in zip("xyz", centre, strict=True):
        getattr(axes, f"set_{axis}lim")(middle - reach, middle + reach)
    axes.set_box_aspect((1, 1, 1), zoom=zoom)
    axes.view_init(elev=20, azim=-60)
    axes.set_axis_off()
    axes.set_title(panel.caption, fontsize=9, y=0.06)


def _save(figure, path: Path) -> None:
    write_atomic(path, lambda partial: figure.savefig(partial, dpi=DPI))
    plt.close(figure)
