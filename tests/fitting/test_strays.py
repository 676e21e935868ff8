"""Strays: what a fit gets wrong far from the surface is found, counted once a shape, and put right."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from atlas_samples import FIT, dsc, phantom_shapes, tiny_atlas

from implicit_atlas.fitting.strays import KEPT, LATTICE, Strays, far_from_surface
from implicit_atlas.geometry import grid
from implicit_atlas.shapes.sampling import Samples

SIDE = LATTICE.lattice
CPU = torch.device("cpu")


def two_balls():
    """A lattice with a ball in each of two cubes, of radius 1/2 and 1/4."""
    points = grid.lattice(SIDE).view(1, -1, 3).expand(2, -1, -1)
    inside = (points.norm(dim=-1) < torch.tensor([[0.5], [0.25]])).float()
    return Samples(points, inside, torch.ones_like(inside), SIDE)


def test_only_what_is_far_from_the_surface_counts():
    samples = two_balls()
    distance = (samples.points.norm(dim=-1) - torch.tensor([[0.5], [0.25]])).abs()
    far = far_from_surface(samples)
    assert far[distance > 2 * 3**0.5 / SIDE * 1.01].all()
    assert not far[distance < 0.5 / SIDE].any()


def test_strays_of_each_shape_are_found_and_the_rest_of_a_row_counts_nothing():
    samples, strays = two_balls(), Strays(2, CPU)
    right = torch.where(samples.occupancy > 0.5, 5.0, -5.0)
    assert not strays.add(samples, right, 10_000)
    assert len(strays) == 0 and strays.loss(torch.zeros(2, 0)).tolist() == [0, 0]
    wrong = right.clone()
    corner = (samples.points[0] > 0.7).all(-1)
    wrong[0, corner] = 5.0
    middle = samples.points[0].norm(dim=-1) < 0.06
    wrong[1, middle] = -5.0
    assert strays.add(samples, wrong, 10_000)
    assert strays.counts.sum(1).tolist() == [corner.sum(), middle.sum()]
    logits = torch.full((2, len(strays)), 5.0)
    expected = corner.sum() * torch.nn.functional.softplus(torch.tensor(5.0))
    assert strays.loss(logits)[0] == pytest.approx(float(expected), rel=1e-5)
    assert strays.loss(-logits)[0] < 0.01 * expected
    few = Strays(2, CPU)
    assert few.add(samples, wrong, 3)
    assert few.counts.sum(1).tolist() == [3, 3]


def test_the_surface_alone_is_no_stray():
    samples, strays = two_balls(), Strays(2, CPU)
    grown = torch.tensor([[0.5], [0.25]]) + 1 / SIDE - samples.points.norm(dim=-1)
    assert not strays.add(samples, grown, 10_000)


def test_a_fit_that_looks_for_strays_is_no_worse_and_can_be_left_without():
    shapes = phantom_shapes(8)[5:]
    off = tiny_atlas().fit(shapes, dataclasses.replace(FIT, strays=0.0))
    on = tiny_atlas().fit(shapes, FIT)
    scores = [
        [dsc(f.occupancy(), s.occupancy) for f, s in zip(fits, shapes, strict=True)] for fits in (off, on)
    ]
    assert sum(scores[1]) > sum(scores[0]) - 0.01 * len(shapes)
    assert all(fit.failure is None for fit in on)


def test_of_what_is_found_again_and_again_the_newest_stay():
    samples, strays = two_balls(), Strays(2, CPU)
    wrong = torch.where(samples.occupancy > 0.5, -5.0, 5.0)
    for _ in range(KEPT + 2):
        assert strays.add(samples, wrong, 10)
    assert len(strays) == 10 * KEPT
    logits = torch.where(strays.occupancy > 0.5, -5.0, 5.0)
    assert strays.loss(logits).tolist() == pytest.approx([10 * KEPT * 5.0067] * 2, rel=1e-4)


def test_what_stays_of_a_shape_does_not_depend_on_those_beside_it():
    """Four of the first look, beside a shape that gets all wrong at every look."""
    samples = two_balls()
    right = torch.where(samples.occupancy > 0.5, 5.0, -5.0)
    first = right.clone()
    first[0, (samples.points[0].norm(dim=-1) < 0.3).nonzero()[:4, 0]] *= -1
    kept = []
    for beside in (right, -right):
        strays = Strays(2, CPU)
        for look in range(KEPT + 2):
            strays.add(samples, torch.stack([(right if look else first)[0], beside[1]]), 10)
        own = strays.counts[0] > 0
        kept.append(strays.points[0][own])
    assert len(kept[0]) == 4 and torch.equal(*kept)
