"""Generation: random shapes are repeatable and plausible, and a line between two shapes has both ends."""

from __future__ import annotations

import numpy as np
import pytest
from atlas_samples import FIT, dsc, phantom_shapes, tiny_atlas

from implicit_atlas.errors import InputError
from implicit_atlas.generation import generate, interpolate

SHAPES = phantom_shapes(8)


def test_shapes_depend_on_the_seed_alone():
    few, many = generate(tiny_atlas(), 2, seed=3), generate(tiny_atlas(), 4, seed=3)
    for a, b in zip(few, many, strict=False):
        assert np.array_equal(a.found.code, b.found.code) and a.found.template == b.found.template
    assert not np.array_equal(few[0].found.code, generate(tiny_atlas(), 1, seed=4)[0].found.code)


def test_temperature_is_the_distance_from_the_mean():
    made = [generate(tiny_atlas(), 1, temperature=t)[0].found for t in (0, 0.5, 1)]
    mean = tiny_atlas().prior.means[made[0].template].numpy()
    cold, mild, warm = (found.code - mean for found in made)
    assert np.abs(cold).max() < 1e-6
    np.testing.assert_allclose(2 * mild, warm, rtol=1e-4, atol=1e-5)


def test_generated_shapes_look_like_the_organ():
    for fit in generate(tiny_atlas(), 4, temperature=0.7):
        found = fit.occupancy()
        assert max(dsc(found, shape.occupancy) for shape in SHAPES) > 0.75
        assert fit.cube_mesh().faces.size


def test_a_chosen_template_is_used():
    assert {fit.found.template for fit in generate(tiny_atlas(), 3, template=1)} == {1}
    with pytest.raises(InputError, match="template 9"):
        generate(tiny_atlas(), 1, template=9)
    with pytest.raises(InputError, match="-1 is not a seed"):
        generate(tiny_atlas(), 1, seed=-1)


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"count": 1, "temperature": -1}, {"count": 1, "temperature": np.nan}]
)
def test_what_cannot_be_made_is_refused(options):
    with pytest.raises(InputError, match="cannot be made"):
        generate(tiny_atlas(), **options)


def test_a_line_between_two_shapes_has_both_ends():
    first, last = tiny_atlas().fit(SHAPES[5:7], FIT, template=0)
    line = interpolate(tiny_atlas(), first, last, 5)
    assert np.array_equal(line[0].found.code, first.found.code)
    assert np.array_equal(line[-1].occupancy(), last.occupancy())
    likeness = [dsc(step.occupancy(), first.occupancy()) for step in line]
    assert likeness[0] == 1 and likeness == sorted(likeness, reverse=True)
    (other,) = tiny_atlas().fit(SHAPES[6:7], FIT, template=1)
    with pytest.raises(InputError, match="different templates"):
        interpolate(tiny_atlas(), first, other)
    with pytest.raises(InputError, match="two ends"):
        interpolate(tiny_atlas(), first, last, 1)


def test_a_line_between_mirrored_shapes_is_of_their_side():
    ends = tiny_atlas().fit([shape.mirrored() for shape in SHAPES[5:7]], FIT, template=0)
    assert all(step.placed().mirrored for step in interpolate(tiny_atlas(), *ends, 3))
    # Of the shape in its scan the line's end has the same vertices, but for where its cube lies.
    made, fitted = interpolate(tiny_atlas(), *ends, 2)[0].mesh(), ends[0].mesh()
    for axis in range(3):
        own, found = (mesh.vertices[:, axis] - mesh.vertices[:, axis].mean() for mesh in (made, fitted))
        assert abs(np.mean(own**3) - np.mean(found**3)) < 0.1 * np.mean(np.abs(found) ** 3)
    (other,) = tiny_atlas().fit(SHAPES[6:7], FIT, template=0)
    with pytest.raises(InputError, match="different sides"):
        interpolate(tiny_atlas(), ends[0], other)


def test_codes_that_are_none_are_refused():
    with pytest.raises(InputError, match="finite numbers"):
        tiny_atlas().shape_of("mine", np.full(3, 1.0))
