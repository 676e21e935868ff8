"""DIF-Net (Deng, Yang, Tong: Deformed Implicit Field, CVPR 2021): one template field, a deformation a shape.

SDF(p) = T(p + v(p)) + dc(p). The template field T is a SIREN that all shapes share. A hypernetwork turns the code
of a shape into the weights of Deform-Net, a smaller SIREN that gives the displacement v and the scalar correction
dc. Here the SDF is negative inside, as usual; `values_at` turns it to the sign of the other fields.

The authors': the fields, the widths and depths, the sine layers and their start, the losses with their weights
(`difnet_losses`), Adam at 1e-4. Ours: codes of 256 numbers, as all methods of the tables; the start of the
hypernetwork; lengths of schedules and numbers of points (`difnet_training.DifNetConfig`).

Losses need spatial derivatives of the fields. They are written out (chain rule through the sine layers), so that
one backward pass over plain operations gives the gradient of a loss of derivatives, at half of the cost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_atlas.geometry.surface import ValuesAt

OMEGA = 30.0
"""Frequency of the sine layers: x -> sin(OMEGA (W x + b)), as in SIREN (Sitzmann et al. 2020)."""
POINTS_AT_ONCE = 1 << 15

Layer = tuple[Tensor, Tensor]
"""Weight and bias: (out, in) and (out,); of Deform-Net for each shape, (batch, out, in) and (batch, 1, out)."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes. All but the code's are the authors': three hidden layers after the first, perceptrons of one.

    Args:
        code_size: c; the authors take 128, the tables compare methods at 256.
        deform_width: of Deform-Net.
        template_width: of the template field.
        hyper_width: of the perceptrons that give the weights of Deform-Net, one for each of its tensors.
        layers: hidden layers after the first, of both SIRENs.
    """

    code_size: int = 256
    deform_width: int = 128
    template_width: int = 256
    hyper_width: int = 256
    layers: int = 3


@dataclass(frozen=True, eq=False)
class Fields:
    """Fields of a batch of shapes at points, and their derivatives by the point.

    Args:
        sdf: (B, n), negative inside.
        gradient: (B, n, 3) of the SDF.
        jacobian: (B, n, 3, 3) of the displacement; [..., i, a] is the derivative of component i along axis a.
        correction: (B, n).
        template_gradient: (B, n, 3) of T where the displaced points lie.
    """

    sdf: Float[Tensor, "batch points"]
    gradient: Float[Tensor, "batch points 3"]
    jacobian: Float[Tensor, "batch points 3 3"]
    correction: Float[Tensor, "batch points"]
    template_gradient: Float[Tensor, "batch points 3"]


def siren_layers(inputs: int, width: int, layers: int, outputs: int) -> list[Layer]:
    """Weights of a SIREN as its authors start them: activations keep their spread from layer to layer."""
    sizes = [inputs, *(width,) * (layers + 1), outputs]
    found = []
    for index, (before, after) in enumerate(itertools.pairwise(sizes)):
        reach = 1 / before if index == 0 else math.sqrt(6 / before) / OMEGA
        weight = torch.empty(after, before).uniform_(-reach, reach)
        bias = torch.empty(after).uniform_(-1, 1) / math.sqrt(before)
        found.append((weight, bias))
    return found


class SineCosine(torch.autograd.Function):
    """Sine and cosine of the same phase; each is the other's derivative, so that backward computes none anew."""

    @staticmethod
    def forward(ctx, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Sine, cosine."""
        sine, cosine = phase.sin(), phase.cos()
        ctx.save_for_backward(sine, cosine)
        return sine, cosine

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        """Gradient of the phase."""
        sine, cosine = ctx.saved_tensors
        return (grads[0] * cosine).addcmul_(grads[1], sine, value=-1)


class Template(nn.Module):
    """The template field T: R³ -> R."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        start = siren_layers(3, width, layers, 1)
        self.weights = nn.ParameterList([weight for weight, _ in start])
        self.biases = nn.ParameterList([bias for _, bias in start])

    def forward(self, points: Float[Tensor, "*any 3"]) -> Float[Tensor, " *any"]:
        """Values at points."""
        *sine, last = self._layers()
        hidden = points
        for layer in sine:
            hidden = nn.functional.linear(hidden, *layer).sin()
        return nn.functional.linear(hidden, *last)[..., 0]

    def with_gradient(
        self, points: Float[Tensor, "*any 3"]
    ) -> tuple[Float[Tensor, " *any"], Float[Tensor, "*any 3"]]:
        """Values at points, and their derivatives by the point (chain rule from the last layer to the first)."""
        *sine, (last, bias) = self._layers()
        hidden, slopes = points, []
        for layer in sine:
            hidden, slope = SineCosine.apply(nn.functional.linear(hidden, *layer))  # pyright: ignore
            slopes.append(slope)
        gradient = last[0]
        for slope, (weight, _) in zip(reversed(slopes), reversed(sine), strict=True):
            gradient = (gradient * slope) @ weight
        return nn.functional.linear(hidden, last, bias)[..., 0], gradient

    def _layers(self) -> list[Layer]:
        """The layers, those with a sine with the frequency multiplied in."""
        *sine, last = zip(self.weights, self.biases, strict=True)
        return [*((OMEGA * weight, OMEGA * bias) for weight, bias in sine), last]


class HyperNet(nn.Module):
    """Codes to the weights of Deform-Net: a perceptron for each tensor.

    Their last layers start small around one SIREN's weights, so that all shapes start with nearly that one.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        tensors = [
            tensor for layer in siren_layers(3, config.deform_width, config.layers, 4) for tensor in layer
        ]
        self.shapes = [tuple(tensor.shape) for tensor in tensors]
        self.perceptrons = nn.ModuleList([_perceptron(config, tensor) for tensor in tensors])

    def forward(self, codes: Float[Tensor, "batch c"]) -> list[Layer]:
        """Layers of Deform-Net for each code."""
        tensors = [
            perceptron(codes).unflatten(1, shape)
            for perceptron, shape in zip(self.perceptrons, self.shapes, strict=True)
        ]
        return [(weight, bias[:, None]) for weight, bias in zip(tensors[0::2], tensors[1::2], strict=True)]


class DifNet(nn.Module):
    """Deform-Net and template: `expand` codes once, `query` many times."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.hyper = HyperNet(config)
        self.template = Template(config.template_width, config.layers)

    def expand(self, codes: Float[Tensor, "batch c"]) -> list[Layer]:
        """Layers of Deform-Net, those with a sine with the frequency multiplied in."""
        *sine, last = self.hyper(codes)
        return [*((OMEGA * weight, OMEGA * bias) for weight, bias in sine), last]

    def query(
        self, layers: Sequence[Layer], points: Float[Tensor, "batch points 3"]
    ) -> Float[Tensor, "batch points"]:
        """SDF(p) = T(p + v(p)) + dc(p), negative inside."""
        out = deform(layers, points)
        return self.template(points + out[..., :3]) + out[..., 3]

    def forward(
        self, codes: Float[Tensor, "batch c"], points: Float[Tensor, "batch points 3"]
    ) -> Float[Tensor, "batch points"]:
        """SDF of shapes at their points."""
        return self.query(self.expand(codes), points)

    def fields(self, layers: Sequence[Layer], points: Float[Tensor, "batch points 3"]) -> Fields:
        """All that the losses need: grad SDF = (1 + grad v)ᵀ grad T + grad dc."""
        out, slope = deform_with_jacobian(layers, points)
        jacobian = slope[..., :3, :]
        value, pull = self.template.with_gradient(points + out[..., :3])
        gradient = pull + torch.einsum("bni,bnia->bna", pull, jacobian) + slope[..., 3, :]
        return Fields(value + out[..., 3], gradient, jacobian, out[..., 3], pull)


def deform(
    layers: Sequence[Layer], points: Float[Tensor, "batch points 3"]
) -> Float[Tensor, "batch points 4"]:
    """Deform-Net of each shape at its points: displacement, then correction."""
    hidden = points
    for weight, bias in layers[:-1]:
        hidden = torch.baddbmm(bias, hidden, weight.mT).sin()
    weight, bias = layers[-1]
    return torch.baddbmm(bias, hidden, weight.mT)


def deform_with_jacobian(
    layers: Sequence[Layer], points: Float[Tensor, "batch points 3"]
) -> tuple[Float[Tensor, "batch points 4"], Float[Tensor, "batch points 4 3"]]:
    """Deform-Net, and its derivatives by the point (chain rule from the first layer to the last)."""
    hidden, along = points, None
    for weight, bias in layers[:-1]:
        ahead = weight.mT[:, :, None] if along is None else _product(along, weight)
        hidden, slope = SineCosine.apply(torch.baddbmm(bias, hidden, weight.mT))  # pyright: ignore
        along = slope[:, None] * ahead
    weight, bias = layers[-1]
    assert along is not None
    return torch.baddbmm(bias, hidden, weight.mT), _product(along, weight).permute(0, 2, 3, 1)


def values_at(network: DifNet, code: Float[Tensor, " c"]) -> ValuesAt:
    """The field of one code for decoding: minus SDF, so that it is positive inside."""
    with torch.no_grad():
        layers = network.expand(code[None])

    def values(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        with torch.no_grad():
            parts = torch.from_numpy(points).to(code.device).split(POINTS_AT_ONCE)
            return torch.cat([-network.query(layers, part[None])[0] for part in parts]).cpu().numpy()

    return values


def _product(along: Float[Tensor, "batch 3 points k"], weight: Float[Tensor, "batch out k"]) -> Tensor:
    """Directional derivatives through a linear layer."""
    return torch.bmm(along.flatten(1, 2), weight.mT).unflatten(1, along.shape[1:3])


def _perceptron(config: NetworkConfig, start: Tensor) -> nn.Sequential:
    width = config.hyper_width
    last = nn.Linear(width, start.numel())
    with torch.no_grad():
        nn.init.kaiming_normal_(last.weight).mul_(0.01)
        last.bias.copy_(start.flatten())
    return nn.Sequential(
        nn.Linear(config.code_size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last
    )
