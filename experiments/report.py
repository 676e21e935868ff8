"""Write docs/results.md from the results that are kept: python -m experiments.report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from experiments import amount, figure6, noise
from experiments.cells.data import HERE, Organ
from experiments.cells.tables import IDEAS, Result, Table, read_results, rows_of, tables_of
from experiments.cells.tables import markdown as table_of
from implicit_atlas.support.files import write_atomic

INTRODUCTION = """# Results

Written by `python -m experiments.report` from `experiments/results/*.json`; nothing here is typed. `make paper
ORGAN=hippocampus TABLE=2 MINUTES=25` runs the cells of a table. "free": numbers that are free at test time; "points":
of a shape in a step of training; "iterations": of a fit. Shapes are fitted by the paper's loss (Eq. 5 and 6), from
the best of several starts (mean code, nearest training shape, linear encoding, with each template; the paper starts
at random), but for rows `robust-fit`: a loss that forgives where a shape cannot be followed, after trials of three
templates; and `strays`: what is wrong far from the surface is looked for and not forgiven, too, the default of the
product. Rows `plain`: without warps and modes, as in the paper, otherwise trained as the others (half of the points
near surfaces, codes that start at linear ones). Rows `shrunk`: templates of few shapes start between clusters' means
and the mean of all, as the product's do; `product`: with `robust-fit`, too, and `product-strays`: with `strays`, all
as the product does. Rows `more-warps` (with `strays`; the product's default of 50 shapes and more),
`more-warps-learned-modes` (patterns of modes are learned, too) and `product-warps`: a thousand warped copies; the
others have 195 of five shapes, and one of each of many. Paper: ImplicitAtlas, CVPR 2022.
"""


def page() -> str:
    """The whole page; organs of which no cell was run are left out."""
    results = read_results()
    parts = [INTRODUCTION]
    for organ in get_args(Organ):
        if any(result["cell"]["organ"] == organ for result in results):
            parts += [
                f"## {organ.capitalize()}\n",
                *(table_of(t, organ, results) + "\n" for t in _tables(organ, results)),
            ]
            if figure6.means(organ, results):
                picture = f"![Completion of {organ}](figure6-{organ}.png)\n"
                parts += [figure6.markdown(organ, results) + "\n", picture]
            parts += _beyond(organ, results)
    return "\n".join(parts)


def _tables(organ: Organ, results: Sequence[Result]) -> list[Table]:
    """Those of an organ; ideas only where one was run."""
    return [t for t in tables_of(organ) if t is not IDEAS or len(rows_of(t, organ, results)) > 1]


def _beyond(organ: Organ, results: Sequence[Result]) -> list[str]:
    """The experiments that are not the paper's, as far as they were run."""
    noisy = noise.markdown(organ, results)
    parts = [noisy + "\n"] if noisy else []
    if amount.exists(organ, results):
        picture = f"![Accuracy of {organ} by training shapes](amount-{organ}.png)\n"
        parts += [amount.markdown(organ, results) + "\n", picture]
    return parts


if __name__ == "__main__":
    write_atomic(HERE.parent / "docs" / "results.md", page().encode())
    figure6.draw_all(read_results())
    amount.draw_all(read_results())
