"""How a code is fitted to a shape, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from implicit_atlas.errors import FitError, InputError
from implicit_atlas.fitting.local import LocalConfig
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.shapes.sampling import PointConfig

WITH_MODES, WITHOUT_MODES = 100, 200  # iterations; with modes, 100 do as well as 300
AT_ONCE, FEW_AT_ONCE = 40, 8  # cases that are fitted together on a GPU, and by commands on a CPU


def at_once(device: str) -> int:
    """How many cases to fit together: on a CPU many are no faster, and results of few are written sooner.

    Args:
        device: its type, as torch names it.
    """
    return FEW_AT_ONCE if device == "cpu" else AT_ONCE


@dataclass(frozen=True)
class FitConfig:
    """How to fit.

    Args:
        iterations: at most; by default `WITH_MODES`, and `WITHOUT_MODES` of a network that has no modes to start in.
        learning_rate: of Adam, at its peak.
        patience: stop a shape after this many checks (every 20 iterations) without progress.
        code_weight: weight of the code penalty (Eq. 6).
        robustness: of the loss, see `losses.generalised_cross_entropy`; 0 is that of Eq. 5. A network is so sure of its
            labels that where a shape cannot be followed would else decide the rest of it, and the template.
        contenders: templates that are tried.
        strays: how much a point counts that is on the wrong side, far from the shape's surface, beside another of an
            iteration; 0 does not look for such (`implicit_atlas.fitting.strays`).
        points: of an iteration; by default FEWER_POINTS, and FEWEST_POINTS for perceptrons on a CPU.
        batch: shapes optimised together.
        seed: of the points.
        local: fit a local residual after the code, too.

    Raises:
        InputError: a count below 1.
    """

    iterations: int | None = None
    learning_rate: float = 0.2
    patience: int = 8
    code_weight: float = 1e-3
    robustness: float = 0.3
    contenders: int = 3
    strays: float = 1.0
    batch: int = AT_ONCE
    seed: int = 0
    points: PointConfig | None = None
    local: LocalConfig | None = None

    def __post_init__(self) -> None:
        counts = {"iterations": self.iterations, "patience": self.patience, "contenders": self.contenders}
        for name, count in {**counts, "batch": self.batch}.items():
            if count is not None and count < 1:
                raise InputError("fit", f"{name} are {count}", "Give 1 or more.")

    def iterations_of(self, has_modes: bool) -> int:
        """At most, of a network with modes or without."""
        return self.iterations or (WITH_MODES if has_modes else WITHOUT_MODES)


@dataclass(frozen=True, eq=False)
class CodeFit:
    """The code found for one shape.

    Args:
        code: (c,).
        template: index of the template, None for a field without templates.
        loss_history: (iterations,) loss of the points.
        start: name of the start that won.
        loss: cross entropy of points that were not optimised on; of a completion, the misfit of its observations.
        mean_loss: the same for the mean code with its best template.
        degrees_of_freedom: numbers that were free at test time.
        failure: why the fit is not valid, or None.
        doubt: why it is not to be trusted, or None.
        residual: (k,) lengths of a local residual in cube units, or None.
        residual_nodes: a side of its lattice.
        frame: where its cube lies, where that was found, too.
        improbability: of a completion: negative log probability, up to a constant of its observations; else 0.
        unguided: the same without points that were not observed, and guided the search alone.
        rivals: of a completion: where its other searches ended, the most probable one first.
    """

    code: Float[np.ndarray, " c"] = field(repr=False)
    template: int | None
    loss_history: Float[np.ndarray, " iterations"] = field(repr=False)
    start: str
    loss: float
    mean_loss: float
    iterations: int
    seconds: float
    degrees_of_freedom: int
    failure: str | None = None
    doubt: str | None = None
    residual: Float[np.ndarray, " k"] | None = field(default=None, repr=False)
    residual_nodes: int = 0
    frame: Frame | None = field(default=None, repr=False)
    improbability: float = 0.0
    unguided: float = 0.0
    rivals: tuple[CodeFit, ...] = field(default=(), repr=False)

    def checked(self, name: str) -> CodeFit:
        """The fit itself.

        Raises:
            FitError: it failed.
        """
        if self.failure is not None:
            raise FitError(f"{name}: the fit failed ({self.failure}). Check that it shows the atlas's organ.")
        return self
