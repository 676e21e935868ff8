"""Smooth maps of one surface onto another: known deformations are found, and surfaces meet."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial import KDTree

from implicit_atlas.correspondence.alignment import align
from implicit_atlas.correspondence.through_template import from_template, share_of_folds
from implicit_atlas.geometry.surface import CubeMesh
from implicit_atlas.phantoms import make_phantom

EVEN = np.ones(3)


def surface() -> CubeMesh:
    """A bent tube in the cube, like no mirror image of itself."""
    phantom = make_phantom("curved-tube", 3)
    middle = phantom.vertices_mm.mean(0)
    size = np.abs(phantom.vertices_mm - middle).max()
    return CubeMesh((phantom.vertices_mm - middle) / size * 0.9, phantom.faces)


MESH = surface()


def bent(points: np.ndarray) -> np.ndarray:
    """Longer at one end and bent: about 0.1 cube units."""
    x = points[:, 0]
    return points + np.stack([0.1 * x + 0.12 * x**2, 0.2 * x**2, 0.1 * x], axis=1)


def test_a_surface_stays_on_itself():
    found = align(MESH.vertices, MESH, EVEN)
    assert np.linalg.norm(found(MESH.vertices) - MESH.vertices, axis=1).max() < 0.03
    assert np.linalg.norm(found(MESH.vertices) - MESH.vertices, axis=1).mean() < 0.005


def test_a_known_deformation_is_found_along_the_surface_too():
    moved = bent(MESH.vertices)
    found = align(moved, MESH, EVEN)
    error = np.linalg.norm(found(moved) - MESH.vertices, axis=1)
    assert error.mean() < 0.33 * np.linalg.norm(moved - MESH.vertices, axis=1).mean()
    nearest = MESH.vertices[
        KDTree(MESH.vertices).query(moved)[1]
    ]  # which meets the surface, at the wrong place
    assert error.mean() < 0.55 * np.linalg.norm(nearest - MESH.vertices, axis=1).mean()
    assert KDTree(MESH.vertices).query(found(moved))[0].mean() < 0.02
    assert share_of_folds(found, moved[::3]) == 0


def test_the_way_back_is_found():
    moved = bent(MESH.vertices)
    found = align(moved, MESH, EVEN)
    back = from_template(found, MESH.vertices[::20])
    assert back.solved == 1
    assert np.abs(found(back.points) - MESH.vertices[::20]).max() < 1e-3


def test_cubes_of_unequal_sides_count_as_they_are_long():
    """In cube coordinates that are stretched, with the sides that undo it, nothing changes."""
    moved, sides = bent(MESH.vertices), np.array([0.5, 1.0, 1.5])
    plain = align(moved, MESH, EVEN)
    other = align(moved / sides, dataclasses.replace(MESH, vertices=MESH.vertices / sides), 40 * sides)
    assert other(moved / sides) * sides == pytest.approx(plain(moved), abs=2e-3)


def test_no_places_and_few_points():
    found = align(MESH.vertices[:50], MESH, EVEN)
    assert found(np.zeros((0, 3))).shape == (0, 3)
    assert np.isfinite(found(MESH.vertices)).all()
