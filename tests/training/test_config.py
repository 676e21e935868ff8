"""What a training run is told: schedules, defaults, and the loss terms that it asks for."""

from __future__ import annotations

import pytest
import torch

from implicit_atlas.atlas.field import Prediction
from implicit_atlas.atlas.losses import LossWeights
from implicit_atlas.errors import InputError
from implicit_atlas.shapes.sampling import Samples
from implicit_atlas.training import TrainConfig, default_config
from implicit_atlas.training.config import FEW
from implicit_atlas.training.loop import loss_terms


@pytest.mark.parametrize(
    "options",
    [
        *({"max_minutes": 0.0}, {"max_minutes": float("nan")}, {"steps": 0}, {"batch": 0}),
        *({"seed": -1}, {"real_share": 1.5}, {"warps": 5, "real_share": 1.0}, {"warps": 5, "batch": 1}),
    ],
)
def test_senseless_schedules_are_refused(options):
    with pytest.raises(InputError):
        TrainConfig(**options)


def test_few_shapes_are_made_up_for_by_warps():
    few, many = default_config(5, "cpu"), default_config(FEW, "cpu")
    assert few.warps > 5 and few.warps / 5 > many.warps / FEW
    assert round(few.batch * few.real_share) == 5  # five real shapes are in every step
    assert default_config(5, "cpu", 3.0, 7).max_minutes == 3.0
    assert default_config(5, "cpu", 3.0, 7).seed == 7


def test_a_short_time_leaves_time_to_train_after_the_warps():
    warps = [default_config(5, "cpu", minutes).warps for minutes in (0.1, 1, 3, 60)]
    assert 0 < warps[0] < warps[1] < warps[2] < warps[3] == default_config(5, "cpu").warps


def test_a_short_schedule_of_many_shapes_has_fewer_warps():
    by_default = default_config(182, "cpu")
    counts = [default_config(182, "cpu", steps=steps).warps for steps in (1, 1000, by_default.steps, 10_000)]
    assert counts[0] == 182 < counts[1] < counts[2] == counts[3] == by_default.warps
    assert default_config(182, "cpu", steps=1000).steps == 1000
    assert default_config(5, "cpu", steps=1).warps == default_config(5, "cpu").warps


def test_patterns_of_modes_are_learned_from_few_shapes_and_kept_for_many():
    assert default_config(5, "cpu").modes_share == 1 and default_config(182, "cpu").modes_share == 0
    assert default_config(5, "cpu").shrinkage > 0 and default_config(182, "cpu").shrinkage == 0


def test_an_unknown_method_is_named():
    with pytest.raises(InputError, match="method 'mpl': is not known"):
        default_config(5, "cpu", method="mpl")


def points_of(method: str, device) -> int:
    points = default_config(5, device, method=method).points
    return points.lattice**3 + points.band


def test_perceptrons_get_fewer_points_on_cpus_only():
    assert points_of("mlp", "cpu") < points_of("conv", "cpu") < points_of("conv", "cuda")
    assert points_of("mlp+template", "cpu") == points_of("mlp", "cpu")
    assert points_of("mlp", "cuda") == points_of("conv", "cuda")


def test_terms_without_weight_are_not_computed():
    prediction = Prediction(torch.zeros(1, 27 + 5), torch.ones(1, 27 + 5, 3))
    samples = Samples(torch.zeros(1, 32, 3), torch.zeros(1, 32), torch.ones(1, 32), lattice=3)
    every = loss_terms(torch.ones(1, 4), prediction, samples, LossWeights())
    assert every.laplacian is not None and every.deformation is not None
    none = loss_terms(torch.ones(1, 4), prediction, samples, LossWeights(0.0, 0.0, 0.0))
    assert none.laplacian is None and none.deformation is None
    assert torch.equal(none.task, every.task)
