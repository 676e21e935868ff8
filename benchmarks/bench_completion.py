"""Completions of organs from 64 clicks on their boundary: together beside one by one, and draws beside as many organs.

The organs are random ones of the hippocampi that ship, so that no data is needed.
Run: python benchmarks/bench_completion.py
"""

from __future__ import annotations

import numpy as np
from common import compare, report

from implicit_atlas import load
from implicit_atlas.completion import complete, from_points
from implicit_atlas.generation import generate

ORGANS, CLICKS, DRAWS, REPEATS = 4, 64, 8, 3


def main() -> None:
    """Time them by turns."""
    atlas, rng = load("hippocampus"), np.random.default_rng(0)
    seen = [
        from_points(rng.choice(organ.mesh().vertices, CLICKS, replace=False), name=organ.name)
        for organ in generate(atlas, ORGANS)
    ]

    def one_by_one() -> None:
        for one in seen:
            complete(atlas, [one])

    what = f"{ORGANS} completions from {CLICKS} clicks"
    report(compare(f"{what}, beside one by one", lambda: complete(atlas, seen), one_by_one, repeats=REPEATS))
    report(
        compare(
            f"a completion from {CLICKS} clicks with {DRAWS} draws, beside {ORGANS} completions",
            lambda: complete(atlas, seen[:1], draws=DRAWS),
            one_by_one,
            repeats=REPEATS,
        )
    )


if __name__ == "__main__":
    main()
