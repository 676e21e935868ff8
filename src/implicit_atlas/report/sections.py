"""The report's sections: what each says, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from implicit_atlas.card import facts
from implicit_atlas.report.figures import (
    Figure,
    curves_figure,
    histogram_figure,
    latent_figure,
    solid_figure,
)
from implicit_atlas.report.latent import principal_map
from implicit_atlas.report.markup import fold, holder, paragraph, prose, table, text
from implicit_atlas.report.scores import Scores, summary
from implicit_atlas.report.solids import Gallery, Solid
from implicit_atlas.trained_atlas import TrainedAtlas

SCORES = {
    "dsc": "DSC (%)",
    "nsd": "NSD (%)",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "ASSD (mm)",
    "dsc_native": "DSC on own grid (%)",
}
NOT_FINITE = "–"
HOW_TO_TURN = "Click or tap a surface, then drag to turn it; the wheel or + and − zoom."
AXES = "Axes in millimetres about the centre: R to the patient's right, A to the front, S to the head."


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the page.

    Args:
        name: its anchor, of letters only.
        title: plain text.
        content: HTML in which all texts are escaped.
        figures: those that the content has a holder for, by name.
    """

    name: str
    title: str
    content: str
    figures: Mapping[str, Figure] = field(default_factory=dict)


def about_section(atlas: TrainedAtlas, card: str) -> Section:
    """What the model is, and what its card says of data, licence and use."""
    said = prose(card) or paragraph("The model has no card: nothing is said of its data and licence.", "note")
    return Section("about", "The model", table([], facts(atlas)) + said)


def provenance_section(atlas: TrainedAtlas) -> Section:
    """Where the model comes from: options, device, versions, and hashes folded away."""
    source = dict(atlas.provenance)
    hashes = source.pop("content_sha256", {})
    options = source.pop("training", {})
    source.pop("curves", None)  # they are drawn
    content = table([], list(_flattened(source))) if source else ""
    if options:
        content += fold("Training options", table([], list(_flattened(options))))
    if hashes:
        rows = sorted(hashes.items())
        content += fold(
            f"SHA-256 of the content of {len(rows)} training masks",
            table(["training shape", "SHA-256"], rows),
        )
    return Section("provenance", "Where it comes from", content)


def training_section(atlas: TrainedAtlas) -> Section:
    """Training curves, or that there are none."""
    title, curves = "Training", atlas.provenance.get("curves")
    if not curves or not curves.get("step"):
        missing = "The model holds no curves of its training."
        return Section("training", title, paragraph(missing, "note"))
    content = holder("curves", f"Loss terms over {curves['step'][-1]:.0f} training steps")
    content += paragraph("Each term before its weight; the axis is logarithmic. Loss is the weighted sum.")
    return Section("training", title, content, {"curves": curves_figure(curves)})


def templates_section(found: Gallery) -> Section:
    """The templates, the shapes that use each, and how much they overlap."""
    if not found.overlaps:
        none = "This method has no templates: a code is decoded to a shape directly."
        return Section("templates", "Templates", paragraph(none, "note"))
    cards, figures = _cards("template", found.templates)
    content = paragraph(f"In the mean size of the training shapes. {HOW_TO_TURN} {AXES}") + cards
    hidden = len(found.overlaps) - len(found.templates)
    if hidden:
        content += paragraph(f"{hidden} more templates are not drawn.", "note")
    names = [f"template {index}" for index in range(len(found.overlaps))]
    rows = [
        [name, *(f"{value:.1f}" for value in row)] for name, row in zip(names, found.overlaps, strict=True)
    ]
    content += f"<h3>Pairwise DSC (%)</h3>{table(['', *names], rows, range(1, len(names) + 1))}"
    content += paragraph(f"On {found.side}³ nodes of the cube; 100 is the same template.")
    return Section("templates", "Templates", content, figures)


def examples_section(found: Gallery, total: int) -> Section:
    """A few training shapes, as their codes are decoded."""
    cards, figures = _cards("example", found.examples)
    which = (
        f"{len(found.examples)} of {total} training shapes, as the model decodes their codes on {found.side}³ nodes: "
        "the one nearest to the mean code, then always the one whose code is farthest from those before."
    )
    return Section("examples", "Training shapes", paragraph(f"{which} {HOW_TO_TURN} {AXES}") + cards, figures)


def latent_section(atlas: TrainedAtlas) -> Section:
    """The map of the training codes."""
    title, names = "Latent map", atlas.config.names
    found = principal_map(atlas.codes)
    if found is None:
        return Section("latent", title, paragraph("The training codes do not differ: no map.", "note"))
    chosen = [atlas.selected_template(code) for code in atlas.codes]
    first, second = (f"{100 * share:.1f} %" for share in found.shares)
    content = paragraph(
        f"A point for the code of each of the {len(names)} training shapes, by the codes' first two principal "
        f"components ({first} and {second} of their variance), coloured by template. Point at one for its name."
    ) + holder("latent", f"Codes of {len(names)} training shapes in the plane")
    return Section("latent", title, content, {"latent": latent_figure(found, names, chosen)})


def scores_section(scores: Scores, atlas: TrainedAtlas) -> Section:
    """Scores: protocol, summary, histograms, cases from the worst on, and the cases that have none."""
    content = "".join(paragraph(doubt, "warning") for doubt in scores.doubts(atlas))
    content += paragraph(scores.protocol.line()) + paragraph(scores.protocol.distances)
    figures = {}
    if scores.cases:
        content += _summary_table(scores)
        for index, (name, short) in enumerate({"dsc": "DSC", "nsd": "NSD"}.items()):
            if values := scores.values(name):
                figures[name] = histogram_figure(values, short, index)
        holders = [holder(name, f"How many cases have which {name.upper()}") for name in figures]
        content += f'<div class="pair">{"".join(holders)}</div>{_case_table(scores)}'
    else:
        content += paragraph("No case was scored.", "warning")
    if scores.problems:
        rows = [(problem.name, problem.message, problem.path) for problem in scores.problems]
        content += f"<h3>Not scored: {len(rows)}</h3>{table(['case', 'why', 'file'], rows)}"
    return Section("scores", "Scores", content, figures)


def _summary_table(scores: Scores) -> str:
    rows = []
    for name, title in SCORES.items():
        if found := summary(scores.values(name)):
            spread = NOT_FINITE if found.deviation is None else f"{found.deviation:.2f}"
            numbers = (f"{value:.2f}" for value in (found.least, found.greatest))
            rows.append((title, f"{found.mean:.2f}", spread, *numbers, found.count))
    if not rows:
        return ""
    return table(["score", "mean", "sd", "least", "greatest", "cases"], rows, range(1, 6))


def _case_table(scores: Scores) -> str:
    head = ["case", *SCORES.values(), "template", "start", "iterations", "time (s)"]
    rows, missing = [], False
    for case in scores.worst_first():
        values = [getattr(case, name) for name in SCORES]
        missing |= None in values
        cells = [NOT_FINITE if value is None else f"{value:.2f}" for value in values]
        template = NOT_FINITE if case.template is None else case.template
        rows.append([case.name, *cells, template, case.start, case.iterations, f"{case.seconds:.1f}"])
    note = f" {NOT_FINITE} stands for no finite distance: one of the surfaces is empty." if missing else ""
    right = [*range(1, 7), 8, 9]
    return f"<h3>Cases</h3>{paragraph(f'Worst NSD first.{note}')}{table(head, rows, right)}"


def _cards(kind: str, solids: Sequence[Solid]) -> tuple[str, dict[str, Figure]]:
    """Surfaces side by side at one scale, each with its name, a note and buttons."""
    parts, figures = [], {}
    drawn = [solid.vertices_mm for solid in solids if len(solid.faces)]
    reach = np.abs(np.concatenate(drawn)).max(0) * 1.05 if drawn else np.ones(3)
    for index, solid in enumerate(solids):
        inside = paragraph("It has no surface.", "note")
        if len(solid.faces):
            name = f"{kind}-{index}"
            figures[name] = solid_figure(solid, reach.tolist())
            inside = holder(name, f"Surface of {solid.title}", solid=True) + _BUTTONS
        caption = f"<strong>{text(solid.title)}</strong> <span>{text(solid.note)}</span>"
        parts.append(f"<figure><figcaption>{caption}</figcaption>{inside}</figure>")
    return f'<div class="cards">{"".join(parts)}</div>', figures


_BUTTONS = (
    '<div class="buttons"><button data-zoom="0.8" aria-label="closer">+</button>'
    '<button data-zoom="1.25" aria-label="farther">−</button><button data-zoom="">reset</button></div>'
)


def _flattened(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of JSON, those within an object after its name and a dot."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{before}{name}.")
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            yield f"{before}{name}", "none" if listed in (None, "") else str(listed)
