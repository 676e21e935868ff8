"""Methods: every row of the paper's tables builds, trains and fits by the same code."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from atlas_samples import CODE, FIT, phantom_shapes, tiny_model, tiny_training

from implicit_atlas.atlas.field import Atlas, Field
from implicit_atlas.atlas.losses import LossWeights
from implicit_atlas.atlas.methods import DEFAULT_METHOD, METHODS, ModelConfig, build, loss_weights
from implicit_atlas.errors import InputError
from implicit_atlas.support.records import from_json
from implicit_atlas.training.learning import train


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_fits(method):
    shapes = phantom_shapes(4)
    atlas = train(shapes[:3], tiny_model(method), tiny_training(steps=8, batch=2))
    fits = atlas.fit(shapes, dataclasses.replace(FIT, iterations=20))
    assert [fit.name for fit in fits] == [shape.name for shape in shapes]
    for fit in fits:
        assert fit.found.degrees_of_freedom == CODE
        assert np.isfinite(fit.found.code).all() and np.isfinite(fit.logits(16)).all()
        assert fit.found.loss <= fit.found.mean_loss or fit.failure is not None
        assert (fit.found.template is None) == (not METHODS[method].template)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_the_parts_it_names(method):
    parts, network = METHODS[method], build(tiny_model(method))
    assert isinstance(network, Atlas if parts.template else Field)
    assert network.templates == (0 if not parts.template else 1 if parts.single else 2)
    if isinstance(network, Atlas):
        assert (network.deformation is not None) == parts.deformation


def test_a_method_has_the_penalties_it_names():
    weights = LossWeights(code=0.5, laplacian=0.25, deformation=0.125)
    found = {name: dataclasses.astuple(loss_weights(tiny_model(name), weights)) for name in METHODS}
    assert found["implicit-atlas+reg"] == (0.5, 0.25, 0.125)
    assert found["D+MT+LS"] == (0.5, 0.25, 0.0)
    assert found["D+MT+DP"] == (0.5, 0.0, 0.125)
    plain = set(METHODS) - {"implicit-atlas+reg", "D+MT+LS", "D+MT+DP"}
    assert {found[name] for name in plain} == {(0.5, 0.0, 0.0)}
    assert loss_weights(tiny_model()) == LossWeights()


def test_the_default_is_the_papers_method_and_sizes():
    config = ModelConfig()
    assert config.method == DEFAULT_METHOD == "implicit-atlas+reg"
    assert (config.code_size, config.templates) == (256, 5)


def test_a_configuration_comes_back_from_json():
    config = tiny_model("MT", gradient="codes", gumbel=True)
    data = json.loads(json.dumps(dataclasses.asdict(config)))
    assert from_json(ModelConfig, data, "config.json") == config


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"method": "unet"}, "not known"), ({"code_size": 0}, "positive"), ({"templates": 0}, "positive")],
)
def test_senseless_configurations_are_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        ModelConfig(**options)
