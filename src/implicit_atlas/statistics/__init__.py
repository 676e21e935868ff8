"""Statistics of shapes in dense correspondence: alignment, principal modes, quality of a shape model, two groups."""

from implicit_atlas.statistics.alignment import Alignment, align
from implicit_atlas.statistics.cases import Shapes
from implicit_atlas.statistics.groups import GroupComparison, compare_groups
from implicit_atlas.statistics.modes import (
    Curve,
    ShapeStatistics,
    compactness,
    generality,
    principal_modes,
    specificity,
)

__all__ = [
    "Alignment",
    "Curve",
    "GroupComparison",
    "ShapeStatistics",
    "Shapes",
    "align",
    "compactness",
    "compare_groups",
    "generality",
    "principal_modes",
    "specificity",
]
