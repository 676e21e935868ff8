"""New shapes: random ones of the codes' distribution, and those between two given ones (paper §5.2, Fig. 4 and 5)."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import CodeFit
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.fitting.sizes import SizePrior, size_prior
from implicit_atlas.geometry.pieces import largest_pieces
from implicit_atlas.trained_atlas import TrainedAtlas

PIECES_RESOLUTION, MOST_PIECES = 48, 100

_pieces: WeakKeyDictionary[TrainedAtlas, int] = WeakKeyDictionary()


def generate(
    atlas: TrainedAtlas, count: int, seed: int = 0, temperature: float = 0.8, template: int | None = None
) -> list[Fit]:
    """Random shapes: a template as often as the training shapes deform it, a code of its normal distribution, a size.

    Args:
        atlas: what they are shapes of.
        count: how many.
        seed: of the random numbers; shape i is the same whatever the count.
        temperature: factor of the deviation from a template's mean code, and of what the code does not say of the
            size; 0 gives its mean shape, below 1 typical ones.
        template: the template that all deform.

    Raises:
        InputError: a count, a temperature or a seed out of range, or no such template.
    """
    if count < 1 or not 0 <= temperature <= 3:
        problem = f"{count} shapes at temperature {temperature} cannot be made"
        raise InputError("generate", problem, "Give a positive count and a temperature from 0 to 3.")
    if seed < 0:
        raise InputError("generate", f"{seed} is not a seed", "Give 0 or more.")
    if template is not None:
        atlas.check_template(template)
    sizes, made = size_prior(atlas.config, atlas.codes), []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        numbers = torch.from_numpy(rng.standard_normal((1, atlas.codes.shape[1])) * temperature).float()
        shares = atlas.prior.shares.cpu().double().numpy()
        own = int(rng.choice(len(shares), p=shares / shares.sum())) if template is None else template
        of_size = rng.standard_normal(3) * temperature
        made.append(_shape(atlas, sizes, f"generated-{index}", numbers, of_size, own))
    return made


def _shape(
    atlas: TrainedAtlas, sizes: SizePrior, name: str, numbers: Tensor, of_size: np.ndarray, template: int
) -> Fit:
    """The shape of standard normal numbers, (1, c) and (3,)."""
    code = atlas.prior.codes(numbers, torch.tensor([template]))[0].numpy()
    return atlas.shape_of(name, code, template if atlas.templates else None, sizes.sizes_mm(code, of_size))


def pieces_of(atlas: TrainedAtlas) -> int:
    """Of how many pieces the organ is, as its atlas learned it: the most that a template's mean shape has."""
    if atlas not in _pieces:
        means = [fit.occupancy(PIECES_RESOLUTION) for fit in mean_shapes(atlas)]
        _pieces[atlas] = max(1, *(largest_pieces(mean, MOST_PIECES)[1] for mean in means))
    return _pieces[atlas]


def mean_shapes(atlas: TrainedAtlas) -> list[Fit]:
    """The mean shape of each template; of a field without templates its one mean shape."""
    sizes, zero = size_prior(atlas.config, atlas.codes), torch.zeros((1, atlas.codes.shape[1]))
    return [
        _shape(atlas, sizes, f"mean-{index}", zero, np.zeros(3), index)
        for index in range(max(1, atlas.templates))
    ]


def interpolate(atlas: TrainedAtlas, first: Fit, last: Fit, steps: int = 5) -> list[Fit]:
    """Shapes on the line between the codes of two, both ends included.

    They deform the ends' template, and their sizes lie between those of the ends. Local residuals are left out. They
    are of the ends' side: mirror images of the atlas's shapes where the ends were fitted so.

    Raises:
        InputError: fewer than two steps, or ends of another atlas, that deform different templates, or of two sides.
        FitError: an end that failed.
    """
    if steps < 2:
        raise InputError("interpolate", f"{steps} steps have no two ends", "Give two or more.")
    for end in (first, last):
        atlas.check_own(end)
    ends = [_checked(end) for end in (first, last)]
    template = ends[0].template
    if template != ends[1].template:
        problem = f"deform different templates, {template} and {ends[1].template}"
        raise InputError("the ends", problem, "Fit both by one template: fit(shapes, template=...).")
    mirrored, other = (end.frame is not None and end.frame.mirrored for end in (first, last))
    if mirrored != other:
        remedy = "Choose two of one side, or fit both as they are (--mirror no)."
        raise InputError("the ends", "are of different sides", remedy)
    shares = np.linspace(0, 1, steps)
    sizes = [_size_mm(atlas, end) for end in (first, last)]
    line = [
        atlas.shape_of(
            f"{first.name} to {last.name}, {share:.2f}",
            (1 - share) * ends[0].code + share * ends[1].code,
            template,
            (1 - share) * sizes[0] + share * sizes[1],
        )
        for share in shares
    ]
    return [replace(shape, frame=replace(shape.placed(), mirrored=mirrored)) for shape in line]


def _size_mm(atlas: TrainedAtlas, end: Fit) -> np.ndarray:
    """Of an end's cube; the mean of the training shapes' where it lies in no scan."""
    if end.frame is None:
        return np.array(atlas.config.size_mm)
    return end.frame.lattice_spacing_mm * end.frame.resolution


def _checked(end: Fit) -> CodeFit:
    return end.found.checked(end.name)
