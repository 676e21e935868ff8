"""A fingerprint as text of fixed width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from implicit_atlas.io import printable
from implicit_atlas.shapes.fingerprint import CaseFingerprint, Fingerprint

MAX_ROWS = 40
_NAME_WIDTH = 28
_COLUMNS = ("case", "voxels", "spacing mm", "axes", "volume ml", "extent mm", "pieces", "holes", "border")
_LEFT_ALIGNED = ("case", "axes", "border")


def table(fingerprint: Fingerprint) -> str:
    """Return a summary of the set, its rows and what stands out, as fixed-width text.

    A set of more than 40 cases shows only the cases with something to see; the JSON has them all. Cases that cannot be
    used are counted: to name them, on the stream of errors, is the command's part.
    """
    parts = [_summary(fingerprint)]
    shown = fingerprint.cases
    if len(shown) > MAX_ROWS:
        unusual = {outlier.name for outlier in fingerprint.outliers}
        shown = tuple(case for case in shown if case.name in unusual or _stands_out(case))
    if shown:
        parts.append(_rows(shown[:MAX_ROWS]))
    if len(shown[:MAX_ROWS]) < len(fingerprint.cases):
        parts.append(f"{len(shown[:MAX_ROWS])} of {len(fingerprint.cases)} cases shown; the JSON has all.")
    parts += [
        _section(
            "outliers (robust z of the logarithm)",
            (
                f"{printable(outlier.name)}: {outlier.measure} {outlier.value:.4g} (z {outlier.z:+.1f})"
                for outlier in fingerprint.outliers
            ),
        ),
        _section(
            "notes", (f"{printable(case.name)}: {note}" for case in fingerprint.cases for note in case.notes)
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(fingerprint: Fingerprint) -> str:
    cases, problems = fingerprint.cases, fingerprint.problems
    organ = (
        f"label {', '.join(map(str, fingerprint.labels))}" if fingerprint.labels else "every label above 0"
    )
    lines = [f"{len(cases)} masks ({organ}), {len(problems)} that cannot be used"]
    if cases:
        lines += [
            _range("volume ml", [case.volume_ml for case in cases]),
            *(
                _range(f"extent {name} mm", [case.extent_mm[axis] for case in cases])
                for axis, name in enumerate(("left-right", "back-front", "foot-head"))
            ),
            _range("smallest spacing mm", [min(case.spacing_mm) for case in cases]),
            _range("largest spacing mm", [max(case.spacing_mm) for case in cases]),
            f"{'axes':<22}{_counts(case.orientation for case in cases)}",
            f"{'types':<22}{_counts(case.dtype for case in cases)}",
            f"{'labels':<22}{_counts(label for case in cases for label in case.label_ids)}",
            f"{'several pieces':<22}{sum(case.components > 1 for case in cases)}",
            f"{'holes':<22}{sum(case.holes > 0 for case in cases)}",
            f"{'touch the border':<22}{sum(bool(case.border_contact) for case in cases)}",
        ]
    return "\n".join(lines)


def _range(name: str, values: Sequence[float]) -> str:
    return f"{name:<22}{min(values):.4g} to {max(values):.4g}, median {np.median(values):.4g}"


def _counts(values: Iterable[object]) -> str:
    """Write the commonest values with how often each occurs."""
    common = Counter(values).most_common(9)
    words = [f"{value} ({count})" for value, count in common[:8]]
    return ", ".join(words + ["..."] * (len(common) > 8))


def _stands_out(case: CaseFingerprint) -> bool:
    return bool(case.components > 1 or case.holes or case.border_contact or case.notes)


def _rows(cases: Sequence[CaseFingerprint]) -> str:
    cells = [_COLUMNS, *(_row(case) for case in cases)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if name in _LEFT_ALIGNED else text.rjust(width)
            for name, text, width in zip(_COLUMNS, row, widths, strict=True)
        ).rstrip()
        for row in cells
    )


def _row(case: CaseFingerprint) -> tuple[str, ...]:
    name = printable(case.name)
    return (
        name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 3]}...",
        "x".join(str(length) for length in case.shape),
        "x".join(f"{size:.3g}" for size in case.spacing_mm),
        case.orientation,
        f"{case.volume_ml:.2f}",
        "x".join(f"{size:.0f}" for size in case.extent_mm),
        str(case.components),
        str(case.holes),
        "".join(case.border_contact) or "-",
    )


def _section(title: str, lines: Iterable[str]) -> str:
    listed = list(lines)
    return "\n".join([f"{title}:", *(f"  {line}" for line in listed)]) if listed else ""
