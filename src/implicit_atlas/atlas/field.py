"""The shape model: Field (Eq. 1) and Atlas (Eq. 3).

| paper | code | shape | meaning |
|---|---|---|---|
| h | `code` | (B, c) | latent vector of one shape, c = 256 by default |
| T | `template_codes` | (m, c) | learned template codes, m = 5 |
| t(h) | row of `template_codes` | (c,) | STE-Softmax(W h) · T (Eq. 4) |
| d(h) | `to_deformation(h)` | (B, c) | linear |
| 𝒯 | `template` | field, 1 channel | implicit template network |
| 𝒟 | `deformation` | field, 3 channels | implicit deformation network |
| p | `points` | (B, P, 3) | query points, cube coordinates in [-1, 1], order x, y, z |
| o | `logits` | (B, P) | occupancy logit |
| F | `Atlas.forward` | | 𝒯(t(h), p + 𝒟(d(h), p)) |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit_atlas.atlas.decoders import Decoder
from implicit_atlas.atlas.deformation import Motion, displacements
from implicit_atlas.atlas.modes import Modes
from implicit_atlas.geometry.grid import interpolate_maps

Codes = Float[Tensor, "batch c"]
Points = Float[Tensor, "batch points 3"]


@dataclass(frozen=True)
class Prediction:
    """A model's answer at points; the last two are None for a plain Field."""

    logits: Float[Tensor, "batch points"]
    displacement: Float[Tensor, "batch points 3"] | None = None
    assignment: Float[Tensor, "batch templates"] | None = None


@dataclass(frozen=True)
class Expanded:
    """Codes after the expensive half of the model; `query` may be called on it many times.

    `motion` is what modes add and `residual` what a local residual adds, on their lattices.
    """

    shape_features: Tensor | None
    template_features: Tensor | None = None
    assignment: Tensor | None = None
    owner: Tensor | None = None
    motion: Tensor | None = None
    residual: Tensor | None = None


def straight_through(
    scores: Float[Tensor, "batch m"], gumbel: bool, generator: torch.Generator | None = None
) -> Tensor:
    """One-hot of the largest score; its gradient is the softmax's (Eq. 4). With `gumbel`, of perturbed scores."""
    if gumbel:
        uniform = torch.rand(scores.shape, generator=generator).to(scores.device)
        scores = scores - torch.log(-torch.log(uniform.clamp_(1e-9, 1 - 1e-7)))
    soft = scores.softmax(dim=-1)
    hard = F.one_hot(scores.argmax(dim=-1), scores.shape[-1]).to(soft.dtype)
    return hard + soft - soft.detach()


class Field(nn.Module):
    """One decoder from code to occupancy, no template: F(h, p) = o (Eq. 1)."""

    templates = 0
    is_static = False

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder: Decoder = decoder  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def costly_points(self) -> bool:
        """As of its decoder."""
        return self.decoder.costly_points

    def expand(self, codes: Codes, template: Int[Tensor, " batch"] | None = None) -> Expanded:
        """Features of the codes (`template` is for the Atlas and has no meaning here)."""
        return Expanded(shape_features=self.decoder.expand(codes))

    def query(self, expanded: Expanded, points: Points) -> Prediction:
        """Logits at points."""
        assert expanded.shape_features is not None
        owner = torch.arange(points.shape[0], device=points.device)
        return Prediction(logits=self.decoder.query(expanded.shape_features, owner, points).squeeze(-1))

    def hidden_weights(self) -> list[nn.Parameter]:
        """Weights of the decoder's hidden layers."""
        return self.decoder.hidden_weights()

    def forward(
        self, codes: Codes, points: Points, template: Int[Tensor, " batch"] | None = None
    ) -> Prediction:
        """Logits of each code's shape at its points."""
        return self.query(self.expand(codes, template), points)


@dataclass(frozen=True)
class Selection:
    """How an Atlas selects templates.

    `gradient`: "outputs" (templates are decoded once a step and mixed by the one-hot weights at every
    `stride`-th point: each score learns what its template would have answered) or "codes" (the paper: the mixed
    code is decoded for each shape). The forward values are the same.
    """

    templates: int = 5
    gradient: str = "outputs"
    stride: int = 8
    gumbel: bool = False


class Atlas(nn.Module):
    """Deformable multi-template field: F(h, p) = 𝒯(t(h), p + 𝒟(d(h), p)) (Eq. 3).

    Without `deformation` it is static template matching ("MT" of Table 3); with one template there is nothing
    to select ("D" of Table 3, and "MLP + Template" of Table 2). `motion` says what the deformation network's outputs
    are: displacements (the paper), or velocities. `modes` (not in the paper) add displacements that are linear in the
    code: with q = p + 𝒟(d(h), p), F(h, p) = 𝒯(t(h), q + M(h, q)).
    """

    def __init__(
        self,
        code_size: int,
        template: nn.Module,
        deformation: nn.Module | None,
        selection: Selection,
        motion: Motion = "additive",
        modes: Modes | None = None,
    ) -> None:
        super().__init__()
        self.selection = selection
        self.modes = modes
        self.motion: Motion = motion
        self.template: Decoder = template  # pyright: ignore[reportAttributeAccessIssue]
        self.deformation: Decoder | None = deformation  # pyright: ignore[reportAttributeAccessIssue]
        self.template_codes = nn.Parameter(torch.randn(selection.templates, code_size))
        self.selector = nn.Linear(code_size, selection.templates)
        self.to_deformation = None
        if deformation is not None:
            self.to_deformation = nn.Linear(code_size, code_size)
            nn.init.eye_(self.to_deformation.weight)
            nn.init.zeros_(self.to_deformation.bias)

    @torch.no_grad()
    def start_selection(self, centres: Float[Tensor, "m c"], sharpness: float = 10.0) -> None:
        """Let each code select the nearest of m centres (m different start codes, from clusters of shapes)."""
        size = centres.shape[1]
        self.selector.weight.copy_(centres * (sharpness / size))
        self.selector.bias.copy_(centres.square().sum(-1) * (-sharpness / 2 / size))

    @property
    def templates(self) -> int:
        """Number of templates, m."""
        return self.selection.templates

    @property
    def is_static(self) -> bool:
        """True where shapes are the templates as they are: nothing is better than the best of them."""
        return self.deformation is None

    @property
    def costly_points(self) -> bool:
        """As of its decoders."""
        return self.template.costly_points

    def expand_templates(self) -> Tensor:
        """Features of the m templates; they do not depend on any shape."""
        return self.template.expand(self.template_codes)

    def expand(
        self,
        codes: Codes,
        template: Int[Tensor, " batch"] | None = None,
        template_features: Tensor | None = None,
        residual: Float[Tensor, "batch n n n 3"] | None = None,
    ) -> Expanded:
        """Features of templates and deformations.

        Args:
            codes: (B, c).
            template: index of the template of each shape; by default the one its code selects.
            template_features: what `expand_templates` returned, where it is at hand.
            residual: displacements of the template on a lattice of nodes (`implicit_atlas.fitting.local`).
        """
        # Scores may be large and close to one another: of 8 bits, they would choose another template than at test time.
        with torch.autocast(codes.device.type, enabled=False):
            if template is None:
                scores = self.selector(codes.float())
                assignment = straight_through(scores, self.selection.gumbel and self.training)
            else:
                assignment = F.one_hot(template, self.templates).to(codes.dtype)
            chosen = assignment.detach().argmax(-1)
            motion = None if self.modes is None else self.modes(codes.float(), chosen)
        shape_features = None
        if self.deformation is not None and self.to_deformation is not None:
            shape_features = self.deformation.expand(self.to_deformation(codes))
        if self.selection.gradient == "codes" and self.training:
            mixed = self.template.expand(assignment @ self.template_codes)
            owner = torch.arange(len(codes), device=codes.device)
            return Expanded(shape_features, mixed, assignment, owner, motion, residual)
        features = self.expand_templates() if template_features is None else template_features
        return Expanded(shape_features, features, assignment, chosen, motion, residual)

    def displacement(self, expanded: Expanded, points: Points) -> Float[Tensor, "batch points 3"]:
        """From points to where they lie in the template, in cube units; zero without a deformation network."""
        deformation, features = self.deformation, expanded.shape_features
        if deformation is None or features is None:
            return torch.zeros_like(points)
        owner = torch.arange(points.shape[0], device=points.device)
        moved = displacements(self.motion, lambda at: deformation.query(features, owner, at), points)
        for lattice in (expanded.motion, expanded.residual):
            if lattice is not None:  # read in the template, where the surfaces of all shapes are one
                moved = moved + interpolate_maps(lattice, points + moved)
        return moved

    def query(self, expanded: Expanded, points: Points) -> Prediction:
        """Logits, displacement and assignment at points."""
        assert expanded.template_features is not None and expanded.owner is not None
        displacement = self.displacement(expanded, points)
        moved = points + displacement
        logits = self.template.query(expanded.template_features, expanded.owner, moved).squeeze(-1)
        if self._mixes_outputs(expanded):
            logits = logits + self._selection_gradient(expanded, moved)
        return Prediction(logits, displacement, expanded.assignment)

    def _mixes_outputs(self, expanded: Expanded) -> bool:
        wanted = self.training and self.selection.gradient == "outputs" and self.templates > 1
        return wanted and expanded.assignment is not None and expanded.assignment.requires_grad

    def _selection_gradient(self, expanded: Expanded, moved: Points) -> Float[Tensor, "batch points"]:
        """Zero, whose gradient tells the scores what each template answers at every `stride`-th point."""
        assert expanded.template_features is not None and expanded.assignment is not None
        stride = self.selection.stride
        with torch.no_grad():
            few = moved[:, ::stride].contiguous()
            count = len(few)
            owner = torch.arange(self.templates, device=few.device).repeat_interleave(count)
            answers = self.template.query(expanded.template_features, owner, few.repeat(self.templates, 1, 1))
            answers = answers.view(self.templates, count, -1)
        weights = (expanded.assignment - expanded.assignment.detach()) * stride
        zero = torch.zeros(moved.shape[:2], device=moved.device)
        return zero.index_add(
            1,
            torch.arange(0, moved.shape[1], stride, device=moved.device),
            torch.einsum("bm,mbp->bp", weights, answers).float(),
        )

    def hidden_weights(self) -> list[nn.Parameter]:
        """Weights of the decoders' hidden layers."""
        deformation = [] if self.deformation is None else self.deformation.hidden_weights()
        return self.template.hidden_weights() + deformation

    def forward(
        self, codes: Codes, points: Points, template: Int[Tensor, " batch"] | None = None
    ) -> Prediction:
        """Eq. 3 for each code at its points."""
        return self.query(self.expand(codes, template), points)
