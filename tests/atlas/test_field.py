"""The atlas: one-hot selection with a soft gradient, templates that move nowhere, batches that equal loops."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from atlas_samples import CODE, shaken, tiny_model

from implicit_atlas.atlas.field import Atlas, Field, straight_through
from implicit_atlas.atlas.methods import build

SHAPES, POINTS, TEMPLATES = 4, 24, 3


def atlas_of(method: str = "implicit-atlas+reg", random: bool = True, **selection) -> Atlas:
    torch.manual_seed(0)
    atlas = build(dataclasses.replace(tiny_model(method), templates=TEMPLATES))
    assert isinstance(atlas, Atlas)
    atlas.selection = dataclasses.replace(atlas.selection, **selection)
    return shaken(atlas) if random else atlas


def asked(shapes: int = SHAPES, points: int = POINTS) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return 2 * torch.randn(shapes, CODE), torch.rand(shapes, points, 3) * 2 - 1


def gradients(atlas, logits_of) -> list[torch.Tensor]:
    """Of the codes, the points and every weight, for a fixed mixture of the logits."""
    atlas.zero_grad()
    codes, points = (value.requires_grad_() for value in asked())
    logits = logits_of(codes, points)
    (logits * torch.linspace(-1, 1, logits.numel()).view(logits.shape)).sum().backward()
    return [codes.grad, points.grad, *(p.grad.clone() for p in atlas.parameters())]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1.0, float(b.abs().max())), rtol=1e-3)


def test_straight_through_is_one_hot_with_the_gradient_of_softmax():
    torch.manual_seed(0)
    scores, weight = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5)
    chosen = straight_through(scores, gumbel=False)
    torch.testing.assert_close(chosen, F.one_hot(scores.argmax(-1), 5).float(), atol=1e-6, rtol=0)
    (hard,) = torch.autograd.grad((chosen * weight).sum(), scores)
    (soft,) = torch.autograd.grad((scores.softmax(-1) * weight).sum(), scores)
    torch.testing.assert_close(hard, soft)


def test_gumbel_draws_templates_as_often_as_softmax_says():
    scores = torch.tensor([0.0, 1.0, -1.0]).expand(20_000, 3)
    drawn = straight_through(scores, True, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), scores[0].softmax(-1), atol=0.015, rtol=0)
    again = straight_through(scores, True, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_a_fresh_atlas_moves_nothing_and_gives_its_template():
    atlas, (codes, points) = atlas_of(random=False).eval(), asked()
    found = atlas(codes, points)
    assert not found.displacement.any()
    own = found.assignment.argmax(-1)
    template = atlas.template.query(atlas.expand_templates(), own, points)[..., 0]
    assert torch.equal(found.logits, template)


def test_a_moved_point_reads_the_template_where_it_came_from():
    atlas, (codes, points) = atlas_of().eval(), asked()
    found = atlas(codes, points)
    assert found.displacement.abs().max() > 0.01
    moved = points + found.displacement
    template = atlas.template.query(atlas.expand_templates(), found.assignment.argmax(-1), moved)[..., 0]
    assert torch.equal(found.logits, template)


def test_both_gradients_have_the_same_forward_values():
    codes, points = asked()
    outputs, mixed = (atlas_of(gradient=kind).train()(codes, points) for kind in ("outputs", "codes"))
    torch.testing.assert_close(outputs.logits, mixed.logits, atol=1e-5, rtol=1e-4)
    assert torch.equal(outputs.displacement, mixed.displacement)
    torch.testing.assert_close(atlas_of().eval()(codes, points).logits, outputs.logits, atol=1e-6, rtol=1e-5)


def test_with_stride_one_the_gradient_is_that_of_mixing_all_templates():
    atlas = atlas_of(stride=1).train()

    def mixing(codes, points):
        expanded = atlas.expand(codes)
        moved = points + atlas.displacement(expanded, points)
        features = atlas.expand_templates()
        answers = [
            atlas.template.query(features, torch.full((len(codes),), index), moved)[..., 0]
            for index in range(TEMPLATES)
        ]
        return torch.einsum(
            "bm,mbp->bp", straight_through(atlas.selector(codes), False), torch.stack(answers)
        )

    assert_same(gradients(atlas, lambda codes, points: atlas(codes, points).logits), gradients(atlas, mixing))


def test_the_stride_does_not_matter_where_all_points_are_one():
    codes, points = asked()
    points = points[:, :1].expand(-1, 24, -1)
    found = []
    for stride in (1, 4, 8):
        atlas = atlas_of(stride=stride).train()
        atlas(codes, points).logits.sum().backward()
        found.append(atlas.selector.weight.grad)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[1], found[0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found[2], found[0], atol=1e-3, rtol=1e-4)


def test_templates_alone_move_nothing():
    atlas, (codes, points) = atlas_of("MT").eval(), asked()
    assert atlas.deformation is None
    assert not atlas(codes, points).displacement.any()


def test_one_template_leaves_nothing_to_select():
    atlas, (codes, points) = atlas_of("D").train(), asked()
    found = atlas(codes, points)
    assert atlas.templates == 1
    torch.testing.assert_close(found.assignment, torch.ones(SHAPES, 1))
    found.logits.sum().backward()
    assert atlas.selector.weight.grad is None or not atlas.selector.weight.grad.any()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", ["implicit-atlas+reg", "MT", "conv", "mlp", "mlp+template"])
def test_batch_equals_loop(method, training):
    torch.manual_seed(0)
    network = shaken(build(tiny_model(method))).train(training)
    codes, points = asked()
    together = network(codes, points).logits
    alone = [network(codes[i : i + 1], points[i : i + 1]).logits for i in range(SHAPES)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_a_value_does_not_depend_on_the_other_points():
    atlas, (codes, points) = atlas_of().train(), asked()
    together, order = atlas(codes, points), torch.randperm(POINTS)
    again = atlas(codes, points[:, order])
    torch.testing.assert_close(again.logits, together.logits[:, order])
    torch.testing.assert_close(again.displacement, together.displacement[:, order])


def test_a_template_can_be_prescribed():
    atlas, (codes, points) = atlas_of().eval(), asked()
    own = atlas(codes, points).assignment.argmax(-1)
    assert torch.equal(atlas(codes, points, own).logits, atlas(codes, points).logits)
    for index in range(TEMPLATES):
        found = atlas(codes, points, torch.full((SHAPES,), index))
        assert (found.assignment.argmax(-1) == index).all()


def test_templates_can_be_expanded_beforehand():
    atlas, (codes, points) = atlas_of().eval(), asked()
    features = atlas.expand_templates()
    found = atlas.query(atlas.expand(codes, template_features=features), points)
    assert torch.equal(found.logits, atlas(codes, points).logits)


def test_codes_select_the_nearest_centre():
    atlas = atlas_of(random=False)
    centres = torch.randn(TEMPLATES, CODE)
    atlas.start_selection(centres)
    codes = torch.cat([centres, torch.randn(20, CODE)])
    nearest = torch.cdist(codes, centres).argmin(-1)
    assert torch.equal(atlas.selector(codes).argmax(-1), nearest)
    assert nearest[:TEMPLATES].tolist() == list(range(TEMPLATES))


def test_bfloat16_selects_and_moves_as_single_precision_does():
    atlas = atlas_of().train()
    codes, _ = asked(shapes=200)
    with torch.no_grad():
        atlas.selector.bias.add_(-140)  # two scores in three are alike in bfloat16 then
    exact = atlas.expand(codes)
    with torch.autocast("cpu", torch.bfloat16):
        found = atlas.expand(codes)
    assert len(exact.owner.unique()) == TEMPLATES
    assert torch.equal(found.assignment, exact.assignment)
    assert torch.equal(found.motion, exact.motion)


def test_a_field_has_no_templates():
    torch.manual_seed(0)
    field = build(tiny_model("conv"))
    assert isinstance(field, Field) and field.templates == 0
    found = field(*asked())
    assert found.displacement is None and found.assignment is None
