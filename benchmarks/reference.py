"""The paper-literal path, kept to be compared with: slow, and plain to read beside the paper.

At every point, the maps of all levels are read by grid_sample, concatenated with the coordinates and fed to the
point head. The template is decoded for every shape from its mixed code. Volumes are asked densely. Warps of training
shapes are read by grid_sample, too.

The modules take the weights of the product's, so that their values are the same to rounding.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from implicit_atlas.atlas.decoders import ConvDecoder
from implicit_atlas.atlas.field import Atlas

POINTS_PER_CALL = 2**17

Maps = tuple[list[Tensor], list[Tensor], Tensor | None]


def _read(maps: Tensor, points: Tensor) -> Tensor:
    """Vectors (B, P, k) of maps (B, k, n, n, n) at points (B, P, 3), trilinear on corner-aligned nodes."""
    where = points.flip(-1)[:, :, None, None]  # grid_sample wants the last array axis first
    read = F.grid_sample(maps, where, padding_mode="border", align_corners=True)
    return read[..., 0, 0].transpose(1, 2)


class LiteralDecoder(nn.Module):
    """Multi-scale convolutional implicit decoder in the order of the paper's Fig. 3b.

    Args:
        decoder: where the weights come from; they are copied.
    """

    def __init__(self, decoder: ConvDecoder) -> None:
        super().__init__()
        self.nodes = decoder.config.nodes
        self.first = nn.Linear(decoder.first.in_features, decoder.first.out_features)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for block in decoder.blocks:
            conv, norm = block.conv, block.norm
            self.convolutions.append(nn.Conv3d(conv.in_channels, conv.out_channels, 3, padding=1))
            self.norms.append(nn.GroupNorm(norm.num_groups, norm.num_channels))
            self.convolutions[-1].load_state_dict(conv.state_dict())
            self.norms[-1].load_state_dict(norm.state_dict())
        self.first.load_state_dict(decoder.first.state_dict())
        hidden = decoder.config.hidden
        self.to_hidden = nn.Linear(sum(decoder.config.channels) + 3, hidden)
        self.head = nn.Linear(hidden, decoder.head.out_features)
        self.head.load_state_dict(decoder.head.state_dict())
        with torch.no_grad():
            columns = [layer.weight for layer in decoder.to_hidden]
            self.to_hidden.weight.copy_(torch.cat([*columns, decoder.point_to_hidden.weight], dim=1))
            self.to_hidden.bias.copy_(decoder.point_to_hidden.bias)

    def levels(self, codes: Tensor) -> list[Tensor]:
        """Maps of each level for each code, (B, channels, n, n, n)."""
        blocks = self.first(codes).view(len(codes), -1, 2, 2, 2, 2, 2, 2)  # channel, block of 2³, position
        maps = blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(len(codes), -1, 4, 4, 4)
        found = []
        for nodes, convolution, norm in zip(self.nodes, self.convolutions, self.norms, strict=True):
            maps = F.interpolate(maps, size=(nodes,) * 3, mode="trilinear", align_corners=True)
            maps = F.leaky_relu(norm(convolution(maps)))
            found.append(maps)
        return found

    def values(self, levels: list[Tensor], points: Tensor) -> Tensor:
        """Values at points (B, P, 3) of the shapes with these maps, (B, P, outputs)."""
        read = [_read(maps, points) for maps in levels]
        read.append(points.clamp(-1, 1))  # what lies outside the cube reads the nearest face, as the maps do
        return self.head(F.leaky_relu(self.to_hidden(torch.cat(read, dim=-1))))


class LiteralAtlas(nn.Module):
    """F(h, p) = 𝒯(t(h), p + 𝒟(d(h), p)), with the template decoded for every shape (Eqs. 3 and 4)."""

    def __init__(self, atlas: Atlas) -> None:
        super().__init__()
        assert isinstance(atlas.template, ConvDecoder) and isinstance(atlas.deformation, ConvDecoder)
        self.template, self.deformation = LiteralDecoder(atlas.template), LiteralDecoder(atlas.deformation)
        self.template_codes = nn.Parameter(atlas.template_codes.detach().clone())
        size, count = atlas.selector.in_features, atlas.selector.out_features
        self.selector, self.to_deformation = nn.Linear(size, count), nn.Linear(size, size)
        self.selector.load_state_dict(atlas.selector.state_dict())
        self.to_deformation.load_state_dict(atlas.to_deformation.state_dict())
        # Not the paper's, but a part of the same values: displacements of the template, linear in the code.
        self.modes = copy.deepcopy(atlas.modes)

    def mixed_code(self, codes: Tensor) -> Tensor:
        """t(h) = STE-Softmax(W h) · T."""
        soft = self.selector(codes).softmax(dim=-1)
        hard = F.one_hot(soft.argmax(dim=-1), soft.shape[-1]).to(soft.dtype)
        return (hard + soft - soft.detach()) @ self.template_codes

    def forward(self, codes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, P) and displacements (B, P, 3)."""
        return self.query(self.expand(codes), points)

    def expand(self, codes: Tensor) -> Maps:
        """Maps of the template and of the deformation of each shape, and the lattice of its modes."""
        template = self.template.levels(self.mixed_code(codes))
        deformation = self.deformation.levels(self.to_deformation(codes))
        return (
            template,
            deformation,
            None if self.modes is None else self.modes(codes, self.selector(codes).argmax(-1)),
        )

    def query(self, maps: Maps, points: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and displacements at points."""
        template, deformation, lattice = maps
        displacement = self.deformation.values(deformation, points)
        if lattice is not None:
            displacement = displacement + _read(lattice.permute(0, 4, 1, 2, 3), points + displacement)
        return self.template.values(template, points + displacement).squeeze(-1), displacement

    @torch.no_grad()
    def dense(self, code: Tensor, lattice: Tensor) -> Tensor:
        """Logits of one code (c,) on a lattice (R, R, R, 3), every node asked."""
        maps = self.expand(code[None])
        parts = lattice.reshape(1, -1, 3).split(POINTS_PER_CALL, dim=1)
        return torch.cat([self.query(maps, part)[0][0] for part in parts]).view(lattice.shape[:3])


def warp_occupancy_literal(
    volume: Tensor, displacement: Tensor, reach: float, matrix: Tensor, axes: Tensor
) -> Tensor:
    """`kernels.warp_occupancy` by grid_sample: volume (r, r, r), displacement (n, n, n, 3), axes (o, 3)."""
    points = torch.stack(torch.meshgrid(*axes.unbind(1), indexing="ij"), dim=-1)
    where = (points / reach).flip(-1)[None]  # grid_sample wants the last array axis first
    lattice = displacement.permute(3, 0, 1, 2)[None]
    moved = F.grid_sample(lattice, where, padding_mode="border", align_corners=True)[0].permute(1, 2, 3, 0)
    moved = points @ matrix.T + moved
    read = F.grid_sample(volume[None, None], moved.flip(-1)[None], padding_mode="zeros", align_corners=False)
    return read[0, 0] > 0.5
