"""The page around the sections: one file that asks the network for nothing and runs no script but its own."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from plotly.offline import get_plotlyjs

from implicit_atlas.report.markup import inline_json, text
from implicit_atlas.report.sections import Section

HERE = Path(__file__).parent


def page(title: str, sections: Sequence[Section], made_by: str) -> bytes:
    """The whole page, UTF-8.

    Its content security policy names the hashes of its two scripts: a browser then runs nothing else, and loads
    nothing from anywhere.
    """
    scripts = [_script(get_plotlyjs()), _script((HERE / "page.js").read_text(encoding="utf-8"))]
    style = (HERE / "page.css").read_text(encoding="utf-8")
    figures = {
        name: dataclasses.asdict(figure) for section in sections for name, figure in section.figures.items()
    }
    links = "".join(f'<a href="#{part.name}">{text(part.title)}</a>' for part in sections)
    body = "".join(
        f'<section id="{part.name}"><h2>{text(part.title)}</h2>{part.content}</section>' for part in sections
    )
    run = "".join(f"<script>{script}</script>\n" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{text(title)}</h1><nav aria-label="Sections">{links}</nav></header>
<main>
<noscript><p class="warning">The figures need JavaScript; the tables do not.</p></noscript>
{body}
</main>
<footer>{text(made_by)}</footer>
<script type="application/json" id="figures">{inline_json(figures)}</script>
{run}</body>
</html>
""".encode()


def _policy(scripts: Sequence[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _script(source: str) -> str:
    """A script as it may stand in a page: it cannot end its element, and a browser hashes it as we do."""
    one_ending = source.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub("<(/script|!--)", r"\\x3c\1", one_ending, flags=re.IGNORECASE)
