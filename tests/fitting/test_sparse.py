"""Completion: what is seen is followed, what is not stays as probable, and a shape that failed says so."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from atlas_samples import CODE, RESOLUTION, dsc, phantom_shapes, tiny_atlas, tiny_model

from implicit_atlas.atlas.field import Atlas
from implicit_atlas.atlas.methods import build
from implicit_atlas.atlas.prior import fit_prior
from implicit_atlas.errors import InputError
from implicit_atlas.fitting import sparse
from implicit_atlas.fitting.sparse import ShapePrior, SparseConfig
from implicit_atlas.fitting.sparse_batch import SparseBatch
from implicit_atlas.geometry import grid
from implicit_atlas.shapes.sampling import Observations, ShapeSet
from implicit_atlas.shapes.shape import Shape
from implicit_atlas.trained_atlas import TrainedAtlas

SHAPES = phantom_shapes(8)
UNSEEN = SHAPES[7]
QUICK = SparseConfig()


def observe(shape: Shape, count: int, weight: float = 1.0) -> Observations:
    """Random voxels of a shape, as clicks would be."""
    voxel = np.random.default_rng(0).integers(0, RESOLUTION, (count, 3))
    inside = shape.occupancy[tuple(voxel.T)].astype(float)
    points = (2 * voxel + 1) / RESOLUTION - 1
    return Observations(points, inside, np.full(count, weight), name=shape.name)


def boundary(shape: Shape, count: int) -> Observations:
    """Points on the boundary, nobody knows on which side."""
    faces = ShapeSet(shape.packed[None], RESOLUTION).faces.numpy()
    face = np.random.default_rng(0).choice(faces, count)
    flat, axis = face // 3, face % 3
    voxel = np.stack(np.unravel_index(flat, (RESOLUTION,) * 3), axis=-1) + 0.5 * np.eye(3)[axis]
    return Observations((2 * voxel + 1) / RESOLUTION - 1, np.full(count, 0.5), name=shape.name, spread=0.01)


def mean_dsc(shape: Shape) -> float:
    """How like the shape is the atlas's mean code, with the best template."""
    nothing = tiny_atlas().complete([observe(shape, 600, 1e-9)], QUICK)[0]
    return dsc(nothing.occupancy(), shape.occupancy)


def test_points_on_the_boundary_lie_on_it_where_nothing_else_is_said():
    seen = dataclasses.replace(boundary(UNSEEN, 200), spread=None)
    (found,) = tiny_atlas().complete([seen], QUICK)
    assert found.failure is None and dsc(found.occupancy(), UNSEEN.occupancy) > mean_dsc(UNSEEN)


def test_labels_that_the_mean_shape_agrees_with_are_no_failure():
    nothing = tiny_atlas().complete([observe(UNSEEN, 600, 1e-9)], QUICK)[0]
    corners = np.array(np.meshgrid([-0.97, 0.97], [-0.97, 0.97], [-0.97, 0.97])).reshape(3, -1).T
    assert not (nothing.logits_at(corners) > 0).any()
    (found,) = tiny_atlas().complete([Observations(corners, np.zeros(8), name="outside")], QUICK)
    assert found.failure is None and dsc(found.occupancy(), nothing.occupancy()) > 0.9


def test_volumes_are_read_as_one_by_one():
    torch.manual_seed(0)
    volumes, owner = torch.randn(3, 8, 8, 8), torch.tensor([2, 0, 2])
    points = (torch.rand(3, 20, 3) * 1.6 - 0.8).requires_grad_()
    found = grid.sample_distances(volumes, owner, points)
    for row, index, at in zip(found, owner, points, strict=True):
        torch.testing.assert_close(row, grid.sample_volume(volumes[index], at.detach()), atol=1e-5, rtol=1e-5)
    found.sum().backward()
    assert points.grad is not None and points.grad.any(-1).all()


def test_labelled_points_complete_an_unseen_shape():
    for shape in SHAPES[6:]:
        (fit,) = tiny_atlas().complete([observe(shape, 600)])
        assert fit.failure is None and fit.found.start == "mean"
        assert dsc(fit.occupancy(), shape.occupancy) > mean_dsc(shape) + 0.02
        assert fit.found.loss < fit.found.mean_loss


def test_points_on_the_boundary_need_no_labels():
    shape = SHAPES[5]
    (fit,) = tiny_atlas().complete([boundary(shape, 200)])
    assert dsc(fit.occupancy(), shape.occupancy) > max(0.95, mean_dsc(shape) + 0.02)


def test_what_says_nothing_leaves_the_mean_and_what_says_much_is_followed():
    fits = [
        tiny_atlas().complete([observe(UNSEEN, 200, weight)], QUICK)[0].found for weight in (1e-6, 0.1, 10.0)
    ]
    mean = tiny_atlas().prior.means[fits[0].template].numpy()
    np.testing.assert_allclose(fits[0].code, mean, atol=0.02)
    away = [np.linalg.norm(fit.code - mean) for fit in fits]
    assert away == sorted(away)
    left = [fit.loss / weight for fit, weight in zip(fits, (1e-6, 0.1, 10.0), strict=True)]
    assert left == sorted(left, reverse=True)


def test_a_residual_comes_closer_to_the_points_and_is_counted():
    seen = [observe(UNSEEN, 600)]
    with_one, without = (
        tiny_atlas().complete(seen, dataclasses.replace(QUICK, residual=size))[0].found
        for size in (4 / 64, 0.0)
    )
    assert with_one.loss < without.loss
    assert with_one.residual is not None and without.residual is None
    nodes = tiny_atlas().residual_nodes(QUICK.residual_nodes)
    assert with_one.degrees_of_freedom == CODE + nodes.free and without.degrees_of_freedom == CODE
    assert 0 < np.abs(with_one.residual).max() < 5 * 4 / 64


def test_templates_that_lie_beside_the_cube_are_asked_for_their_logits(monkeypatch):
    """As unpenalised perceptrons place them: maps of their distances in the cube say nothing of them."""
    atlas, seen = tiny_atlas(), [observe(UNSEEN, 600)]
    displacement, template = Atlas.displacement, atlas.network.template
    monkeypatch.setattr(Atlas, "displacement", lambda *args: displacement(*args) + 2.5)
    query = template.query
    monkeypatch.setattr(template, "query", lambda maps, owner, at: query(maps, owner, at - 2.5))
    monkeypatch.setattr(atlas, "_distances", None)
    (done,) = atlas.complete(seen, QUICK)
    assert done.found.degrees_of_freedom == CODE and done.found.residual is None
    monkeypatch.setattr(sparse, "_templates_fill_cube", lambda *_: True)
    (by_distances,) = atlas.complete(seen, QUICK)
    scores = [dsc(fit.occupancy(), UNSEEN.occupancy) for fit in (done, by_distances)]
    assert scores[0] > 0.85 and scores[0] > scores[1] + 0.05


def test_many_at_once_equal_one_by_one():
    # Of long searches, rounding decides now and then where they end.
    short = dataclasses.replace(QUICK, iterations=20)
    seen = [observe(shape, count) for shape, count in zip(SHAPES[5:], (300, 600, 60), strict=True)]
    together = tiny_atlas().complete(seen, short)
    parts = tiny_atlas().complete(seen, dataclasses.replace(short, batch=2))
    for one, a, b in zip(seen, together, parts, strict=True):
        alone = tiny_atlas().complete([one], short)[0]
        assert a.name == b.name == alone.name == one.name
        assert a.found.template == b.found.template == alone.found.template
        assert a.found.loss == pytest.approx(alone.found.loss, rel=1e-3)
        assert b.found.loss == pytest.approx(alone.found.loss, rel=1e-3)


def test_completing_leaves_the_network_as_it_was():
    network = tiny_atlas().network
    before = copy.deepcopy(network.state_dict())
    tiny_atlas().complete([observe(UNSEEN, 50)], dataclasses.replace(QUICK, iterations=2))
    assert all(torch.equal(before[name], after) for name, after in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_points_that_are_all_inside_are_no_failure():
    inside = observe(UNSEEN, 400)
    kept = inside.occupancy > 0
    (fit,) = tiny_atlas().complete([Observations(inside.points[kept], inside.occupancy[kept])], QUICK)
    assert fit.failure is None


def test_what_cannot_be_improved_upon_is_a_failure():
    still = dataclasses.replace(QUICK, learning_rate=0.0, iterations=1)
    (fit,) = tiny_atlas().complete([observe(UNSEEN, 100)], still)
    assert fit.failure is not None and "mean shape" in fit.failure


def other_atlas(method: str) -> TrainedAtlas:
    torch.manual_seed(0)
    atlas, model = tiny_atlas(), tiny_model(method)
    config = dataclasses.replace(atlas.config, model=model)
    prior = fit_prior(atlas.codes, np.zeros(len(atlas.codes), np.int64), max(1, model.template_count))
    return TrainedAtlas(config, build(model), atlas.codes, atlas.encoder, prior, {})


@pytest.mark.parametrize("method", ["conv", "mlp", "mlp+template", "MT", "D"])
def test_every_method_completes(method):
    (fit,) = other_atlas(method).complete([observe(UNSEEN, 100)], dataclasses.replace(QUICK, iterations=3))
    assert fit.found.iterations == 3 and np.isfinite(fit.found.loss)


def test_boundary_clicks_pull_a_field_without_templates_to_them():
    """One half is the label of a point on the boundary: its field is to be zero there."""
    atlas = other_atlas("conv")
    with torch.no_grad():
        atlas.network.decoder.head.weight.mul_(30)
    points = observe(UNSEEN, 60).points
    seen = [
        Observations(points, np.full(60, 0.5), spread=0.0),
        Observations(points[:30], np.full(30, 0.5), spread=0.0),
    ]
    one, other = atlas.complete(seen, dataclasses.replace(QUICK, iterations=10))
    assert not np.allclose(one.found.code, other.found.code)
    start = atlas.complete(seen[:1], dataclasses.replace(QUICK, iterations=1))[0]
    far = [np.abs(fit.logits_at(points.astype(np.float32))).mean() for fit in (start, one)]
    assert far[1] < far[0]


def test_a_broken_network_is_a_failure_of_finite_numbers():
    atlas = other_atlas("conv")
    with torch.no_grad():
        atlas.network.decoder.head.bias.fill_(float("nan"))
    (fit,) = atlas.complete([observe(UNSEEN, 100)], dataclasses.replace(QUICK, iterations=2))
    assert fit.failure is not None and "not finite" in fit.failure
    assert np.isfinite(fit.found.code).all()


def test_nothing_observed_and_a_spread_that_is_none_are_refused():
    with pytest.raises(InputError, match="no shape"):
        tiny_atlas().complete([])
    with pytest.raises(InputError, match="spread"):
        dataclasses.replace(observe(UNSEEN, 10), spread=-1.0)
    with pytest.raises(InputError, match="spread"):
        dataclasses.replace(observe(UNSEEN, 10), spread=float("nan"))


def test_of_searches_with_each_template_the_most_probable_is_kept():
    atlas, seen = tiny_atlas(), [observe(shape, 300) for shape in SHAPES[4:]]
    prior = ShapePrior(atlas.prior, atlas._template_distances(), atlas.residual_nodes(QUICK.residual_nodes))
    network = copy.deepcopy(atlas.network).requires_grad_(False)
    batch, values = SparseBatch(network, seen, prior, QUICK), []
    for index in range(atlas.templates):
        template = torch.full((len(seen),), index)
        _, free = batch.run(lambda share, text: None, None, template)
        values.append(batch.improbability(free, template))
    found = [fit.found.template for fit in atlas.complete(seen, QUICK)]
    assert found == torch.stack(values).argmin(0).tolist()


def test_draws_begin_at_each_end_as_often_as_it_is_probable():
    free = torch.arange(6.0).view(2, 3, 1)
    template = torch.tensor([[0, 1, 2], [2, 1, 0]])
    value = torch.tensor([[5.0, 5 + float(np.log(3)), torch.inf], [torch.inf, torch.inf, torch.inf]])
    ends = sparse._Ends([[], []], free, template, value)
    starts, templates = zip(*(ends.at_random([seed, seed]) for seed in range(400)), strict=True)
    first = torch.stack(starts)[:, 0, 0]
    assert (first < 2).all() and (first == 1).float().mean() == pytest.approx(0.25, abs=0.07)
    assert torch.equal(torch.stack(templates)[:, 0], first.long())
    assert (torch.stack(templates)[:, 1] == 2).all()  # the first, where none is found
    assert torch.equal(ends.at_random([7, 8])[0], ends.at_random([7, 8])[0])
    assert dataclasses.replace(ends, template=None).at_random([7, 8])[1] is None


def test_other_ends_are_rivals_in_order():
    seen = [observe(shape, 60) for shape in SHAPES[4:6]]
    for fit in tiny_atlas().complete(seen, QUICK):
        values = [each.found.improbability for each in (fit, *fit.rivals)]
        assert values == sorted(values) and len({each.found.template for each in (fit, *fit.rivals)}) == len(
            values
        )
        assert len(values) == min(sparse.FINALISTS, tiny_atlas().templates) > 1
