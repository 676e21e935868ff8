"""Decoders: the folded order equals the literal one, and a value depends on its own code and point alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from atlas_samples import CODE, TINY, shaken

from implicit_atlas.atlas.decoders import ConvConfig, ConvDecoder, MLPConfig, MLPDecoder, pixel_shuffle3d

OUTPUTS = 3


def conv(config: ConvConfig = TINY) -> ConvDecoder:
    torch.manual_seed(0)
    return ConvDecoder(CODE, OUTPUTS, config)


def mlp(config: MLPConfig | None = None) -> MLPDecoder:
    torch.manual_seed(0)
    return MLPDecoder(CODE, OUTPUTS, config or MLPConfig(width=24, layers=5, skip=2))


both = pytest.mark.parametrize("make", [conv, mlp])


def asked(shapes: int = 3, points: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(shapes, CODE), torch.rand(shapes, points, 3) * 2.4 - 1.2


def values(decoder, codes, points):
    return decoder.query(decoder.expand(codes), torch.arange(len(codes)), points)


def literal_conv(decoder: ConvDecoder, codes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """All maps at each point, concatenated with the coordinates: linear, leaky ReLU, linear (paper Fig. 3b)."""
    where = points.flip(-1)[:, :, None, None]
    read = [
        F.grid_sample(maps, where, padding_mode="border", align_corners=True)[..., 0, 0].transpose(1, 2)
        for maps in decoder.levels(codes)
    ]
    # What lies outside the cube reads the nearest face, its coordinates included.
    joined = torch.cat([*read, points.clamp(-1, 1)], dim=-1)
    weight = torch.cat(
        [*(layer.weight.flatten(1) for layer in decoder.to_hidden), decoder.point_to_hidden.weight], dim=1
    )
    return decoder.head(F.leaky_relu(F.linear(joined, weight, decoder.point_to_hidden.bias)))


def literal_mlp(decoder: MLPDecoder, codes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """A plain perceptron on (code, point), concatenated again at the skip layer (DeepSDF)."""
    entry = torch.cat([codes[:, None].expand(-1, points.shape[1], -1), points], dim=-1)
    enter, again = (
        torch.cat([code.weight, point.weight], dim=1)
        for code, point in zip(decoder.code_layers, decoder.point_layers, strict=True)
    )
    hidden = F.relu(F.linear(entry, enter, decoder.code_layers[0].bias))
    for index, layer in enumerate(decoder.layers, start=1):
        weight, bias, inputs = layer.weight, layer.bias, hidden
        if index == decoder.config.skip:
            weight, inputs = torch.cat([weight, again], dim=1), torch.cat([hidden, entry], dim=-1)
            bias = bias + decoder.code_layers[1].bias
        hidden = F.relu(F.linear(inputs, weight, bias))
    return decoder.head(hidden)


@pytest.mark.parametrize(
    ("make", "literal"),
    [
        (conv, literal_conv),
        (lambda: conv(ConvConfig(channels=(8, 8, 4), hidden=5, groups=4)), literal_conv),
        (mlp, literal_mlp),
        (lambda: mlp(MLPConfig(width=16, layers=8, skip=4)), literal_mlp),
    ],
)
def test_folded_equals_literal_in_value_and_every_gradient(make, literal):
    decoder = shaken(make())
    results = []
    for way in (values, literal):
        decoder.zero_grad()
        codes, points = (value.requires_grad_() for value in asked())
        found = way(decoder, codes, points)
        (found * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum().backward()
        weights = [parameter.grad.clone() for parameter in decoder.parameters()]
        results.append([found.detach(), codes.grad, points.grad, *weights])
    for folded, plain in zip(*results, strict=True):
        torch.testing.assert_close(folded, plain, atol=1e-4 * max(1.0, float(plain.abs().max())), rtol=1e-3)


@both
def test_a_value_does_not_depend_on_the_other_points(make):
    decoder, (codes, points) = make(), asked()
    together = values(decoder, codes, points)
    order = torch.randperm(points.shape[1])
    torch.testing.assert_close(values(decoder, codes, points[:, order]), together[:, order])
    torch.testing.assert_close(values(decoder, codes, points[:, 7:8]), together[:, 7:8], atol=1e-6, rtol=1e-5)


@both
def test_batch_equals_loop(make):
    decoder, (codes, points) = make(), asked()
    together = values(decoder, codes, points)
    alone = [values(decoder, codes[i : i + 1], points[i : i + 1]) for i in range(len(codes))]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


@both
def test_features_are_read_by_their_owner(make):
    decoder, (codes, points) = make(), asked()
    features = decoder.expand(codes)
    owner = torch.tensor([2, 0, 2])
    read = decoder.query(features, owner, points)
    torch.testing.assert_close(read, values(decoder, codes[owner], points), atol=1e-6, rtol=1e-5)


@both
def test_a_zero_head_is_zero_everywhere(make):
    kind = type(make())
    decoder = kind(CODE, OUTPUTS, make().config, True)
    assert not values(decoder, *asked()).any()


def test_outside_the_cube_the_nearest_face_is_read():
    decoder, (codes, points) = conv(), asked()
    torch.testing.assert_close(values(decoder, codes, points), values(decoder, codes, points.clamp(-1, 1)))


def test_pixel_shuffle_lays_eight_channels_out_as_a_block():
    maps = torch.arange(2.0 * 8 * 3**3).view(1, 16, 3, 3, 3)
    shuffled = pixel_shuffle3d(maps)
    assert shuffled.shape == (1, 2, 6, 6, 6)
    for block in range(8):
        i, j, k = block // 4, block // 2 % 2, block % 2
        assert torch.equal(shuffled[0, :, i::2, j::2, k::2], maps[0, block::8])


def test_levels_nest():
    config = ConvConfig(channels=(8, 8, 8))
    assert config.nodes == (5, 9, 17)
    assert [tuple(maps.shape[2:]) for maps in conv(config).levels(asked()[0])] == [
        (5,) * 3,
        (9,) * 3,
        (17,) * 3,
    ]


def test_perceptrons_read_codes_and_points_in_single_precision_whatever_their_hidden_layers_use():
    decoder = shaken(mlp())
    codes, points = asked(points=7)
    expected = decoder.expand(codes)[:, 0, None] + decoder.point_layers[0](points)
    entered = []
    decoder.layers[0].register_forward_pre_hook(lambda layer, inputs: entered.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        answer = values(decoder, codes, points)
    read = torch.cat(entered)
    assert answer.dtype == read.dtype == torch.float32
    torch.testing.assert_close(read, F.relu(expected))


def test_hidden_layers_in_half_precision_are_near_those_in_single_precision():
    decoder = shaken(mlp(MLPConfig(width=64, layers=8, skip=4)))
    exact = values(decoder, *asked())
    decoder.in_halves = True
    half = values(decoder, *asked())
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 4 * 2**-8 * exact.abs().max()  # a few of its last bits


def test_perceptrons_answer_many_points_in_parts(monkeypatch):
    decoder = shaken(mlp())
    whole = values(decoder, *asked(points=50))
    monkeypatch.setattr("implicit_atlas.atlas.decoders.POINTS_TOGETHER", 16)
    torch.testing.assert_close(values(decoder, *asked(points=50)), whole)
    for shapes, points in ((3, 0), (0, 5)):
        assert values(decoder, *asked(shapes, points)).shape == (shapes, points, OUTPUTS)
