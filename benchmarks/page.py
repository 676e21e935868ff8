"""docs/performance.md, of what benchmarks and experiments kept in their results: python benchmarks/page.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS

from implicit_atlas.training.config import MANY_WARPS

ROOT = Path(__file__).parent.parent
DOCS, EXPERIMENTS = ROOT / "docs", ROOT / "experiments"
RUN = EXPERIMENTS / "results"
PICTURE = "performance-growth.png"
ITERATIONS = 100
METHOD, MORE_WARPS = "implicit-atlas+reg", "more-warps"
GROWS = {"shapes": "shapes", "resolution": "nodes a side", "templates": "templates"}
PAGE = """# Speed

Written by `make bench` (`benchmarks/`, `python benchmarks/page.py`); nothing here is typed. Ratios are of medians of
runs by turns, product against reference, on one machine at one time, so that other load meets both. A benchmark that
was not run has no line. How long trainings and fits of the tables took stands in [results.md](results.md).
"""

GPU = """Goals: 221 hippocampi trained to the paper's unknown accuracy in 60 s, 39 shapes fitted together in 3 s, 128³
decoded in 3 ms a shape. `bench_gpu.py` measures them; what has no line below was **not measured**."""
GPU_LINES = {
    "errors": "gradients and values of the kernels that read maps agree with torch's operations: relative errors {}",
    "tflop_per_s": "large products of bfloat16 matrices: {} TFLOP/s",
    "gigabytes_per_s": "large copies: {} GB/s, read and written",
    "seconds": "training: {} s (goal 60)",
    "until_tenth_step_s": "of that until the tenth step: {} s",
    "unknown_dsc": "unknown shapes: {} % DSC",
    "unknown_nsd": "unknown shapes: {} % NSD",
    "fits_s": "fits together: {} s (goal 3)",
    "decoding_ms": "a shape: {} ms (goal 3)",
    "step_ms": "a step: {} ms",
    "reference_ms": "the same by torch's operations: {} ms",
    "arithmetic_ms": "arithmetic alone: {} ms",
    "memory_ms": "memory alone: {} ms",
}

TRAININGS = """All training shapes; with a thousand warped copies, the default, and fitted as by default; or with a
copy of each shape, fitted by the paper's loss. 100 iterations, 256 degrees of freedom, beside other work; the time of
a fit is a shape's share of its batch. The goal is 60 minutes on two cores for hippocampi as good as the paper's. The
paper's shapes are more (221 hippocampi), and its unknown ones are others."""


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


def trainings() -> list[str]:
    """The table of whole trainings and fits of the default method, of all training shapes of the paper's organs."""
    paper = json.loads((EXPERIMENTS / "paper.json").read_text(encoding="utf-8"))
    lines = [
        "| organ | shapes | copies | steps | training | a fit | unknown, DSC / NSD | paper | machine |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    copies = {METHOD: "one each", f"{METHOD}-{MORE_WARPS}": MANY_WARPS}
    found = [(c, path) for m, c in copies.items() for path in RUN.glob(f"*-train-{m}-seed0-*.json")]
    for number, path in sorted(found, key=lambda each: each[1]):
        one = json.loads(path.read_text(encoding="utf-8"))
        if one["cell"]["iterations"] != ITERATIONS:
            continue
        organ, about, unknown = one["cell"]["organ"], one["training"], one["unknown"]
        column = paper["columns"].index(f"{organ}_unknown")
        values = [
            organ,
            unknown["protocol"]["training_shapes"],
            number,
            one["cell"]["steps"],
            f"{about['seconds'] / 60:.0f} min",
            f"{about['fit_seconds']:.1f} s",
            f"{unknown['mean']['dsc']:.2f} / {unknown['mean']['nsd']:.2f}",
            " / ".join(f"{value:.2f}" for value in paper["table2"][METHOD][column]),
            about["device"],
        ]
        lines.append(f"| {' | '.join(map(str, values))} |")
    return lines


FLOORS = """What convolutions and products of matrices alone take at the rate of a large product, and what torch's
operations read and write takes at the rate of a large copy, if caches keep nothing (`bench_floors.py`; single
precision). Maps are read at points by kernels of our own, which count for what they return."""


def floors(found: list[dict[str, Any]]) -> list[str]:
    """The table of what arithmetic and memory allow."""
    lines = ["| what | takes | arithmetic alone | memory alone | machine |", "|---|---|---|---|---|"]
    for one in found:
        if "arithmetic_s" in one:
            arithmetic = (
                f"{one['arithmetic_s']:.3g} s ({one['gflop']:.3g} GFLOP at {one['gflop_per_s']:.3g} a second)"
            )
            memory = f"{one['memory_s']:.2g} s ({one['gigabytes']:.2g} GB at {one['gigabytes_per_s']:.2g} a second)"
            lines.append(
                f"| {one['work']} | {one['work_s']:.3g} s | {arithmetic} | {memory} | {one['machine']} |"
            )
    return lines


def on_gpu(found: list[dict[str, Any]]) -> list[str]:
    """A line for each number that was taken on a GPU."""
    lines = ["| what | found | machine |", "|---|---|---|"]
    for one in found:
        values = [
            text.format(_brief(one[key])) for key, text in GPU_LINES.items() if "gpu" in one and key in one
        ]
        if values:
            lines.append(
                f"| {one['name'].removeprefix('GPU: ')} | {'; '.join(values)} | {one['gpu']}, {one['machine']} |"
            )
    return lines


def _brief(value: float | list[float]) -> str:
    numbers = value if isinstance(value, list) else [value]
    return ", ".join(f"{number:.3g}" for number in numbers)


def growth(found: list[dict[str, Any]]) -> list[str]:
    """The table of growth, and its picture."""
    grown = [one for one in found if "sizes" in one]
    lines = ["| what | unit | seconds by size | machine |", "|---|---|---|---|"]
    for one in grown:
        pairs = ", ".join(f"{n}: {s:.3g}" for n, s in zip(one["sizes"], one["seconds"], strict=True))
        lines.append(f"| {one['name']} | {one['unit']} | {pairs} | {one['machine']} |")
    figure, panels = plt.subplots(1, len(GROWS), figsize=(11, 3.6), layout="constrained", sharey=True)
    for axes, (by, unit) in zip(panels, GROWS.items(), strict=True):
        own = [one for one in grown if one["name"].endswith(f"by {by}")]
        for one in own:
            what = one["name"].removesuffix(f", by {by}")
            axes.plot(one["sizes"], one["seconds"], marker="o", label=f"{what} ({one['unit']})")
        sizes = sorted({size for one in own for size in one["sizes"]})
        axes.set(xscale="log", yscale="log", xlabel=unit)
        axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
        axes.minorticks_off()
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    figure.savefig(DOCS / PICTURE, dpi=110)
    plt.close(figure)
    return [*lines, "", f"![Growth of cost]({PICTURE})"]


def main() -> None:
    """Write the page."""
    found = results()
    memory = [
        f"Training {one['shapes']} shapes takes {one['peak_gb']:.2f} GB with workers (goal "
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
        "## Floors",
        "",
        FLOORS,
        "",
        *floors(found),
        "",
        "## On a GPU",
        "",
        GPU,
        "",
        *on_gpu(found),
        "",
        "## Whole trainings",
        "",
        TRAININGS,
        "",
        *trainings(),
        "",
        "## Growth",
        "",
        *growth(found),
    ]
    (DOCS / "performance.md").write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
