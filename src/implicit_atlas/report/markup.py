"""Pieces of HTML and of JSON in HTML, in which no text of the data can become markup or a script."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from typing import Any

from implicit_atlas.io import printable

# "<" begins a tag or a comment also within a script, and the two separators end a line in old JavaScript.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def text(value: object) -> str:
    """A value as text of HTML, or of a quoted attribute; control characters are shown as escapes."""
    return html.escape(printable(str(value)))


def label(value: object) -> str:
    """A value as text of a figure: plotly reads a few tags and entities in texts, and these three only undo tags."""
    return html.escape(printable(str(value)), quote=False)


def inline_json(values: Any) -> str:
    """JSON that may stand in a script element, whatever texts it holds; ValueError for NaN and infinite numbers."""
    dumped = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return "".join(_UNSAFE.get(character, character) for character in dumped)


def paragraph(value: object, kind: str = "") -> str:
    """A paragraph of plain text; `kind` is its class in the style sheet."""
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> str:
    """A table of plain texts, in a box that scrolls; the columns in `numbers` are set to the right.

    The first cell of a row names it. Without a head, the table is a list of names and values.
    """
    right = [' class="number"' if column in numbers else "" for column in range(len(head or rows[0]))]
    top = "".join(
        f'<th scope="col"{side}>{text(name)}</th>' for name, side in zip(head, right, strict=bool(head))
    )
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{side}>{text(cell)}</td>" for cell, side in zip(others, right[1:], strict=True))
        lines.append(f'<tr><th scope="row"{right[0]}>{text(first)}</th>{cells}</tr>')
    header = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="scroll" tabindex="0"><table>{header}<tbody>{"".join(lines)}</tbody></table></div>'


def fold(title: str, content: str) -> str:
    """HTML that is folded away under a title."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def holder(name: str, shows: str, solid: bool = False) -> str:
    """Where a figure is drawn: its name in the page's JSON, and what it shows in words."""
    kind = "figure solid" if solid else "figure"
    return f'<div class="{kind}" data-figure="{text(name)}" role="img" aria-label="{text(shows)}"></div>'


def prose(markdown: str) -> str:
    """Paragraphs of a model card, with bold and code; headings and tables are left out."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", markdown)]
    plain = [" ".join(block.split()) for block in blocks if block and block[0] not in "#|"]
    return "".join(f"<p>{_inline(text(block))}</p>" for block in plain)


def _inline(escaped: str) -> str:
    bold = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", bold)
