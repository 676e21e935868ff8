"""Ideas beyond the paper: each is one change of the defaults, and a row of the ablation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from implicit_atlas.atlas.decoders import ConvConfig
from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.fitting.local import LocalConfig
from implicit_atlas.shapes.sampling import FEWER_POINTS, PointConfig
from implicit_atlas.training.augment import WarpConfig
from implicit_atlas.training.config import FEW, FEW_SHRINKAGE, MANY_WARPS, POOL

DEFAULTS, PLAIN, NO_MODES, LOCAL, ROBUST = "defaults", "plain", "no-modes", "local", "robust-fit"
ONE_MEAN, LEARNED_MODES, FROZEN_MODES = "one-mean", "learned-modes", "frozen-modes"
SHRUNK, PRODUCT = "shrunk", "product"
STRAYS, PRODUCT_STRAYS = "strays", "product-strays"
PRODUCT_WARPS, WARPS_AND_MODES = "product-warps", "more-warps-learned-modes"
MORE_WARPS, MORE_POINTS, LARGER = "more-warps", "more-points", "larger"
_FINE = ConvConfig(channels=(64, 48, 32, 16), hidden=32)
_ROBUST = {"robustness": FitConfig.robustness, "contenders": FitConfig.contenders}
_STRAYS = {**_ROBUST, "strays": FitConfig.strays}


@dataclass(frozen=True)
class Variant:
    """What replaces the defaults of the network, of the training and of the fit."""

    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)


def _points(**change: Any) -> dict[str, PointConfig]:
    return {"points": dataclasses.replace(FEWER_POINTS, **change)}


VARIANTS: dict[str, Variant] = {
    DEFAULTS: Variant(),
    # Supervision where NSD is decided: the same number of points without a band around the surface.
    "no-band": Variant(training=_points(lattice=25, band=0), fit=_points(lattice=25, band=0)),
    # Warped copies: none, half as strong, or with a third, finer level.
    "no-warps": Variant(training={"warps": 0}),
    "weak-warps": Variant(training={"warp": WarpConfig(0.04, (0.04, 0.02), (4, 7))}),
    "fine-warps": Variant(training={"warp": WarpConfig(0.08, (0.08, 0.04, 0.02), (4, 7, 12))}),
    # Patterns of modes: kept as they start (the default of many shapes), or learned (that of few).
    FROZEN_MODES: Variant(training={"modes_share": 0.0}),
    LEARNED_MODES: Variant(training={"modes_share": 1.0}),
    # Patterns are learned, and all templates start as the mean shape, from which all coordinates are taken.
    ONE_MEAN: Variant(training={"templates": "mean", "modes_share": 1.0}),
    # Start of the codes as in the paper.
    "random-codes": Variant(training={"codes": "random"}),
    # Without the part of the deformation that is linear in the code.
    NO_MODES: Variant(model={"modes": 0}),
    # Without both, as in the paper; points, start codes and the gradient of the selection stay as in the others.
    PLAIN: Variant(model={"modes": 0}, training={"warps": 0}),
    # The paper's gradient of the selection: the mixed code is decoded for each shape.
    "gradient-of-codes": Variant(model={"gradient": "codes"}),
    # A finer level of the templates.
    "templates-33": Variant(model={"template": _FINE}),
    # More channels at the finest level of the deformation.
    "deformation-32": Variant(model={"deformation": ConvConfig(channels=(64, 48, 32), hidden=32)}),
    # Velocities instead of displacements.
    "velocity": Variant(model={"motion": "velocity"}),
    # Test-time fit: longer, slower, nearly free of the code's penalty.
    "fit-600": Variant(fit={"iterations": 600}),
    "fit-slow": Variant(fit={"learning_rate": 0.05}),
    "fit-free": Variant(fit={"code_weight": 1e-5}),
    # A loss that forgives what cannot be followed, and trials of three templates; and, the default of the product, what
    # is wrong far from the surface is not forgiven.
    ROBUST: Variant(fit=_ROBUST),
    STRAYS: Variant(fit=_STRAYS),
    # Templates of few shapes start between these and their mean, the default of the product; and with both fits, too.
    SHRUNK: Variant(training={"shrinkage": FEW_SHRINKAGE}),
    PRODUCT: Variant(training={"shrinkage": FEW_SHRINKAGE}, fit=_ROBUST),
    PRODUCT_STRAYS: Variant(training={"shrinkage": FEW_SHRINKAGE}, fit=_STRAYS),
    # Beside the product's fit many more warped copies; and what a GPU has time for: three times the points, finer maps.
    PRODUCT_WARPS: Variant(training={"shrinkage": FEW_SHRINKAGE, "warps": MANY_WARPS}, fit=_STRAYS),
    MORE_WARPS: Variant(training={"warps": MANY_WARPS}, fit=_STRAYS),
    WARPS_AND_MODES: Variant(training={"warps": MANY_WARPS, "modes_share": 1.0}, fit=_STRAYS),
    MORE_POINTS: Variant(training={"points": PointConfig()}, fit=_STRAYS),
    LARGER: Variant(model={"template": _FINE, "deformation": _FINE}, fit=_STRAYS),
    # A local residual after the code (its degrees of freedom are printed).
    LOCAL: Variant(fit={"local": LocalConfig()}),
}


def warps_of(shapes: int) -> int:
    """Warped copies in the tables: few shapes are filled up, and others have one each, up to `POOL`."""
    return POOL - shapes if shapes < FEW else min(shapes, POOL)
