"""The report's figures, as plotly.js takes them."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_atlas.report.latent import LatentMap
from implicit_atlas.report.markup import label
from implicit_atlas.report.solids import Solid
from implicit_atlas.training.log import Curves

# Okabe and Ito's colours, which colour-blind eyes tell apart; the markers differ, too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d1f", "#5b5b5b")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "star", "pentagon", "cross")
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": "#1c2733"}
TERMS = ("loss", "task", "code", "laplacian", "deformation")
AXES_3D = ("xaxis", "yaxis", "zaxis")
TITLES_3D = ("R (mm)", "A (mm)", "S (mm)")
GRID = "#dfe5ea"
CAMERA = {
    "eye": {"x": 1.65, "y": 1.65, "z": 0.8},
    "center": {"x": 0, "y": 0, "z": -0.15},
    "up": {"x": 0, "y": 0, "z": 1},
}
TICKS = [float(f"{digit}e{power}") for power in range(-7, 6) for digit in (1, 2, 5)]
WIDTHS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
MOST_BINS = 24


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure as plotly.js takes it: JSON values."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]


def colour(template: int | None) -> str:
    """A template's colour, in all figures."""
    return COLOURS[0] if template is None else COLOURS[template % len(COLOURS)]


def solid_figure(solid: Solid, reach_mm: Sequence[float]) -> Figure:
    """A surface to turn; `reach_mm` is how far the axes go on either side, so that surfaces compare."""
    columns = dict(zip("xyz", solid.vertices_mm.astype("<f4").T, strict=True))
    narrow = len(solid.vertices_mm) <= 1 << 16
    columns |= zip("ijk", solid.faces.astype("<u2" if narrow else "<u4").T, strict=True)
    trace = {
        "type": "mesh3d",
        "color": colour(solid.template),
        "hoverinfo": "skip",
        "lighting": {"ambient": 0.5, "diffuse": 0.75, "specular": 0.15, "roughness": 0.7, "fresnel": 0.1},
        "lightposition": {"x": 300, "y": 500, "z": 900},
        **{name: _packed(values) for name, values in columns.items()},
    }
    scene: dict[str, Any] = {
        name: {
            "title": {"text": title, "font": {"size": 11}},
            "range": [-float(f"{reach:.4g}"), float(f"{reach:.4g}")],
            "nticks": 5,
            "tickfont": {"size": 9},
            "gridcolor": GRID,
            "zeroline": False,
            "showbackground": False,
            "showspikes": False,
        }
        for name, title, reach in zip(AXES_3D, TITLES_3D, reach_mm, strict=True)
    }
    scene |= {"aspectmode": "data", "camera": CAMERA}
    return Figure([trace], {"font": FONT, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "scene": scene})


def latent_figure(found: LatentMap, names: Sequence[str], chosen: Sequence[int | None]) -> Figure:
    """Training codes in the plane, coloured by template; names show under the pointer."""
    traces = []
    for which in sorted(set(chosen), key=lambda index: -1 if index is None else index):
        rows = [row for row, own in enumerate(chosen) if own == which]
        title = "training shapes" if which is None else f"template {which} ({len(rows)})"
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": title,
                "x": _short(found.points[rows, 0].tolist()),
                "y": _short(found.points[rows, 1].tolist()),
                "text": [label(names[row]) for row in rows],
                "hovertemplate": f"%{{text}}<br>{title}<extra></extra>",
                "marker": {
                    "color": colour(which),
                    "symbol": MARKERS[(which or 0) % len(MARKERS)],
                    "size": 9,
                    "opacity": 0.85,
                    "line": {"width": 0.5, "color": "#ffffff"},
                },
            }
        )
    return Figure(traces, _flat("component 1 (code units)", "component 2 (code units)", legend=True))


def curves_figure(curves: Curves) -> Figure:
    """Loss terms of a run against its steps."""
    traces = []
    for index, name in enumerate(TERMS):
        values = [_positive(value) for value in curves.get(name, ())]
        if any(value is not None for value in values):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name,
                    "x": list(curves["step"]),
                    "y": values,
                    "line": {"color": COLOURS[index], "width": 1.6},
                    "hovertemplate": f"step %{{x}}: {name} %{{y:.4g}}<extra></extra>",
                }
            )
    layout = _flat("training step", "value before weights (no unit)", legend=True)
    layout["yaxis"] |= {"type": "log", "tickvals": TICKS, "tickformat": "~g"}
    return Figure(traces, layout)


def histogram_figure(values: Sequence[float], title: str, index: int) -> Figure:
    """How many cases have a score; `values` in percent."""
    low = math.floor(min(*values, 99.0))
    step = next(width for width in WIDTHS if (100 - low) / width <= MOST_BINS)
    edges = 100 - step * np.arange(math.ceil((100 - low) / step), -1, -1)
    counts, _ = np.histogram(values, edges)
    trace = {
        "type": "bar",
        "x": _short(((edges[1:] + edges[:-1]) / 2).tolist()),
        "y": counts.tolist(),
        "width": step,
        "text": [f"{a:g} to {b:g} %" for a, b in itertools.pairwise(edges.tolist())],
        "textposition": "none",
        "marker": {"color": COLOURS[index], "line": {"width": 1, "color": "#ffffff"}},
        "hovertemplate": "%{text}: %{y} cases<extra></extra>",
    }
    layout = _flat(f"{title} (%)", "cases (number)", legend=False)
    layout["yaxis"] |= {"rangemode": "tozero", "tickformat": "d"}
    return Figure([trace], layout)


def _flat(x_title: str, y_title: str, legend: bool) -> dict[str, Any]:
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True, "linecolor": "#9aa7b3"}
    return {
        "font": FONT,
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "xaxis": {**axis, "title": {"text": x_title}},
        "yaxis": {**axis, "title": {"text": y_title}},
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
    }


def _packed(values: np.ndarray) -> dict[str, str]:
    """Numbers as plotly.js reads them without losing room: little-endian bytes in base64."""
    kind = values.dtype.str[1:]
    return {"dtype": kind, "bdata": base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")}


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _positive(value: object) -> float | None:
    """A value that a logarithmic axis can show."""
    number = isinstance(value, (int, float)) and math.isfinite(value) and value > 0
    return float(value) if number else None  # pyright: ignore
