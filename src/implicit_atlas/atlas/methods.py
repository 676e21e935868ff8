"""Every method of the paper's tables, as a named composition of the same decoders and losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from implicit_atlas.atlas.decoders import ConvConfig, ConvDecoder, MLPConfig, MLPDecoder
from implicit_atlas.atlas.deformation import Motion
from implicit_atlas.atlas.field import Atlas, Field, Selection
from implicit_atlas.atlas.losses import LossWeights
from implicit_atlas.atlas.modes import Modes
from implicit_atlas.errors import InputError
from implicit_atlas.support.records import check_choices


@dataclass(frozen=True)
class Method:
    """What a method is made of; `single` means one template, so that there is nothing to select."""

    decoder: Literal["conv", "mlp"]
    template: bool
    deformation: bool
    single: bool = False
    laplacian: bool = False
    penalty: bool = False


METHODS = {
    "mlp": Method("mlp", template=False, deformation=False),
    "mlp+template": Method("mlp", template=True, deformation=True, single=True),
    "conv": Method("conv", template=False, deformation=False),
    "implicit-atlas": Method("conv", template=True, deformation=True),
    "implicit-atlas+reg": Method("conv", template=True, deformation=True, laplacian=True, penalty=True),
    "D": Method("conv", template=True, deformation=True, single=True),
    "MT": Method("conv", template=True, deformation=False),
    "D+MT+LS": Method("conv", template=True, deformation=True, laplacian=True),
    "D+MT+DP": Method("conv", template=True, deformation=True, penalty=True),
}
DEFAULT_METHOD = "implicit-atlas+reg"
MODE_NODES = (0, 5, 9, 13, 17, 25, 33)


def method_of(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: there is none.
    """
    if name not in METHODS:
        raise InputError(f"method {name!r}", "is not known", f"Choose one of: {', '.join(METHODS)}.")
    return METHODS[name]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes a network's shape; saved with the model and read back.

    `conv` is the decoder of the plain field, `template` that of templates, `deformation` that of displacements. What
    the plain field must say in 33³ nodes, templates and displacements say together in 17³. `modes` is the number of
    nodes a side of the lattice of modes, which convolutional deformations have beside the decoder (a third of the nodes
    are used); 0 is the paper.
    """

    method: str = DEFAULT_METHOD
    code_size: int = 256
    templates: int = 5
    gradient: Literal["outputs", "codes"] = "outputs"
    gumbel: bool = False
    motion: Motion = "additive"
    modes: int = 25
    conv: ConvConfig = field(default_factory=lambda: ConvConfig(channels=(64, 48, 32, 16), hidden=32))
    template: ConvConfig = field(default_factory=lambda: ConvConfig(channels=(64, 48, 32), hidden=32))
    deformation: ConvConfig = field(default_factory=lambda: ConvConfig(channels=(64, 48, 16), hidden=32))
    mlp: MLPConfig = field(default_factory=MLPConfig)

    def __post_init__(self) -> None:
        method_of(self.method)
        check_choices(self, "network")
        if self.code_size < 1 or self.templates < 1:
            problem = f"code size {self.code_size} and {self.templates} templates are not both positive"
            raise InputError("model configuration", problem, "Give positive numbers.")
        if self.modes not in MODE_NODES:
            problem = f"cannot have modes on {self.modes} nodes a side"
            raise InputError("model configuration", problem, f"Choose one of {MODE_NODES}; 0 is none.")

    @property
    def template_count(self) -> int:
        """Number of templates of the method; 0 where it has none."""
        method = method_of(self.method)
        return 0 if not method.template else 1 if method.single else self.templates

    @property
    def mode_nodes(self) -> int:
        """Nodes a side of the modes' lattice; 0 where the method has none."""
        method = method_of(self.method)
        return self.modes if method.deformation and method.decoder == "conv" else 0


def build(config: ModelConfig) -> Field | Atlas:
    """The method's network with fresh weights (seed torch before)."""
    method = method_of(config.method)
    if not method.template:
        return Field(_decoder(config, method, 1, config.conv))
    templates = config.template_count
    deformation = (
        _decoder(config, method, 3, config.deformation, zero_head=True) if method.deformation else None
    )
    selection = Selection(templates, config.gradient, gumbel=config.gumbel)
    template = _decoder(config, method, 1, config.template)
    modes = Modes(config.code_size, config.mode_nodes, templates) if config.mode_nodes else None
    return Atlas(config.code_size, template, deformation, selection, config.motion, modes)


def loss_weights(config: ModelConfig, weights: LossWeights | None = None) -> LossWeights:
    """The penalties of the method: those that it does not have are zero."""
    method, weights = method_of(config.method), weights or LossWeights()
    return LossWeights(
        weights.code,
        weights.laplacian if method.laplacian else 0.0,
        weights.deformation if method.penalty else 0.0,
    )


def _decoder(
    config: ModelConfig, method: Method, outputs: int, conv: ConvConfig, zero_head: bool = False
) -> nn.Module:
    if method.decoder == "mlp":
        return MLPDecoder(config.code_size, outputs, config.mlp, zero_head)
    return ConvDecoder(config.code_size, outputs, conv, zero_head)
