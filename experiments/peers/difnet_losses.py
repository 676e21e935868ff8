"""Losses of DIF-Net as pure functions, and the sums in which weights meet them.

Every loss is a mean over shapes and over all points of a step, those on the surface and the free ones. One that is
of surface points or of free points only counts as 0 at the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from experiments.peers.difnet import Fields
from experiments.peers.difnet_data import LIMIT, Samples

OFF_SURFACE_RATE = 100.0
SOFTNESS = 1 / 64  # a voxel of the 128³ lattice, in cube units


@dataclass(frozen=True)
class DifNetWeights:
    """The authors' weights (those of `smoothness` and `correction` they choose by category: 1 to 5, 50 to 100)."""

    sdf: float = 3e3
    off_surface: float = 5e2
    normal: float = 1e2
    eikonal: float = 5e1
    smoothness: float = 5.0
    correction: float = 1e2
    template_normal: float = 1e2
    code: float = 1e6


def sdf_loss(sdf: Tensor, truth: Tensor) -> Tensor:
    """|SDF - truth|, both cut off at 0.5."""
    return (sdf.clamp(-LIMIT, LIMIT) - truth.clamp(-LIMIT, LIMIT)).abs().mean()


def off_surface_loss(sdf: Tensor) -> Tensor:
    """exp(-100 |SDF|) at free points: no surface where there is none."""
    return (-OFF_SURFACE_RATE * sdf.abs()).exp().mean()


def normal_loss(gradient: Float[Tensor, "*any 3"], normals: Float[Tensor, "*any 3"]) -> Tensor:
    """1 - cos of the angle between a gradient and the normal, at surface points."""
    return (1 - F.cosine_similarity(gradient, normals, dim=-1)).mean()


def eikonal_loss(gradient: Float[Tensor, "*any 3"]) -> Tensor:
    """| |grad SDF| - 1 |: 0 for distances."""
    return (gradient.norm(dim=-1) - 1).abs().mean()


def smoothness_loss(jacobian: Float[Tensor, "*any 3 3"]) -> Tensor:
    """Norm of the gradient of each component of the displacement."""
    return jacobian.norm(dim=-1).mean()


def correction_loss(correction: Tensor) -> Tensor:
    """|dc|: what a displacement can say is left to it."""
    return correction.abs().mean()


def code_loss(codes: Float[Tensor, "batch c"]) -> Tensor:
    """Mean square of the codes' entries."""
    return codes.square().mean()


def label_loss(sdf: Tensor, occupancy: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of -SDF / s and inside or outside, times s; a mean over shapes, weighted over points.

    For points of which no distance is known. Deep on the wrong side it grows as |SDF| does, so that it takes the
    weight of `sdf_loss`; s is a voxel.
    """
    each = F.binary_cross_entropy_with_logits(-sdf / SOFTNESS, occupancy, reduction="none") * SOFTNESS
    return ((each * weight).sum(1) / weight.sum(1)).mean()


def embedding_loss(fields: Fields, samples: Samples, weights: DifNetWeights) -> Tensor:
    """How well the SDF is met: at test time, with `prior_loss`, all that there is."""
    on, share = samples.surface, samples.surface / samples.sdf.shape[1]
    return (
        weights.sdf * sdf_loss(fields.sdf, samples.sdf)
        + weights.off_surface * (1 - share) * off_surface_loss(fields.sdf[:, on:])
        + weights.normal * share * normal_loss(fields.gradient[:, :on], samples.normals)
        + weights.eikonal * eikonal_loss(fields.gradient)
    )


def training_loss(fields: Fields, samples: Samples, weights: DifNetWeights) -> Tensor:
    """The same, and how the template is used; `prior_loss` is to be added."""
    on, share = samples.surface, samples.surface / samples.sdf.shape[1]
    return (
        embedding_loss(fields, samples, weights)
        + weights.smoothness * smoothness_loss(fields.jacobian)
        + weights.correction * correction_loss(fields.correction)
        + weights.template_normal * share * normal_loss(fields.template_gradient[:, :on], samples.normals)
    )


def completion_loss(sdf: Tensor, occupancy: Tensor, weight: Tensor, weights: DifNetWeights) -> Tensor:
    """Of shapes of which points inside and outside are seen; `prior_loss` is to be added."""
    return weights.sdf * label_loss(sdf, occupancy, weight)


def prior_loss(codes: Float[Tensor, "batch c"], weights: DifNetWeights) -> Tensor:
    """The code prior."""
    return weights.code * code_loss(codes)
