"""New shapes: random ones of the codes' distribution, and those between two given ones (paper §5.2, Fig. 4 and 5)."""

from __future__ import annotations

import numpy as np
import torch

from implicit_atlas.atlas import TrainedAtlas
from implicit_atlas.errors import InputError
from implicit_atlas.fit import Fit
from implicit_atlas.fitting import CodeFit
from implicit_atlas.prior import fit_prior


def generate(
    atlas: TrainedAtlas, count: int, seed: int = 0, temperature: float = 1.0, template: int | None = None
) -> list[Fit]:
    """Random shapes: codes of the normal distribution of the training codes.

    Args:
        atlas: what they are shapes of.
        count: how many.
        seed: of the random numbers; shape i is the same whatever the count.
        temperature: factor of the deviation from the mean code; 0 gives the mean shape, below 1 typical ones.
        template: the template that all deform; by default each code's own.

    Raises:
        InputError: a count or a temperature out of range, or no such template.
    """
    if count < 1 or not 0 <= temperature <= 3:
        problem = f"{count} shapes at temperature {temperature} cannot be made"
        raise InputError("generate", problem, "Give a positive count and a temperature from 0 to 3.")
    prior = fit_prior(atlas.codes)
    numbers = np.stack(
        [np.random.default_rng((seed, index)).standard_normal(len(prior.mean)) for index in range(count)]
    )
    codes = prior.codes(torch.from_numpy(numbers * temperature).float()).numpy()
    return [atlas.shape_of(f"generated-{index}", code, template) for index, code in enumerate(codes)]


def interpolate(atlas: TrainedAtlas, first: Fit, last: Fit, steps: int = 5) -> list[Fit]:
    """Shapes on the line between the codes of two, both ends included.

    They deform the ends' template where that is one, else the one that each code selects, and their sizes lie between
    those of the ends. Local residuals are left out.

    Raises:
        InputError: fewer than two steps.
        FitError: an end that failed.
    """
    if steps < 2:
        raise InputError("interpolate", f"{steps} steps have no two ends", "Give two or more.")
    ends = [_checked(end) for end in (first, last)]
    template = ends[0].template if ends[0].template == ends[1].template else None
    shares = np.linspace(0, 1, steps)
    sizes = [_size_mm(atlas, end) for end in (first, last)]
    return [
        atlas.shape_of(
            f"{first.name} to {last.name}, {share:.2f}",
            (1 - share) * ends[0].code + share * ends[1].code,
            template,
            (1 - share) * sizes[0] + share * sizes[1],
        )
        for share in shares
    ]


def _size_mm(atlas: TrainedAtlas, end: Fit) -> np.ndarray:
    """Of an end's cube; the mean of the training shapes' where it lies in no scan."""
    if end.frame is None:
        return np.array(atlas.config.size_mm)
    return end.frame.lattice_spacing_mm * end.frame.resolution


def _checked(end: Fit) -> CodeFit:
    return end.found.checked(end.name)
