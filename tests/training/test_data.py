"""What training reads: real shapes and their warps, start codes and centres, and the batches of a step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from atlas_samples import CODE, phantom_shapes, tiny_model, tiny_training

from implicit_atlas.errors import InputError
from implicit_atlas.training import gather, optimise
from implicit_atlas.training.data import _worth
from implicit_atlas.training.learning import train

SHAPES = phantom_shapes(6)
MODEL = tiny_model()
CONFIG = tiny_training(steps=30, warps=3, real_share=0.5)


def test_preparing_says_how_far_it_is():
    told = []
    gather(SHAPES, MODEL, CONFIG, 1, told.append)
    assert told[0] == "warping shapes: 1 of 3" and told[2] == "warping shapes: 3 of 3"
    assert told[3:] == [f"measuring shapes: {n} of {len(SHAPES) + 3}" for n in range(1, len(SHAPES) + 4)] + [
        "encoding shapes"
    ]


def test_data_holds_real_shapes_first_and_their_warps_after_them():
    data = gather(SHAPES, MODEL, CONFIG)
    assert data.real == 6 and data.packed.shape[0] == data.features.shape[0] == data.codes.shape[0] == 9
    np.testing.assert_array_equal(data.packed[:6], [shape.packed for shape in SHAPES])
    assert len({row.tobytes() for row in data.packed}) == 9
    again = gather(SHAPES, MODEL, CONFIG)
    np.testing.assert_array_equal(data.packed, again.packed)
    np.testing.assert_array_equal(data.codes, again.codes)


def test_batches_repeat_no_shape_and_keep_their_share():
    data = gather(SHAPES, MODEL, CONFIG)
    for step in range(20):
        ids = data.batch(step, CONFIG).tolist()
        assert len(set(ids)) == len(ids) == 4
        assert sum(index < 6 for index in ids) == 2
    assert data.batch(3, CONFIG).tolist() == data.batch(3, CONFIG).tolist()
    seen = {index for step in range(40) for index in data.batch(step, CONFIG).tolist()}
    assert seen == set(range(9))


def test_a_batch_is_never_larger_than_the_data():
    config = tiny_training(batch=50)
    assert sorted(gather(SHAPES, MODEL, config).batch(0, config).tolist()) == list(range(6))


@pytest.mark.parametrize("count", [2, 6, 9])
def test_start_centres_of_templates_differ(count):
    model = dataclasses.replace(MODEL, templates=count)
    centres = gather(SHAPES, model, tiny_training()).centres
    assert centres.shape == (count, CODE)
    assert len({row.tobytes() for row in centres}) == count


def test_random_start_codes_differ():
    codes = gather(SHAPES, MODEL, tiny_training(codes="random")).codes
    assert codes.std() == pytest.approx(0.1, rel=0.3)
    assert len({row.tobytes() for row in codes}) == 6


@pytest.mark.parametrize("count", [1, 4])
def test_shapes_that_are_all_the_same_can_be_trained_on(count):
    config = tiny_training(steps=2)
    trained = optimise(gather(SHAPES[:1] * count, MODEL, config), MODEL, config)
    assert np.isfinite(trained.codes).all()


def test_shapes_that_do_not_fit_together_are_refused():
    with pytest.raises(InputError, match="no shape"):
        gather([], MODEL, CONFIG)
    frame = dataclasses.replace(SHAPES[0].frame, resolution=16)
    other = dataclasses.replace(SHAPES[0], frame=frame, packed=np.zeros(16**3 // 8, np.uint8))
    with pytest.raises(InputError, match=r"resolutions \[16, 32\]"):
        gather([SHAPES[1], other], MODEL, CONFIG)


@pytest.mark.parametrize(
    ("cores", "seconds", "processes"), [(2, 3.0, 1), (2, 30.0, 2), (16, 15.0, 7), (16, 1.0, 1)]
)
def test_as_many_processes_are_started_as_save_more_than_they_take(cores, seconds, processes):
    assert _worth(cores, seconds) == processes


def test_shapes_of_one_name_are_numbered():
    same = [dataclasses.replace(shape, name="a") for shape in SHAPES[:3]]
    last = dataclasses.replace(SHAPES[3], name="a-2")
    assert train([*same, last], MODEL, tiny_training(steps=1)).config.names == ("a", "a-2", "a-3", "a-2-2")


def test_frames_of_several_kinds_are_refused_before_anything_is_learned(monkeypatch):
    monkeypatch.setattr("implicit_atlas.training.learning.gather", None)
    wide = dataclasses.replace(SHAPES[1], frame=dataclasses.replace(SHAPES[1].frame, margin=0.3))
    with pytest.raises(InputError, match="several kinds"):
        train([SHAPES[0], wide], MODEL, CONFIG)
