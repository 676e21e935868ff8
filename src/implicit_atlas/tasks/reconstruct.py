"""What an atlas is for, verb by verb, on files: masks in, masks and meshes in the scanner's space out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.fitting.fit import WRONG_ORGAN, Fit, all_doubts, cut_mask, unlike_mask
from implicit_atlas.fitting.sizes import unlike_size
from implicit_atlas.geometry.surface import to_world, volume_mesh
from implicit_atlas.io import CaseFile, Mask, MaskFile, Mesh, Problem, read_mask
from implicit_atlas.metrics import dsc
from implicit_atlas.shapes.shape import Shape, restore, restore_lattice
from implicit_atlas.sides import Mirror, sided
from implicit_atlas.support.console import Report
from implicit_atlas.trained_atlas import TrainedAtlas


@dataclass(frozen=True, eq=False)
class Case:
    """A case as it was read, its shape in the atlas's frame, and what speaks against its size, side and ends."""

    mask: Mask
    shape: Shape
    unlike: str | None = None


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A case and its fit, without specks and stray pieces that nowhere meet the case's mask.

    `evaluate` scores the fit itself, with all of its pieces.
    """

    case: Case
    fit: Fit

    @cached_property
    def logits(self) -> Float[np.ndarray, "r r r"]:
        """On the lattice of the case's cube."""
        return self.fit.own_logits(self.case.shape)

    @cached_property
    def likeness(self) -> float:
        """DSC of the case's mask and the reconstruction on its grid."""
        return dsc(self.case.mask.occupancy, self.mask())

    @property
    def doubt(self) -> str | None:
        """Why not to trust it, or None: unlike its mask or the atlas's organs, of another size or side, or cut off."""
        return all_doubts(unlike_mask(self.likeness), self.fit.found.doubt, self.case.unlike)

    def mask(self) -> Bool[np.ndarray, "x y z"]:
        """On the grid of the case's file."""
        return restore_lattice(self.logits, self.fit.placed(), 0.0)

    def mesh(self) -> Mesh:
        """Closed surface in world millimetres (RAS)."""
        return to_world(volume_mesh(self.logits), self.fit.placed())


def read_case(
    source: MaskFile | Shape, atlas: TrainedAtlas, labels: Sequence[int] = (), mirror: Mirror = "no"
) -> Case:
    """Read a mask and prepare it as the atlas's training shapes were; a shape of a store is taken as it is.

    Either is mirrored where it is to be taken for one of the other side.

    Raises:
        InputError: the mask cannot be used, or the shape was prepared in another way.
    """
    wanted = atlas.config.prepared
    if not isinstance(source, Shape):
        file = CaseFile.of(source)
        mask = read_mask(file.path, tuple(labels) or wanted.labels)
        return _case(atlas, mask, wanted.shape_of(mask, file.name), mirror)
    frame = source.frame
    if (frame.resolution, frame.margin, frame.kind) != (wanted.resolution, wanted.margin, wanted.kind):
        problem = "was prepared with another resolution, margin or kind of frame than the atlas"
        raise InputError(source.name, problem, "Give the folder of masks instead of the store.")
    dtype = np.dtype(source.dtype)
    mask = Mask(restore(source), source.frame.grid, Path(source.source), (), dtype)
    return _case(atlas, mask, source, mirror)


def _case(atlas: TrainedAtlas, mask: Mask, shape: Shape, mirror: Mirror) -> Case:
    shape, unlike = sided(atlas, shape, mirror)
    return Case(mask, shape, all_doubts(unlike, unlike_size(atlas.config, shape.frame), cut_mask(mask)))


def reconstruct(  # noqa: PLR0913 (options of a main verb)
    atlas: TrainedAtlas,
    sources: Sequence[MaskFile] | Sequence[Shape],
    config: FitConfig | None = None,
    labels: Sequence[int] = (),
    on_problem: Callable[[Problem], object] = lambda problem: None,
    report: Report = lambda share, text: None,
    template: int | None = None,
    mirror: Mirror = "no",
) -> Iterator[Reconstruction]:
    """Fit cases in batches, yielding each with its fit; what cannot be read or fitted goes to `on_problem`.

    Memory does not grow with the number of cases.

    Args:
        atlas: of their organ.
        sources: mask files, or shapes of a store.
        config: of the fits.
        labels: that make up the organ; by default those of the atlas.
        on_problem: told of what cannot be used.
        report: told how far it is.
        template: that all deform, so that they can be compared place by place; by default each one's best.
        mirror: which are mirror images of the atlas's organs.

    Raises:
        InputError: no such template, or no way to mirror.
    """
    config = config or FitConfig()
    for first in range(0, len(sources), config.batch):
        part = sources[first : first + config.batch]
        cases = []
        for source in part:
            try:
                cases.append(read_case(source, atlas, labels, mirror))
            except InputError as error:
                on_problem(problem_of(source, str(error)))
        if not cases:
            continue

        def overall(share: float, text: str, done: int = first, count: int = len(part)) -> None:
            report((done + share * count) / len(sources), text)

        fits = atlas.fit([case.shape for case in cases], config, overall, template)
        for case, fit in zip(cases, fits, strict=True):
            if fit.failure is None:
                yield Reconstruction(case, fit)
            else:
                why = all_doubts(fit.failure, case.unlike)
                ended = why if str(why).endswith("?") else f"{why}."
                on_problem(Problem(fit.name, case.mask.path, f"the fit failed: {ended} {WRONG_ORGAN}"))


def problem_of(source: MaskFile | Shape, message: str) -> Problem:
    """What is wrong with a case, of a file or of a store."""
    file = CaseFile(source.name, Path(source.source)) if isinstance(source, Shape) else CaseFile.of(source)
    return file.problem(message)
