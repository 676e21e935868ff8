"""Accuracy of an atlas on masks, by the protocol that is printed with every number: `Protocol`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.geometry.grid import as_numpy, lattice
from implicit_atlas.io import MaskFile, Problem, printable
from implicit_atlas.metrics import NSD_DEFINITION, score
from implicit_atlas.shapes.shape import Shape, prepare, restore_lattice
from implicit_atlas.sides import Mirror
from implicit_atlas.support.console import Report
from implicit_atlas.tasks.reconstruct import Case, Reconstruction, problem_of, read_case, reconstruct
from implicit_atlas.trained_atlas import TrainedAtlas

TOLERANCE_VOX = 1.0


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case: DSC and NSD in percent on the protocol's lattice, distances in mm on its own grid.

    `learned` says that the atlas was trained on it: on a shape of its name, or on a copy of its file; `mirrored` that
    it was taken for a mirror image of the atlas's organs; `doubt` why its fit is not to be trusted, or nothing.
    """

    name: str
    dsc: float
    nsd: float
    hd95_mm: float
    assd_mm: float
    dsc_native: float
    seconds: float
    iterations: int
    template: int | None
    start: str
    learned: bool = False
    mirrored: bool = False
    doubt: str = ""


@dataclass(frozen=True)
class Protocol:
    """What the numbers mean; without it they are worthless."""

    nsd_definition: str
    tolerance_vox: float
    resolution: int
    distances: str
    known: bool
    method: str
    code_size: int
    templates: int
    degrees_of_freedom: int
    parameters: int
    training_shapes: int
    training_warps: int
    training_steps: int
    training_seconds: float
    seed: int
    iterations: int
    device: str
    fit_device: str
    mirror: Mirror = "no"

    def line(self) -> str:
        """One line to print above a table."""
        seen = "training codes" if self.known else f"fit of at most {self.iterations} iterations"
        seen += {"no": "", "auto": ", mirrored where it is of the other side", "all": ", all mirrored"}[
            self.mirror
        ]
        training = f"{self.training_shapes} training shapes (+ {self.training_warps} warps), seed {self.seed}"
        return (
            f"NSD: {self.nsd_definition}, spacing 1, tolerance {self.tolerance_vox:g} voxel of the "
            f"{self.resolution}³ box grid; {self.method}, {seen}, "
            f"{self.degrees_of_freedom} degrees of freedom at test time (+ 1 of {max(1, self.templates)} "
            f"templates); {training}, {self.training_steps} steps in {self.training_seconds:.0f} s, {self.device}"
        )


@dataclass(frozen=True)
class Evaluation:
    """Scores of every case, and the cases that could not be scored."""

    protocol: Protocol
    cases: tuple[CaseScore, ...]
    problems: tuple[Problem, ...]

    def mean(self) -> dict[str, float]:
        """Mean of each score over the cases."""
        names = ("dsc", "nsd", "hd95_mm", "assd_mm", "dsc_native", "seconds")
        return {
            name: float(np.mean([getattr(case, name) for case in self.cases])) for name in names if self.cases
        }

    def table(self) -> str:
        """The protocol's line, a row a case (worst NSD first) and the mean."""
        columns = ("dsc", "nsd", "hd95_mm", "assd_mm", "dsc_native", "seconds")
        width = max([24, *(len(case.name) for case in self.cases)])
        lines = [self.protocol.line(), f"{'case':<{width}}" + "".join(f"{name:>11}" for name in columns)]
        for case in sorted(self.cases, key=lambda case: case.nsd):
            values = "".join(f"{getattr(case, name):11.2f}" for name in columns)
            lines.append(f"{printable(case.name):<{width}}{values}")
        if self.cases:
            mean = self.mean()
            title = f"mean of {len(self.cases)}"
            lines.append(f"{title:<{width}}" + "".join(f"{mean[name]:11.2f}" for name in columns))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The whole evaluation as JSON values."""
        problems = [{"name": p.name, "path": str(p.path), "message": p.message} for p in self.problems]
        cases = [dataclasses.asdict(case) for case in self.cases]
        return {
            "protocol": dataclasses.asdict(self.protocol),
            "mean": self.mean(),
            "cases": cases,
            "problems": problems,
        }


def evaluate(  # noqa: PLR0913 (options of a main verb)
    atlas: TrainedAtlas,
    sources: Sequence[MaskFile] | Sequence[Shape],
    config: FitConfig | None = None,
    labels: Sequence[int] = (),
    report: Report = lambda share, text: None,
    on_case: Callable[[Reconstruction], object] = lambda found: None,
    mirror: Mirror = "no",
) -> Evaluation:
    """Fit masks that the atlas has not seen, and score them.

    Args:
        atlas: of their organ.
        sources: mask files, or shapes of a store.
        config: of the fits.
        labels: that make up the organ; by default those of the atlas.
        report: told how far it is.
        on_case: given each case with its fit.
        mirror: which are mirror images of the atlas's organs.

    Returns:
        DSC and NSD in percent on the margin-free 128³ box grid, distances in mm on the mask's own; what could not be
        read or fitted is in `problems`.
    """
    config, problems = config or FitConfig(), []
    scores, files = [], set(atlas.provenance["content_sha256"].values())
    for found in reconstruct(atlas, sources, config, labels, problems.append, report, mirror=mirror):
        shape = found.case.shape
        learned = shape.name in atlas.config.names or shape.content_hash in files
        scores.append(
            dataclasses.replace(score_fit(found.case, found.fit), learned=learned, doubt=found.doubt or "")
        )
        on_case(found)
    protocol = dataclasses.replace(_protocol(atlas, config, False, sources), mirror=mirror)
    return Evaluation(protocol, tuple(scores), tuple(problems))


def evaluate_known(
    atlas: TrainedAtlas,
    sources: Sequence[MaskFile] | Sequence[Shape],
    labels: Sequence[int] = (),
    report: Report = lambda share, text: None,
) -> Evaluation:
    """Score training shapes as their codes stand (the paper's "known" shapes), mirrored where they were learned so.

    Args:
        atlas: that learned them.
        sources: their mask files, or shapes of a store; they are known by their names.
        labels: that make up the organ; by default those of the atlas.
        report: told how far it is.

    Returns:
        As of `evaluate`; names that the atlas did not learn are in `problems`.
    """
    scores, problems, mirrored = [], [], set(atlas.provenance.get("mirrored", ()))
    for index, source in enumerate(sources):
        try:
            case = read_case(source, atlas, labels)
            if case.shape.name in mirrored and not case.shape.frame.mirrored:
                case = dataclasses.replace(case, shape=case.shape.mirrored())
            found = score_fit(case, atlas.known(case.shape.name, case.shape.frame))
            scores.append(dataclasses.replace(found, learned=True))
            report((index + 1) / len(sources), case.shape.name)
        except InputError as error:
            problems.append(problem_of(source, str(error)))
    protocol = _protocol(atlas, FitConfig(), True, sources)
    return Evaluation(protocol, tuple(scores), tuple(problems))


def score_fit(case: Case, fit: Fit) -> CaseScore:
    """Score a fit against its mask.

    DSC and NSD on the margin-free 128³ box grid of the true mask, whatever frame the atlas works in; HD95, ASSD
    and a second DSC on the mask's own grid, in millimetres.
    """
    if _is_protocol(case.shape):
        truth, logits = case.shape, fit.logits()  # decoded once for both
        occupancy, mask = logits > 0, restore_lattice(logits, truth.frame, 0.0)
    else:
        truth = prepare(case.mask, name=case.shape.name)
        occupancy, mask = _on(truth, fit), fit.mask()
    on_lattice = score(truth.occupancy, occupancy, tolerance=TOLERANCE_VOX)
    native = score(case.mask.occupancy, mask, spacing=tuple(case.mask.grid.spacing_mm))
    return CaseScore(
        name=fit.name,
        dsc=100 * on_lattice.dsc,
        nsd=100 * on_lattice.nsd,
        hd95_mm=native.hd95,
        assd_mm=native.assd,
        dsc_native=100 * native.dsc,
        seconds=fit.found.seconds,
        iterations=fit.found.iterations,
        template=fit.found.template,
        start=fit.found.start,
        mirrored=case.shape.frame.mirrored,
    )


def _is_protocol(shape: Shape) -> bool:
    return shape.frame.kind == "box" and shape.frame.margin == 0 and shape.frame.resolution == 128


def _on(truth: Shape, fit: Fit) -> np.ndarray:
    """The fit's occupancy on the truth's lattice."""
    assert fit.frame is not None
    resolution = truth.frame.resolution
    points = truth.frame.cube_to_world(as_numpy(lattice(resolution)).reshape(-1, 3).astype(np.float64))
    inside = fit.logits_at(fit.frame.world_to_cube(points)) > 0
    return inside.reshape((resolution,) * 3)


def _protocol(
    atlas: TrainedAtlas, config: FitConfig, known: bool, sources: Sequence[MaskFile] | Sequence[Shape]
) -> Protocol:
    about, source = atlas.config, atlas.provenance
    nodes = None if known or config.local is None else atlas.residual_nodes(config.local.nodes)
    local = 0 if nodes is None else nodes.free
    are_shapes = any(isinstance(source, Shape) for source in sources)
    copies = "; masks as prepared shapes hold them" if are_shapes else ""
    return Protocol(
        nsd_definition=NSD_DEFINITION,
        tolerance_vox=TOLERANCE_VOX,
        resolution=128,
        distances=f"HD95 and ASSD in mm on the mask's own grid, same definition of surface{copies}",
        known=known,
        method=about.model.method,
        code_size=about.model.code_size,
        templates=atlas.templates,
        degrees_of_freedom=about.model.code_size + local,
        parameters=atlas.parameters,
        training_shapes=len(about.names),
        training_warps=source["training"]["warps"],
        training_steps=source["steps"],
        training_seconds=source["seconds"],
        seed=source["training"]["seed"],
        iterations=0 if known else config.iterations_of(about.model.mode_nodes > 0),
        device=source["device"],
        fit_device=str(atlas.device),
    )
