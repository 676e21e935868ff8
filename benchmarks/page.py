"""docs/performance.md, of what the benchmarks kept in benchmarks/results: python benchmarks/page.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS

DOCS = Path(__file__).parent.parent / "docs"
PICTURE = "performance-growth.png"
PAGE = """# Speed

Written by `make bench` (`benchmarks/`, `python benchmarks/page.py`); nothing here is typed. Ratios are of medians of
runs by turns, product against reference, on one machine at one time, so that other load meets both. A benchmark that
was not run has no line. How long trainings and fits of the tables took stands in [results.md](results.md).

No GPU was at hand: the goals for one (221 hippocampi trained in 60 s, 39 shapes fitted in 3 s, 128³ decoded in 3 ms)
are **not measured**.
"""


def results() -> list[dict[str, Any]]:
    """All that was kept."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def ratios(found: list[dict[str, Any]]) -> list[str]:
    """The table of comparisons."""
    lines = ["| what | product | reference | ratio | goal | machine |", "|---|---|---|---|---|---|"]
    for one in found:
        if "ratio" not in one:
            continue
        ours, theirs = (
            one[side]["median"] if side in one else one[f"{side}_s"] for side in ("product", "reference")
        )
        scores = (
            f", DSC {one['product_dsc']:.2f} against {one['reference_dsc']:.2f} %"
            if "product_dsc" in one
            else ""
        )
        goal = "-" if one.get("goal") is None else f"{one['goal']:g}"
        seconds, where = f"{ours:.4g} s | {theirs:.4g} s", one["machine"]
        lines.append(f"| {one['name']}{scores} | {seconds} | {one['ratio']:.1f} | {goal} | {where} |")
    return lines


def growth(found: list[dict[str, Any]]) -> list[str]:
    """The table of growth, and its picture."""
    grown = [one for one in found if "sizes" in one]
    lines = ["| what | unit | seconds by size | machine |", "|---|---|---|---|"]
    for one in grown:
        pairs = ", ".join(f"{n}: {s:.3g}" for n, s in zip(one["sizes"], one["seconds"], strict=True))
        lines.append(f"| {one['name']} | {one['unit']} | {pairs} | {one['machine']} |")
    figure, axes = plt.subplots(figsize=(7, 4))
    for one in grown:
        axes.plot(one["sizes"], one["seconds"], marker="o", label=f"{one['name']} ({one['unit']})")
    axes.set(xscale="log", yscale="log", xlabel="shapes, nodes a side, or templates", ylabel="seconds")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(DOCS / PICTURE, dpi=110)
    plt.close(figure)
    return [*lines, "", f"![Growth of cost]({PICTURE})"]


def main() -> None:
    """Write the page."""
    found = results()
    memory = [
        f"Training {one['shapes']} shapes takes at most {one['peak_gb']:.2f} GB with workers (goal "
        f"{one['goal_gb']:g}; {one['machine']})."
        for one in found
        if "peak_gb" in one
    ]
    parts = [
        PAGE,
        "## Against references",
        "",
        *ratios(found),
        "",
        *memory,
        "",
        "## Growth",
        "",
        *growth(found),
    ]
    (DOCS / "performance.md").write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
