"""Write docs/results.md from the results that are kept: python -m experiments.report."""

from __future__ import annotations

from typing import get_args

from experiments import figure6
from experiments.data import HERE, Organ
from experiments.tables import TABLES, read_results
from experiments.tables import markdown as table_of
from implicit_atlas.files import write_atomic

INTRODUCTION = """# Results

Written by `python -m experiments.report` from `experiments/results/*.json`; nothing here is typed. `make paper
ORGAN=hippocampus TABLE=2 MINUTES=25` runs the cells of a table. "free": numbers that are free at test time;
"points": of a shape in a step of training. Paper:
ImplicitAtlas, CVPR 2022.
"""


def page() -> str:
    """The whole page; organs of which no cell was run are left out."""
    results = read_results()
    parts = [INTRODUCTION]
    for organ in get_args(Organ):
        if any(result["cell"]["organ"] == organ for result in results):
            parts += [f"## {organ.capitalize()}\n", *(table_of(t, organ, results) + "\n" for t in TABLES)]
            if figure6.means(organ, results):
                picture = f"![Completion of {organ}](figure6-{organ}.png)\n"
                parts += [figure6.markdown(organ, results) + "\n", picture]
    return "\n".join(parts)


if __name__ == "__main__":
    write_atomic(HERE.parent / "docs" / "results.md", page().encode())
    figure6.draw_all(read_results())
