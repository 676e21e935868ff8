"""Correspondence: there and back again, across shapes, and labels that follow."""

from __future__ import annotations

import numpy as np
import pytest
from atlas_samples import FIT, dsc, phantom_shapes, tiny_atlas, tiny_model, tiny_training

from implicit_atlas.correspondence.through_template import (
    OUTSIDE,
    Labelled,
    common_template,
    from_template,
    jacobians,
    places_in,
    reference_template,
    share_of_folds,
    surface_map,
    template_map,
    template_mesh,
    transfer_labels,
    transfer_points,
)
from implicit_atlas.errors import InputError
from implicit_atlas.training.learning import train

SHAPES = phantom_shapes(8)
RNG = np.random.default_rng(0)


def wave(points):
    """A map without folds."""
    return points + 0.1 * np.sin(2 * points[:, [1, 2, 0]])


def test_the_way_back_undoes_the_way_there():
    points = RNG.uniform(-0.9, 0.9, (500, 3))
    found = from_template(wave, wave(points))
    assert found.solved == 1.0
    np.testing.assert_allclose(found.points, points, atol=1e-3)


def test_what_cannot_be_reached_says_how_far_it_is():
    shrunk = lambda points: points * 0.5  # noqa: E731
    found = from_template(shrunk, np.array([[0.9, 0.0, 0.0], [0.1, 0.1, 0.1]]))
    assert found.left[0] == pytest.approx(0.9 - OUTSIDE / 2, abs=1e-3) and found.left[1] < 1e-4
    assert found.solved == 0.5


def test_jacobians_and_folds_of_known_maps():
    matrix = np.array([[1.0, 0.2, 0], [0, 0.8, 0.1], [0.3, 0, 1.2]])
    points = RNG.uniform(-0.5, 0.5, (20, 3))
    found = jacobians(lambda p: p @ matrix.T, points)
    np.testing.assert_allclose(found, np.broadcast_to(matrix, found.shape), atol=1e-6)
    assert share_of_folds(wave, points) == 0
    turned = lambda p: p * np.where(p[:, :1] > 0, [-1.0, 1, 1], [1.0, 1, 1])  # noqa: E731
    assert share_of_folds(turned, points) == pytest.approx((points[:, 0] > 0).mean())


def fitted(*indices):
    template = reference_template(tiny_atlas())
    return tiny_atlas().fit([SHAPES[i] for i in indices], FIT, template=template)


def test_template_vertices_lie_on_the_surface_of_every_shape():
    """By the smooth map of the surfaces, and by the displacement where that does not fold."""
    mesh = template_mesh(tiny_atlas(), reference_template(tiny_atlas()), 32)
    for fit in fitted(5, 7):
        by_map = from_template(surface_map(tiny_atlas(), fit, mesh), mesh.vertices)
        assert by_map.solved > 0.99
        by_displacement = from_template(template_map(tiny_atlas(), fit.found), mesh.vertices)
        assert by_displacement.solved > 0.9  # an atlas of 150 steps folds here and there
        for found in (by_map, by_displacement):
            good = found.left < 1e-3
            logits = fit.logits_at(found.points[good])
            slope = np.abs(fit.logits_at(found.points[good] * 0.9) - logits)
            assert np.median(np.abs(logits) / np.maximum(slope, 1e-3)) < 0.2


def test_what_is_carried_between_cases_by_maps_of_their_surfaces_is_what_one_call_carries():
    first, second = fitted(5, 7)
    mesh = template_mesh(tiny_atlas(), reference_template(tiny_atlas()))
    points_mm = first.mesh().vertices[::200]
    wanted = surface_map(tiny_atlas(), first, mesh)(first.placed().world_to_cube(points_mm))
    there, left_mm = places_in(second, surface_map(tiny_atlas(), second, mesh), wanted)
    expected, expected_mm = transfer_points(tiny_atlas(), first, second, points_mm)
    np.testing.assert_allclose(there, expected)
    np.testing.assert_allclose(left_mm, expected_mm)


def test_places_go_to_another_case_and_come_back():
    first, second = fitted(5, 7)
    points_mm = first.mesh().vertices[::50]
    there, off_mm = transfer_points(tiny_atlas(), first, second, points_mm)
    back, _ = transfer_points(tiny_atlas(), second, first, there)
    good = off_mm < 0.05
    assert good.mean() > 0.9
    assert np.median(np.linalg.norm(back - points_mm, axis=1)[good]) < 0.2
    same, _ = transfer_points(tiny_atlas(), first, first, points_mm)
    assert np.median(np.linalg.norm(same - points_mm, axis=1)) < 0.05


def test_one_template_is_asked_for_and_used():
    fits = tiny_atlas().fit(SHAPES[5:7], FIT, template=1)
    assert common_template(fits) == 1
    with pytest.raises(InputError, match="template 2"):
        tiny_atlas().fit(SHAPES[5:6], FIT, template=2)
    other = tiny_atlas().fit(SHAPES[5:6], FIT, template=0)
    with pytest.raises(InputError, match="common template"):
        common_template(fits + other)
    with pytest.raises(InputError, match="no template"):
        plain = train(SHAPES[:2], tiny_model("conv"), tiny_training(steps=1))
        reference_template(plain)


def test_labels_follow_the_votes():
    left, right = RNG.uniform(-1, 0, (200, 3)), RNG.uniform(0, 1, (200, 3))
    source = Labelled(np.concatenate([left, right]), np.repeat([1, 7], 200))
    wanted = np.array([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]])
    assert transfer_labels([source], wanted).tolist() == [1, 7]
    swapped = Labelled(source.places, np.repeat([7, 1], 200))
    assert transfer_labels([source, swapped, source], wanted).tolist() == [1, 7]


def test_parts_of_a_shape_follow_into_another():
    """The halves of a phantom, drawn on one, lie about where its box says in another of the family."""
    fits = fitted(5, 7)
    mesh = template_mesh(tiny_atlas(), reference_template(tiny_atlas()))
    places, halves = [], []
    for fit in fits:
        inside = np.argwhere(fit.occupancy())
        cube = (2 * inside + 1) / fit.resolution - 1
        places.append(surface_map(tiny_atlas(), fit, mesh)(cube))
        halves.append((cube[:, 2] > 0).astype(int))
    found = transfer_labels([Labelled(places[0], halves[0])], places[1])
    assert dsc(found == 1, halves[1] == 1) > 0.85
