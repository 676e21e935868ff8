"""Foreign methods of the tables: DIF-Net's fields, losses, samples, learning and fits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from atlas_samples import dsc, phantom_shapes
from experiments.cells.completion import observe
from experiments.peers import difnet_training
from experiments.peers.difnet import DifNet, NetworkConfig, deform, values_at
from experiments.peers.difnet_data import make_pool
from experiments.peers.difnet_fitting import fit_observations, fit_shapes
from experiments.peers.difnet_losses import (
    DifNetWeights,
    code_loss,
    correction_loss,
    eikonal_loss,
    label_loss,
    normal_loss,
    off_surface_loss,
    prior_loss,
    sdf_loss,
    smoothness_loss,
    training_loss,
)
from experiments.peers.difnet_run import decode
from experiments.peers.difnet_training import DifNetConfig, accumulate, train_difnet

from implicit_atlas import InputError
from implicit_atlas.geometry.grid import lattice

RESOLUTION = 24
NETWORK = NetworkConfig(8, deform_width=16, template_width=24, hyper_width=16, layers=1)
TINY = DifNetConfig(
    steps=6, iterations=3, batch=2, surface_points=64, free_points=64, pool=512, network=NETWORK
)
RADII = (0.45, 0.7)


def ball(radius):
    """A ball around the middle of the cube, with its occupancy."""
    occupancy = lattice(RESOLUTION).norm(dim=-1).numpy() < radius
    shape = phantom_shapes(1)[0]
    frame = dataclasses.replace(shape.frame, resolution=RESOLUTION)
    return dataclasses.replace(shape, packed=np.packbits(occupancy), frame=frame, name=f"ball {radius}")


@pytest.fixture(scope="module")
def balls():
    return [ball(radius) for radius in RADII]


@pytest.fixture(scope="module")
def learned(balls):
    """A small network that has learned the balls, and how."""
    config = DifNetConfig(
        steps=200,
        iterations=60,
        batch=2,
        surface_points=256,
        free_points=256,
        pool=4000,
        learning_rate=5e-4,
        network=NetworkConfig(32, deform_width=24, template_width=32, hyper_width=64, layers=1),
    )
    return train_difnet(balls, config), config


@pytest.fixture
def network():
    torch.manual_seed(0)
    return DifNet(NETWORK).double()


def batch(count=3, points=20):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn((count, NETWORK.code_size), generator=generator, dtype=torch.float64)
    return codes, torch.rand((count, points, 3), generator=generator, dtype=torch.float64) * 2 - 1


def test_a_batch_equals_its_shapes_one_by_one(network):
    codes, points = batch()
    whole = network.fields(network.expand(codes), points)
    for i in range(len(codes)):
        one = network.fields(network.expand(codes[i : i + 1]), points[i : i + 1])
        for name in ("sdf", "gradient", "jacobian", "correction", "template_gradient"):
            torch.testing.assert_close(getattr(whole, name)[i], getattr(one, name)[0])
    torch.testing.assert_close(network(codes, points), whole.sdf)


def test_without_displacement_and_correction_a_shape_is_the_template(network):
    codes, points = batch()
    layers = network.expand(codes)
    layers[-1] = (torch.zeros_like(layers[-1][0]), torch.zeros_like(layers[-1][1]))
    found = network.fields(layers, points)
    value, gradient = network.template.with_gradient(points)
    torch.testing.assert_close(found.sdf, network.template(points))
    torch.testing.assert_close(found.sdf, value)
    torch.testing.assert_close(found.gradient, gradient)
    assert not found.jacobian.any() and not found.correction.any()


def test_derivatives_are_those_of_the_fields(network):
    codes, points = batch(2, 5)
    points.requires_grad_()
    layers = network.expand(codes)
    found = network.fields(layers, points)
    (slope,) = torch.autograd.grad(found.sdf.sum(), points, retain_graph=True)
    torch.testing.assert_close(found.gradient, slope)
    displacement = deform(layers, points)[..., :3]
    for i in range(3):
        (slope,) = torch.autograd.grad(displacement[..., i].sum(), points, retain_graph=True)
        torch.testing.assert_close(found.jacobian[..., i, :], slope)


def test_a_loss_of_derivatives_has_the_gradient_of_its_differences(network):
    codes, points = batch(1, 4)

    def loss(code):
        found = network.fields(network.expand(code), points)
        return eikonal_loss(found.gradient) + smoothness_loss(found.jacobian)

    assert torch.autograd.gradcheck(loss, codes[:1].requires_grad_())


def test_losses_vanish_where_they_should():
    normals = torch.nn.functional.normalize(torch.randn(2, 9, 3, dtype=torch.float64), dim=-1)
    plane = normals[:1, :1].expand(2, 9, 3)  # the gradient of a plane's distance, everywhere
    distances = torch.randn(2, 9, dtype=torch.float64)
    found = [
        eikonal_loss(plane),
        normal_loss(3 * normals, normals),
        sdf_loss(distances, distances),
        sdf_loss(distances.abs() + 0.5, distances.abs() + 2),
        smoothness_loss(torch.zeros(2, 9, 3, 3)),
        correction_loss(torch.zeros(2, 9)),
        code_loss(torch.zeros(2, 5)),
        off_surface_loss(torch.full((2, 9), 1.0)),
        label_loss(torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2)),
    ]
    for value in found:
        assert value.item() == pytest.approx(0, abs=1e-12)
    assert normal_loss(-normals, normals).item() == pytest.approx(2)
    assert off_surface_loss(torch.zeros(2, 9)).item() == 1


def test_a_label_on_the_wrong_side_costs_its_distance():
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    weight = torch.tensor([[1.0, 1.0, 0.0]])
    assert label_loss(torch.tensor([[0.3, -0.3, 5.0]]), labels, weight).item() == pytest.approx(0.3, abs=1e-6)


def test_gradients_are_those_of_the_whole_loss_and_finite(balls, network):
    network = network.float()
    pool = make_pool(balls, 300)
    samples = pool.sample(torch.arange(2), (20, 20), torch.Generator().manual_seed(0))
    codes = torch.full((2, NETWORK.code_size), 0.1, requires_grad=True)
    weights = DifNetWeights()
    fields = network.fields(network.expand(codes), samples.points)
    loss = training_loss(fields, samples, weights) + prior_loss(codes, weights)
    parameters = [codes, *network.parameters()]
    whole = torch.autograd.grad(loss, parameters)

    def loss_of(layers, rows):
        return training_loss(network.fields(layers, samples.points[rows]), samples.part(rows), weights)

    assert accumulate(network, codes, loss_of, weights, 0.5) == pytest.approx(loss.item(), rel=1e-4)
    for parameter, expected in zip(parameters, whole, strict=True):
        assert torch.isfinite(parameter.grad).all()
        torch.testing.assert_close(
            parameter.grad, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        )


def test_points_normals_and_distances_are_those_of_a_ball(balls):
    before = [shape.packed.copy() for shape in balls]
    pool = make_pool(balls, 2000)
    voxel = 2 / RESOLUTION
    for index, radius in enumerate(RADII):
        out = torch.nn.functional.normalize(pool.surface[index], dim=-1)
        assert (pool.surface[index].norm(dim=-1) - radius).abs().max() < voxel
        assert (pool.normals[index] * out).sum(-1).min() > 0.9
        truth = (pool.free.norm(dim=-1) - radius).clamp(-0.5, 0.5)
        assert (pool.sdf[index] - truth).abs().max() < voxel
    for shape, packed in zip(balls, before, strict=True):
        np.testing.assert_array_equal(shape.packed, packed)


def test_a_shape_that_fills_its_cube_has_a_surface_at_the_cube_s_faces(balls):
    full = dataclasses.replace(balls[0], packed=np.full_like(balls[0].packed, 255))
    pool = make_pool([full], 500)
    torch.testing.assert_close(pool.surface[0].abs().amax(-1), torch.ones(500))
    inner = pool.free.abs().amax(-1) < 0.9
    truth = (pool.free.abs().amax(-1) - 1).clamp_min(-0.5)
    assert (pool.sdf[0] - truth)[inner].abs().max() < 1 / RESOLUTION


def test_samples_of_a_fit_do_not_depend_on_the_other_shapes(balls):
    both, second = make_pool(balls, 300), make_pool(balls[1:], 300)
    drawn = [
        pool.sample(torch.tensor([i]), (10, 10), torch.Generator().manual_seed(3), shared=True)
        for pool, i in ((both, 1), (second, 0))
    ]
    drawn.append(
        both.sample(torch.arange(2), (10, 10), torch.Generator().manual_seed(3), shared=True).part(
            slice(1, 2)
        )
    )
    for other in drawn[1:]:
        torch.testing.assert_close(drawn[0].points, other.points)
        torch.testing.assert_close(drawn[0].sdf, other.sdf)
        torch.testing.assert_close(drawn[0].normals, other.normals)
    assert not drawn[0].sdf[:, : drawn[0].surface].any()


def test_two_balls_are_learned_and_fitted_again(balls, learned):
    trained, config = learned
    for shape, field in zip(balls, decode(trained, trained.codes, RESOLUTION), strict=True):
        assert dsc(field > 0, shape.occupancy) > 0.9
    fitted = fit_shapes(trained, balls[1:], config)
    (field,) = decode(trained, fitted, RESOLUTION)
    assert dsc(field > 0, balls[1].occupancy) > 0.9
    (field,) = decode(trained, fit_observations(trained, [observe(balls[1], 256)], config), RESOLUTION)
    assert dsc(field > 0, balls[1].occupancy) > 0.85


def test_fits_of_a_batch_equal_fits_one_by_one_and_leave_the_model_alone(balls, learned):
    trained, config = learned
    config = dataclasses.replace(config, iterations=5)
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    codes = trained.codes.clone()
    whole = fit_shapes(trained, balls, config)
    single = torch.cat([fit_shapes(trained, [shape], config) for shape in balls])
    torch.testing.assert_close(whole, single, rtol=1e-3, atol=1e-5)
    seen = [observe(balls[0], 64), observe(balls[1], 100)]
    whole = fit_observations(trained, seen, config)
    single = torch.cat([fit_observations(trained, [one], config) for one in seen])
    torch.testing.assert_close(whole, single, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(trained.codes, codes, rtol=0, atol=0)
    for name, value in trained.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_what_leaves_is_positive_inside(learned):
    trained, _ = learned
    values = values_at(trained.network, trained.codes[1])
    inside, outside = values(np.array([[0, 0, 0.1], [0.9, 0.9, 0.9]], np.float32))
    assert inside > 0 > outside


def test_a_killed_run_goes_on_as_if_nothing_had_happened(balls, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(share, text):
        if share > 0.4:
            raise Stop

    monkeypatch.setattr(difnet_training, "LOG_EVERY", 1)
    often = dataclasses.replace(TINY, checkpoint_minutes=0)
    with pytest.raises(Stop):
        train_difnet(balls, often, tmp_path / "run", stop)
    resumed = train_difnet(balls, TINY, tmp_path / "run")
    straight = train_difnet(balls, TINY)
    torch.testing.assert_close(resumed.codes, straight.codes, rtol=0, atol=0)
    for a, b in zip(resumed.network.parameters(), straight.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    with pytest.raises(InputError, match="another configuration"):
        train_difnet(balls, dataclasses.replace(TINY, seed=1), tmp_path / "run")
    with pytest.raises(InputError, match="another data"):
        train_difnet(balls[:1], TINY, tmp_path / "run")


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(InputError, match="holds no shape"):
        train_difnet([], TINY)
