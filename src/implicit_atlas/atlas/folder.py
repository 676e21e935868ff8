"""What an atlas is made of, and its model folder: which tensors it holds, and at which precision."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from implicit_atlas.atlas.checkpoint import Expected, load_folder, save_folder
from implicit_atlas.atlas.field import Atlas, Field
from implicit_atlas.atlas.linear import LinearEncoder
from implicit_atlas.atlas.methods import ModelConfig, build
from implicit_atlas.atlas.prior import CodePrior, fit_prior
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import FrameKind
from implicit_atlas.shapes.manifest import PrepareConfig
from implicit_atlas.support.records import from_json
from implicit_atlas.support.tensors import TensorSpec, specs_of, under

ENCODER_PARTS = ("mean", "matrix", "offset")
PRIOR_PARTS = ("means", "factor", "shares")
NORMALS = "modes.normals"
BESIDE = ("encoder_resolution", "large_halves", "each_template")  # of config.json, not of AtlasConfig
# Entries from which on a weight is stored in half precision: 3 digits do, and files are half as large.
LARGE = 1 << 20
NETWORK, REMEDY = "network.", "Copy the whole model folder again."


@dataclass(frozen=True)
class AtlasConfig:
    """What an atlas is, beside its tensors; written to config.json and read back in full.

    Args:
        model: the network's configuration.
        resolution: lattice of the shapes that it was trained on.
        frame: kind of their frames, and the relative margin around the box.
        labels: label ids that made up the organ in the training masks (empty: all above 0).
        names: the training shapes, in the order of the codes.
        sizes_mm: size of each training shape's cube along its axes, in the order of the names; of folders before
            schema 6 their mean alone.
    """

    model: ModelConfig
    resolution: int
    frame: FrameKind
    margin: float
    labels: tuple[int, ...]
    names: tuple[str, ...]
    sizes_mm: tuple[tuple[float, float, float], ...]

    @property
    def prepared(self) -> PrepareConfig:
        """How masks become shapes that the atlas can be fitted to."""
        return PrepareConfig(self.resolution, self.margin, self.frame, self.labels)

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """Mean size of the cubes."""
        x, y, z = (sum(size) / len(self.sizes_mm) for size in zip(*self.sizes_mm, strict=True))
        return x, y, z


@dataclass(frozen=True, eq=False)
class AtlasParts:
    """All that a model folder holds: see `implicit_atlas.trained_atlas.TrainedAtlas`."""

    config: AtlasConfig
    network: Field | Atlas
    codes: Float[np.ndarray, "n c"]
    encoder: LinearEncoder
    prior: CodePrior
    provenance: dict[str, Any]


@torch.no_grad()
def round_large(network: Field | Atlas) -> Field | Atlas:
    """The network itself, its large weights rounded to what is stored, so that an atlas is one before and after."""
    for value in network.state_dict().values():
        if value.numel() >= LARGE:
            value.copy_(value.half())
    return network


def write_parts(path: str | Path, parts: AtlasParts, card: str) -> None:
    """Write the model folder; see `implicit_atlas.atlas.checkpoint.save_folder`."""
    state = parts.network.state_dict()
    weights = {f"{NETWORK}{name}": value.cpu() for name, value in state.items()}
    weights = {name: value.half() if value.numel() >= LARGE else value for name, value in weights.items()}
    encoder = parts.encoder
    weights["encoder.mean"] = torch.from_numpy(encoder.mean)
    weights["encoder.matrix"] = torch.from_numpy(encoder.matrix).half()  # a start for fits
    weights["encoder.offset"] = torch.from_numpy(encoder.offset)
    weights |= {f"prior.{name}": getattr(parts.prior, name).cpu() for name in PRIOR_PARTS}
    weights["prior.factor"] = weights["prior.factor"].half()
    beside = dict(zip(BESIDE, (encoder.resolution, True, True), strict=True))
    config = {**dataclasses.asdict(parts.config), **beside}
    save_folder(path, config, weights, {"codes": torch.from_numpy(parts.codes)}, card, parts.provenance)


def read_parts(path: str | Path) -> AtlasParts:
    """Read a model folder.

    Raises:
        InputError: it is missing, altered, or does not hold what its configuration says.
    """
    content = load_folder(path, _expected)
    config = from_json(AtlasConfig, _fields(content.config), path)
    network = build(config.model)
    state = under(content.weights, NETWORK)
    if NORMALS in state and state[NORMALS].ndim == 2:
        state[NORMALS] = state[NORMALS].expand(max(1, network.templates), -1, -1)
    network.load_state_dict(state)
    if isinstance(network, Atlas) and network.modes is not None and not network.modes.is_valid():
        raise InputError(
            path, "has modes at nodes that its lattice has not", f"{REMEDY[:-1]}, or train again."
        )
    if content.codes is None:
        raise InputError(path, "holds no training codes", REMEDY)
    parts = {name: value.float().numpy() for name, value in under(content.weights, "encoder.").items()}
    encoder = LinearEncoder(resolution=content.config["encoder_resolution"], **parts)
    codes = content.codes["codes"].numpy()
    prior = {name: value.float() for name, value in under(content.weights, "prior.").items()}
    return AtlasParts(
        config,
        network,
        codes,
        encoder,
        CodePrior(**prior) if prior else _one_prior(codes, network),
        content.manifest.provenance,
    )


def _one_prior(codes: Float[np.ndarray, "n c"], network: Field | Atlas) -> CodePrior:
    """As of a folder before schema 7: one distribution for all templates."""
    prior, count = fit_prior(codes), max(1, network.templates)
    return CodePrior(prior.means.expand(count, -1), prior.factor, torch.full((count,), 1 / count))


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in BESIDE}


def _expected(config: dict[str, Any]) -> Expected:
    """Names, shapes and dtypes of the tensors that a configuration asks for."""
    for key, kind in zip(BESIDE, (int, bool, bool), strict=True):
        if type(config.get(key)) is not kind:
            raise InputError("config.json", f"lacks {key}", REMEDY)
    fields = _fields(config)
    about = from_json(AtlasConfig, fields, "config.json")
    if len(about.sizes_mm) not in (1, len(about.names)) or not all(
        0 < size < math.inf for sizes in about.sizes_mm for size in sizes
    ):
        raise InputError("config.json", "has sizes that cannot be", REMEDY)
    model = about.model
    with torch.device("meta"):
        network = build(model)
    stored = {
        name: _stored(spec, config["large_halves"]) for name, spec in specs_of(network.state_dict()).items()
    }
    size, count = model.code_size, max(1, model.template_count)
    if NORMALS in stored and not config["each_template"]:
        stored[NORMALS] = (stored[NORMALS][0][1:], stored[NORMALS][1])
    weights = {f"{NETWORK}{name}": spec for name, spec in stored.items()}
    side = config["encoder_resolution"] ** 3
    encoder = (
        ((side,), torch.float32),
        ((side, size), torch.float16),
        ((size,), torch.float32),
    )
    prior = (((count, size), torch.float32), ((size, size), torch.float16), ((count,), torch.float32))
    weights |= {f"encoder.{name}": spec for name, spec in zip(ENCODER_PARTS, encoder, strict=True)}
    if config["each_template"]:
        weights |= {f"prior.{name}": spec for name, spec in zip(PRIOR_PARTS, prior, strict=True)}
    return Expected(weights, {"codes": ((len(fields["names"]), size), torch.float32)})


def _stored(spec: TensorSpec, large_halves: bool) -> TensorSpec:
    """How a tensor of the network is written: `large_halves` since schema 5."""
    return (spec[0], torch.float16) if large_halves and np.prod(spec[0]) >= LARGE else spec
