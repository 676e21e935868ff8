"""A trained atlas: network, training codes and linear encoder in one object that fits, decodes, saves and loads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_atlas.atlas.field import Atlas, Expanded, Field
from implicit_atlas.atlas.folder import AtlasConfig, AtlasParts, read_parts, round_large, write_parts
from implicit_atlas.atlas.linear import LinearEncoder
from implicit_atlas.atlas.prior import CodePrior
from implicit_atlas.card import model_card
from implicit_atlas.errors import InputError
from implicit_atlas.fitting.code_fit import CodeFit, FitConfig
from implicit_atlas.fitting.dense import Progress, fit_codes
from implicit_atlas.fitting.fit import Fit
from implicit_atlas.fitting.local import ResidualNodes, residual_nodes
from implicit_atlas.fitting.pose import pose_prior
from implicit_atlas.fitting.sizes import check_shapes, unlike_size
from implicit_atlas.fitting.sparse import ShapePrior, SparseConfig, complete_codes
from implicit_atlas.fitting.starts import candidates
from implicit_atlas.geometry.distance import signed_distance
from implicit_atlas.geometry.frame import Frame, centred_frame
from implicit_atlas.geometry.grid import as_numpy
from implicit_atlas.geometry.surface import ValuesAt, sparse_volume
from implicit_atlas.shapes.sampling import Observations, ShapeSet
from implicit_atlas.shapes.shape import Shape


class TrainedAtlas:
    """A learned shape model of one organ.

    Args:
        config: what it is.
        network: Field or Atlas, in evaluation mode; its large weights are rounded as they are stored.
        codes: (n, c) codes of the training shapes.
        encoder: linear start for codes of unseen shapes.
        prior: how probable codes are.
        provenance: JSON values on where the model comes from (data hashes, training options, seed, device).
    """

    def __init__(
        self,
        config: AtlasConfig,
        network: Field | Atlas,
        codes: Float[np.ndarray, "n c"],
        encoder: LinearEncoder,
        prior: CodePrior,
        provenance: dict[str, Any],
    ) -> None:
        self.config, self.network, self.codes = config, round_large(network.eval()), codes
        self.encoder, self.prior, self.provenance = encoder, prior, provenance
        self._templates: Tensor | None = None
        self._distances: Tensor | None = None
        self._residual_nodes: dict[int, ResidualNodes] = {}

    def __repr__(self) -> str:
        about, has = self.config.model, f"{len(self.codes)} shapes, {self.templates} templates"
        return f"TrainedAtlas({about.method}, {has}, {about.code_size} numbers a shape, {self.device})"

    def to(self, device: torch.device | str) -> TrainedAtlas:
        """Move the network, and so all fits and decoding, to a device; returns the atlas itself."""
        self.network.to(device)
        self._templates, self._distances, self._residual_nodes = None, None, {}
        return self

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device

    @property
    def templates(self) -> int:
        """Number of templates; 0 for a plain field."""
        return self.network.templates

    @property
    def parameters(self) -> int:
        """Number of learned weights, codes of training shapes not counted."""
        return sum(p.numel() for p in self.network.parameters())

    def fit(
        self,
        shapes: Sequence[Shape],
        config: FitConfig | None = None,
        progress: Progress | None = None,
        template: int | None = None,
    ) -> list[Fit]:
        """Find the code of each shape from its whole mask, all in one optimisation.

        Fits that failed are marked (`Fit.failure`), never dropped.

        Args:
            shapes: of the atlas's kind of frame and resolution.
            config: how.
            progress: told how far it is.
            template: the one to deform, for shapes that are to be compared place by place; by default each one's best.

        Raises:
            InputError: no shape, shapes of different resolutions or of other frames, or no such template.
        """
        if not shapes:
            raise InputError("fit", "no shape was given", "Give at least one shape.")
        if template is not None:
            self.check_template(template)
        config = config or FitConfig()
        nodes = self.residual_nodes(config.local.nodes) if config.local else None
        starts = candidates(shapes, self.encoder, self.codes, template)
        found = fit_codes(self.network, self._target(shapes), starts, config, progress, nodes)
        return [self._found(shape.name, fit, shape.frame) for shape, fit in zip(shapes, found, strict=True)]

    def complete(
        self,
        observations: Sequence[Observations],
        config: SparseConfig | None = None,
        progress: Progress | None = None,
    ) -> list[Fit]:
        """Find the most probable shape of each set of points, all in one optimisation (paper §5.1).

        Fits that failed are marked (`Fit.failure`), never dropped.

        Raises:
            InputError: nothing was observed.
        """
        return [fits[0] for fits in self.complete_and_draw(observations, 0, config, progress, in_scan=False)]

    def complete_in_scan(
        self,
        observations: Sequence[Observations],
        config: SparseConfig | None = None,
        progress: Progress | None = None,
    ) -> list[Fit]:
        """The same of points in RAS millimetres: position, size and orientation of the organ are found with its shape.

        Raises:
            InputError: nothing was observed.
        """
        return [fits[0] for fits in self.complete_and_draw(observations, 0, config, progress)]

    def complete_and_draw(
        self,
        observations: Sequence[Observations],
        draws: int,
        config: SparseConfig | None = None,
        progress: Progress | None = None,
        in_scan: bool = True,
    ) -> list[list[Fit]]:
        """The same, followed by draws from the shapes that are probable, by which to see how uncertain it is."""
        if not observations:
            raise InputError("complete", "no shape was given", "Give at least one.")
        config = config or SparseConfig()
        nodes = self.residual_nodes(config.residual_nodes) if config.residual else None
        pose = pose_prior(self.config, self.device) if in_scan else None
        prior = ShapePrior(self.prior.to(self.device), self._template_distances(), nodes, pose)
        found = complete_codes(self.network, observations, prior, config, progress, draws)
        pairs = zip(observations, found, strict=True)
        return [[self._found(seen.name, fit, fit.frame) for fit in fits] for seen, fits in pairs]

    def known(self, name: str, frame: Frame | None = None) -> Fit:
        """The training shape of that name, as its training code stands (paper: "known" shapes).

        Raises:
            InputError: no training shape has that name.
        """
        if name not in self.config.names:
            remedy = f"`config.names` has them, as {self.config.names[0]}."
            raise InputError(name, "is not a training shape of this atlas", remedy)
        code = self.codes[self.config.names.index(name)]
        return self._found(name, self._unfitted(code, "training"), frame)

    def _unfitted(self, code: Float[np.ndarray, " c"], start: str, template: int | None = None) -> CodeFit:
        template = self.selected_template(code) if template is None else template
        return CodeFit(code, template, np.zeros(0, np.float32), start, 0.0, 0.0, 0, 0.0, len(code))

    @torch.no_grad()
    def selected_template(self, code: Float[np.ndarray, " c"]) -> int | None:
        """Index of the template that a code selects; None without templates."""
        if not isinstance(self.network, Atlas):
            return None
        return int(self.network.selector(torch.from_numpy(code).to(self.device)).argmax())

    def template_usage(self) -> list[int]:
        """How many training shapes select each template."""
        chosen = [self.selected_template(code) for code in self.codes]
        return [chosen.count(index) for index in range(self.templates)]

    @torch.no_grad()
    def expand(self, found: CodeFit) -> Expanded:
        """Features of one fit, ready to be queried."""
        codes = torch.tensor(found.code, dtype=torch.float32, device=self.device)[None]
        if not isinstance(self.network, Atlas):
            return self.network.expand(codes)
        which = None if found.template is None else torch.tensor([found.template], device=self.device)
        residual = None
        nodes = self.residual_nodes(found.residual_nodes) if found.residual is not None else None
        if nodes is not None and which is not None:
            residual = nodes.lattice(torch.tensor(found.residual, device=self.device)[None], which)
        return self.network.expand(codes, which, self._template_features(), residual)

    def _found(self, name: str, found: CodeFit, frame: Frame | None = None) -> Fit:
        unlike = None if frame is None else unlike_size(self.config, frame)
        rivals = tuple(self._found(name, each, each.frame) for each in found.rivals)
        side, values = self.config.resolution, partial(self._field, found)
        return Fit(name, found, frame, side, values, unlike, self.identity, rivals)

    @cached_property
    def identity(self) -> str:
        """Tells atlases apart: a digest of the training codes."""
        return hashlib.sha256(np.ascontiguousarray(self.codes).tobytes()).hexdigest()[:16]

    def check_own(self, fit: Fit) -> None:
        """Raise an InputError where a fit is of another atlas: its code means another shape here."""
        if fit.owner not in ("", self.identity):
            raise InputError(fit.name, "was fitted by another atlas", "Give fits of this one.")

    def _field(self, found: CodeFit) -> ValuesAt:
        """Occupancy logits of one fit, at any cube points."""
        expanded = self.expand(found)

        def values(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
            with torch.no_grad():
                where = torch.from_numpy(np.asarray(points, np.float32))[None].to(self.device)
                return as_numpy(self.network.query(expanded, where).logits)[0]

        return values

    def template_logits(self, index: int, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Occupancy logits of an undeformed template.

        Raises:
            InputError: the atlas has no such template.
        """
        self.check_template(index)
        assert isinstance(self.network, Atlas)
        with torch.no_grad():
            where = torch.from_numpy(np.asarray(points, np.float32))[None].to(self.device)
            owner = torch.tensor([index], device=self.device)
            return as_numpy(self.network.template.query(self._template_features(), owner, where))[0, :, 0]

    def check_template(self, index: int) -> None:
        """Raise an InputError for a template that the atlas has not."""
        if not 0 <= index < self.templates:
            raise InputError(f"template {index}", f"is none of the {self.templates} here", "Count from 0.")

    def shape_of(
        self,
        name: str,
        code: Float[np.ndarray, " c"],
        template: int | None = None,
        size_mm: Float[np.ndarray, "3"] | None = None,
    ) -> Fit:
        """The shape of a code, with the template that it selects or a given one; its cube lies about the origin.

        The code is (c,); `size_mm` is that of the cube along its axes, by default the mean of the training shapes'.

        Raises:
            InputError: no such template, or a code of another size or that is not finite.
        """
        code = np.asarray(code, np.float32)
        if code.shape != self.codes.shape[1:] or not np.isfinite(code).all():
            raise InputError(name, f"is not {self.codes.shape[1]} finite numbers", "Give one of this atlas.")
        if template is not None:
            self.check_template(template)
        about, size = self.config, self.config.size_mm if size_mm is None else size_mm
        frame = centred_frame(np.array(size), about.resolution, about.frame, about.margin)
        return self._found(name, self._unfitted(code, "given", template), frame)

    def save(self, path: str | Path, card: str | None = None) -> None:
        """Write the model folder (`*.atlas`) with its README, by default a `model_card` of what is known."""
        own = self.config, self.network, self.codes, self.encoder, self.prior, self.provenance
        write_parts(path, AtlasParts(*own), model_card(self, Path(path).stem) if card is None else card)

    @classmethod
    def load(cls, path: str | Path) -> TrainedAtlas:
        """Read a model folder.

        Raises:
            InputError: it is missing, altered, or does not hold what its configuration says.
        """
        parts = read_parts(path)
        return cls(parts.config, parts.network, parts.codes, parts.encoder, parts.prior, parts.provenance)

    def _template_features(self) -> Tensor:
        """Features of the templates; computed once, as the weights of a trained atlas do not change."""
        if self._templates is None:
            assert isinstance(self.network, Atlas)
            with torch.no_grad():
                self._templates = self.network.expand_templates()
        return self._templates

    def _template_distances(self) -> Tensor | None:
        """Signed distances to the surface of each template in cube units, (m, R, R, R); None without templates."""
        if self._distances is None and isinstance(self.network, Atlas):
            side = self.config.resolution
            fields = (partial(self.template_logits, index) for index in range(self.templates))
            insides = (sparse_volume(field, side).values > 0 for field in fields)
            maps = [signed_distance(inside, side) * np.float32(2 / side) for inside in insides]
            self._distances = torch.from_numpy(np.stack(maps)).to(self.device)
        return self._distances

    def residual_nodes(self, nodes: int) -> ResidualNodes | None:
        """Where a local residual on a lattice of so many nodes a side has lengths; None without a deformation."""
        distances = self._template_distances()
        if distances is None or not isinstance(self.network, Atlas) or self.network.deformation is None:
            return None
        if nodes not in self._residual_nodes:
            self._residual_nodes[nodes] = residual_nodes(distances, nodes)
        return self._residual_nodes[nodes]

    def _target(self, shapes: Sequence[Shape]) -> ShapeSet:
        check_shapes(self.config, shapes)
        return ShapeSet(np.stack([shape.packed for shape in shapes]), shapes[0].frame.resolution, self.device)
