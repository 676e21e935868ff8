"""Learning from noisy annotations: python -m experiments.noise --organ hippocampus --steps 400 --iterations 100.

Training masks are changed as `experiments.cells.corrupt` says; the reconstructions of the training shapes and of
unknown ones are scored against clean masks. `--noises label-2 slices-2` and `--only implicit-atlas+reg pca-128`
choose cells.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments.cells.command import arguments, execute
from experiments.cells.corrupt import NOISES, STRENGTHS
from experiments.cells.data import Organ, Subset
from experiments.cells.series import Column, Series
from experiments.cells.tables import Result, Row, Table
from experiments.cells.variants import PRODUCT
from experiments.peers.difnet_run import METHOD as DIF_NET
from implicit_atlas.atlas.methods import DEFAULT_METHOD

TITLE = "Learning from noisy annotations"
SUBSETS: tuple[Subset, ...] = ("few_shot", "train")
ROWS = (
    # As in the other tables, and as the product does it: templates of few shapes start as means of several noisy ones.
    Row(DEFAULT_METHOD),
    Row(DEFAULT_METHOD, variant=PRODUCT),
    *(Row(m) for m in ("implicit-atlas", "mlp", "mlp+template", "conv", DIF_NET, "pca-128", "nearest")),
)
KINDS = {
    "label": ("noisy labels", "The outline of each training mask was moved in and out at random, {} mm rms."),
    "border": ("incomplete borders", "A random cap of each training mask was cut off, {} of its volume."),
    "slices": (
        "thick slices",
        "Of each training mask only slices at least {} mm apart were kept, and repeated.",
    ),
}


def table_of(subset: Subset, noise: str, rows: tuple[Row, ...] = ROWS) -> Table:
    """Cells that learn from a subset with a noise; "" for none."""
    return Table("noise", TITLE, subset, rows, noise)


def series_of(subset: Subset, kind: str, rows: tuple[Row, ...] = ROWS) -> Series:
    """Known and unknown shapes, without the noise and at each strength."""
    unit = "" if kind == "border" else " mm"
    amounts = [f"{100 * a:g} %" if kind == "border" else f"{a:g}" for a in STRENGTHS[kind]]
    noises = [("clean", ""), *((f"{a}{unit}", f"{kind}-{i}") for i, a in enumerate(amounts, start=1))]
    columns = [
        Column(f"{side}, {title}", table_of(subset, noise, rows), side)
        for side in ("known", "unknown")
        for title, noise in noises
    ]
    name, what = KINDS[kind]
    shapes = "five training shapes" if subset == "few_shot" else "all training shapes"
    about = (
        f"{what.format(', '.join(amounts))} All scores are against clean masks: known shapes as their training codes "
        "stand, and as `pca-128` and `nearest` rebuild them from the noisy mask, so that `nearest` shows the "
        "annotation itself; unknown shapes from their clean masks."
    )
    return Series(f"{TITLE}: {name}, {shapes}", about, tuple(columns))


def markdown(organ: Organ, results: Sequence[Result]) -> str:
    """A table for each subset and kind of which there are results; "" where there are none."""
    found = [series_of(subset, kind) for subset in SUBSETS for kind in KINDS]
    return "\n\n".join(s.markdown(organ, results) for s in found if s.exists(organ, results))


def main() -> int:
    """Run the cells and print the tables."""
    parser = arguments(TITLE)
    parser.add_argument("--subset", choices=SUBSETS, default=SUBSETS[0], help="what is learned from")
    parser.add_argument(
        "--noises", nargs="*", choices=NOISES, default=NOISES, help="of these, and of clean masks"
    )
    options = parser.parse_args()
    tables = [table_of(options.subset, noise) for noise in ("", *options.noises)]
    return execute(options, tables, markdown)


if __name__ == "__main__":
    sys.exit(main())
