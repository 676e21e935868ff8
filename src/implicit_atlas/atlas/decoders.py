"""Implicit decoders: `expand` a latent code once, `query` the result at many points.

Both decoders share one interface, so that every method of the paper is a composition of them:

    features = decoder.expand(codes)                   # one row of `codes` -> one entry of `features`
    values = decoder.query(features, owner, points)    # points[b] are read from entry owner[b]

Values are pointwise: the value at a point does not depend on the other points, nor on the rest of the batch.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit_atlas.geometry import grid


@runtime_checkable
class Decoder(Protocol):
    """What the model asks of a decoder."""

    costly_points: bool
    """True where a point costs much more than a look into a map."""

    def expand(self, codes: Float[Tensor, "batch c"]) -> Tensor:
        """Features of each code, batch first."""
        ...

    def query(
        self, features: Tensor, owner: Int[Tensor, " batch"], points: Float[Tensor, "batch points 3"]
    ) -> Float[Tensor, "batch points out"]:
        """Values of field owner[b] at points[b]."""
        ...

    def hidden_weights(self) -> list[nn.Parameter]:
        """Weights between the layers that read codes or points and the head, rows first."""
        ...


@dataclass(frozen=True)
class ConvConfig:
    """Sizes of a ConvDecoder: channels of the maps at 5³, 9³, 17³, 33³ ... nodes, and of the hidden point layer."""

    channels: tuple[int, ...] = (64, 48, 32, 16)
    hidden: int = 32
    groups: int = 8

    @property
    def nodes(self) -> tuple[int, ...]:
        """Nodes a side of each level's map (corner-aligned, so that the levels nest)."""
        return tuple(4 * 2**level + 1 for level in range(len(self.channels)))


# Of a single shape, torch takes its slow convolution on CPUs for maps up to so many channels times nodes of a face.
SMALL_MAPS = 20480


class ConvBlock(nn.Module):
    """Convolution, group normalisation, leaky ReLU (paper §3.3)."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel_size=3, padding=1)
        self.norm = nn.GroupNorm(groups, outputs)

    def forward(self, maps: Float[Tensor, "batch c n n n"]) -> Float[Tensor, "batch k n n n"]:
        """Maps of the same size with `outputs` channels."""
        is_small = maps.device.type == "cpu" and maps[..., 0].numel() <= SMALL_MAPS
        # Two are convolved in a third of the time of one: benchmarks/bench_alone.py.
        found = self.conv(torch.cat([maps, maps]))[:1] if is_small and len(maps) == 1 else self.conv(maps)
        return F.leaky_relu(self.norm(found))


def pixel_shuffle3d(maps: Float[Tensor, "batch c8 n n n"]) -> Float[Tensor, "batch c n2 n2 n2"]:
    """Eight channels become a block of 2³ voxels of one channel (paper §3.3, [52])."""
    b, c, x, y, z = maps.shape
    blocks = maps.view(b, c // 8, 2, 2, 2, x, y, z).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return blocks.reshape(b, c // 8, 2 * x, 2 * y, 2 * z)


class ConvDecoder(nn.Module):
    """Multi-scale convolutional implicit decoder (paper §3.3, Fig. 3b).

    A code becomes maps at 5³, 9³, 17³ ... corner-aligned nodes. At a point, the maps of all levels are
    interpolated, concatenated with the coordinates and fed to a point head: linear, leaky ReLU, linear.

    The head's first layer is linear, and so is interpolation, and the node sets nest. Its part for each level is
    therefore applied to the maps, coarse parts are added up onto the finest nodes, and points read one map: the
    same values (to rounding) at a fraction of the cost. `benchmarks/reference.py` keeps the literal order.
    """

    costly_points = False

    def __init__(self, code_size: int, outputs: int, config: ConvConfig, zero_head: bool = False) -> None:
        super().__init__()
        self.config = config
        width = config.channels[0]
        self.first = nn.Linear(code_size, 8 * width * 2**3)
        inputs = (width, *config.channels[:-1])
        self.blocks = nn.ModuleList(
            ConvBlock(i, o, config.groups) for i, o in zip(inputs, config.channels, strict=True)
        )
        self.to_hidden = nn.ModuleList(nn.Linear(c, config.hidden, bias=False) for c in config.channels)
        self.point_to_hidden = nn.Linear(3, config.hidden)
        self.head = nn.Linear(config.hidden, outputs)
        if zero_head:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def levels(self, codes: Float[Tensor, "batch c"]) -> list[Float[Tensor, "batch k n n n"]]:
        """The maps of each level, coarse to fine."""
        width = self.config.channels[0]
        maps = pixel_shuffle3d(self.first(codes).view(-1, 8 * width, 2, 2, 2))
        maps = maps.contiguous(memory_format=torch.channels_last_3d)
        out = []
        for nodes, block in zip(self.config.nodes, self.blocks, strict=True):
            maps = block(grid.upsample_nested(maps, nodes))
            out.append(maps)
        return out

    def expand(self, codes: Float[Tensor, "batch c"]) -> Float[Tensor, "batch n n n hidden"]:
        """The finest map of hidden pre-activations, all levels and the coordinates folded in."""
        nodes = self.config.nodes
        # The coordinates are linear, so that the coarsest nodes are enough for them.
        total = self.point_to_hidden(grid.map_nodes(nodes[0], codes.device))
        for maps, to_hidden, side in zip(self.levels(codes), self.to_hidden, nodes, strict=True):
            if side > nodes[0]:
                total = grid.upsample_nested(total.permute(0, 4, 1, 2, 3), side).permute(0, 2, 3, 4, 1)
            total = total + to_hidden(maps.permute(0, 2, 3, 4, 1))
        return total

    def query(
        self, features: Tensor, owner: Int[Tensor, " batch"], points: Float[Tensor, "batch points 3"]
    ) -> Float[Tensor, "batch points out"]:
        """Values at points; outside the cube the nearest face's features are read."""
        return grid.query_maps(features, owner, points, self.head.weight, self.head.bias)

    def hidden_weights(self) -> list[nn.Parameter]:
        """Kernels of the convolutions, and what takes the maps to the point layer."""
        kernels = [block.conv.weight for block in self.blocks]  # pyright: ignore
        return kernels + [layer.weight for layer in self.to_hidden]  # pyright: ignore


POINTS_TOGETHER = 1 << 12
"""Points of a shape that a perceptron answers at once on a CPU: what its layers pass on stays in caches."""


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of an MLPDecoder (DeepSDF: 8 layers of 512, the input again at layer 4)."""

    width: int = 512
    layers: int = 8
    skip: int = 4


class MLPDecoder(nn.Module):
    """DeepSDF's decoder: a multi-layer perceptron on (code, point) with one skip of its input (paper §4.2).

    Where a layer reads the code, its product with the code is computed once in `expand`. Hidden layers may be
    computed in bfloat16: where autocast says so, or `in_halves` is set. What they read and what is made of them is in
    single precision all the same: 8 bits of a coordinate are a quarter of a voxel of 128.
    """

    costly_points = True

    def __init__(self, code_size: int, outputs: int, config: MLPConfig, zero_head: bool = False) -> None:
        super().__init__()
        self.config = config
        self.in_halves = False
        self.code_layers = nn.ModuleList(nn.Linear(code_size, config.width) for _ in range(2))
        self.point_layers = nn.ModuleList(nn.Linear(3, config.width, bias=False) for _ in range(2))
        self.layers = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.layers - 1))
        self.head = nn.Linear(config.width, outputs)
        if zero_head:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def expand(self, codes: Float[Tensor, "batch c"]) -> Float[Tensor, "batch two width"]:
        """What the first layer and the skip layer add for each code."""
        with torch.autocast(codes.device.type, enabled=False):
            return torch.stack([layer(codes.float()) for layer in self.code_layers], dim=1)

    def query(
        self, features: Tensor, owner: Int[Tensor, " batch"], points: Float[Tensor, "batch points 3"]
    ) -> Float[Tensor, "batch points out"]:
        """Values at points."""
        read = features[owner]
        if points.device.type != "cpu":
            return self._values(read, points)
        rows = [
            torch.cat([self._values(one[None], part[None]) for part in own.split(POINTS_TOGETHER)], dim=1)
            for one, own in zip(read, points, strict=True)
        ]
        return torch.cat(rows) if rows else self._values(read, points)

    def _values(
        self, features: Float[Tensor, "batch two width"], points: Float[Tensor, "batch points 3"]
    ) -> Float[Tensor, "batch points out"]:
        device = points.device.type
        with torch.autocast(device, enabled=False):
            entering = [
                f[:, None] + layer(points.float())
                for f, layer in zip(features.unbind(1), self.point_layers, strict=True)
            ]
        values = F.relu(entering[0])
        with torch.autocast(device, torch.bfloat16) if self.in_halves else nullcontext():
            for index, layer in enumerate(self.layers, start=1):
                values = layer(values)
                if index == self.config.skip:
                    values = values + entering[1]
                values = F.relu(values)
        with torch.autocast(device, enabled=False):
            return self.head(values.float())

    def hidden_weights(self) -> list[nn.Parameter]:
        """Weights of the layers after the first."""
        return [layer.weight for layer in self.layers]  # pyright: ignore
