"""Training: killed and resumed it gives the same bits, and what cannot go on says so and keeps its state."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from atlas_samples import POINTS, phantom_shapes, tiny_model, tiny_training

from implicit_atlas.atlas.losses import total_loss
from implicit_atlas.atlas.modes import UNIT
from implicit_atlas.errors import InputError, TrainingError
from implicit_atlas.support.tensors import load_state
from implicit_atlas.training import TrainConfig, gather, optimise
from implicit_atlas.training.log import MOST_PLACES, RunLog
from implicit_atlas.training.loop import LOG_EVERY, _Clock

SHAPES = phantom_shapes(6)
MODEL = tiny_model()
CONFIG = tiny_training(steps=30, warps=3, real_share=0.5)


class Stop(Exception):
    """Raised from within a run, as a user's Ctrl-C would be."""


def run(
    state: Path | None = None, config: TrainConfig = CONFIG, resume: bool = False, stop_at: int | None = None
):
    """Train; `stop_at` breaks off after that step."""

    def progress(share: float, text: str) -> None:
        if stop_at is not None and int(text.split()[1]) >= stop_at:
            raise Stop

    return optimise(gather(SHAPES, MODEL, config), MODEL, config, state, resume, progress)


def assert_same_bits(first, second):
    np.testing.assert_array_equal(first.codes, second.codes)
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def steps_of(log: Path) -> list[int]:
    return [json.loads(line)["step"] for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return run(folder / "state"), folder


def test_the_same_seed_gives_the_same_bits_and_another_does_not(uninterrupted):
    assert_same_bits(uninterrupted[0], run())
    other = run(config=dataclasses.replace(CONFIG, seed=1))
    assert not np.array_equal(uninterrupted[0].codes, other.codes)


def test_a_resumed_run_equals_an_uninterrupted_one(uninterrupted, tmp_path):
    often = dataclasses.replace(CONFIG, checkpoint_minutes=0.0)
    with pytest.raises(Stop):
        run(tmp_path / "state", often, stop_at=2 * LOG_EVERY)
    resumed = run(tmp_path / "state", often, resume=True)
    assert_same_bits(uninterrupted[0], resumed)
    assert steps_of(tmp_path / "log.jsonl") == steps_of(uninterrupted[1] / "log.jsonl") == [10, 20, 30]


def test_a_resumed_run_in_bfloat16_equals_an_uninterrupted_one(tmp_path):
    half = dataclasses.replace(CONFIG, steps=15, precision="bf16-mixed", checkpoint_minutes=0.0)
    with pytest.raises(Stop):
        run(tmp_path / "state", half, stop_at=LOG_EVERY)
    assert_same_bits(run(config=half), run(tmp_path / "state", half, resume=True))


def test_a_finished_run_has_nothing_to_resume(uninterrupted):
    state = uninterrupted[1] / "state"
    assert_same_bits(uninterrupted[0], run(state, resume=True))


def test_without_resume_a_run_starts_anew(uninterrupted, tmp_path):
    often = dataclasses.replace(CONFIG, checkpoint_minutes=0.0)
    with pytest.raises(Stop):
        run(tmp_path / "state", often, stop_at=LOG_EVERY)
    again = run(tmp_path / "state", often)
    assert again.steps == CONFIG.steps
    assert_same_bits(uninterrupted[0], again)


KILLED = """
import sys
from pathlib import Path
import test_loop as tests
config = tests.dataclasses.replace(tests.CONFIG, checkpoint_minutes=0.0)
data = tests.gather(tests.SHAPES, tests.MODEL, config)
tests.optimise(data, tests.MODEL, config, Path(sys.argv[1]), progress=lambda share, text: print(text, flush=True))
"""


@pytest.mark.slow
def test_a_killed_process_resumed_equals_an_uninterrupted_run(uninterrupted, tmp_path):
    state = tmp_path / "state"
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(state)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"step {LOG_EVERY} ")
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    resumed = run(state, dataclasses.replace(CONFIG, checkpoint_minutes=0.0), resume=True)
    assert_same_bits(uninterrupted[0], resumed)
    assert steps_of(tmp_path / "log.jsonl") == [10, 20, 30]


def explode_at(step: int, monkeypatch) -> None:
    """The loss is NaN in that step."""
    seen = itertools.count()

    def exploding(terms, weights):
        return total_loss(terms, weights) * (float("nan") if next(seen) == step else 1)

    monkeypatch.setattr("implicit_atlas.training.loop.total_loss", exploding)


def test_a_loss_that_is_not_finite_keeps_the_last_state_with_a_finite_one(
    uninterrupted, tmp_path, monkeypatch
):
    state, often = tmp_path / "state", dataclasses.replace(CONFIG, checkpoint_minutes=0.0)
    with monkeypatch.context() as patch:
        explode_at(15, patch)
        with pytest.raises(
            TrainingError, match=r"the loss is nan at step 15\..*kept in .*lower learning rate"
        ):
            run(state, often)
    assert load_state(state).meta["clock"]["step"] == 14
    assert_same_bits(uninterrupted[0], run(state, often, resume=True))


def test_a_run_that_never_had_a_finite_loss_claims_no_state(tmp_path, monkeypatch):
    explode_at(0, monkeypatch)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0\. Try"):
        run(tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            {"config": dataclasses.replace(CONFIG, learning_rate=1e-4)},
            r"configuration \(learning_rate: [0-9.]+ then, 0.0001 now\)",
        ),
        (
            {"config": dataclasses.replace(CONFIG, points=dataclasses.replace(POINTS, band=511))},
            r"configuration \(points\)",
        ),
        ({"model": tiny_model("MT")}, "model"),
        ({"shapes": SHAPES[:5]}, "data"),
    ],
)
def test_a_state_of_another_run_is_refused(uninterrupted, change, what):
    config, shapes = change.get("config", CONFIG), change.get("shapes", SHAPES)
    state = uninterrupted[1] / "state"
    before = state.read_bytes()
    with pytest.raises(InputError, match=f"another {what}"):
        optimise(gather(shapes, MODEL, config), change.get("model", MODEL), config, state, resume=True)
    assert state.read_bytes() == before


def test_a_damaged_state_is_refused(uninterrupted, tmp_path):
    data = bytearray((uninterrupted[1] / "state").read_bytes())
    data[-5] ^= 1
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(InputError):
        run(tmp_path / "state", resume=True)


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been_trained():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(config=dataclasses.replace(CONFIG, steps=2))
    assert torch.equal(torch.rand(3), expected)


def test_a_step_moves_only_the_codes_of_its_batch():
    config = dataclasses.replace(CONFIG, steps=1)
    data = gather(SHAPES, MODEL, config)
    ids = data.batch(0, config)
    moved = (optimise(data, MODEL, config).codes != data.codes).any(1)
    np.testing.assert_array_equal(np.flatnonzero(moved), np.sort(ids))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_patterns_of_modes_are_learned_at_their_share(share):
    config = dataclasses.replace(CONFIG, steps=2, modes_share=share)
    modes = run(config=config).network.modes
    began = gather(SHAPES, MODEL, config).modes
    assert modes is not None and began is not None
    start = torch.from_numpy(began.lengths / UNIT).float()
    assert torch.equal(modes.weight, start) is (share == 0)
    assert (modes.weight - start).abs().max() <= 2 * config.learning_rate * share * 1.01  # Adam's steps


def test_training_lowers_the_loss(uninterrupted):
    lines = [json.loads(line) for line in (uninterrupted[1] / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert {"step", "progress", "seconds", "loss", "task", "code", "laplacian", "deformation"} <= set(
        lines[0]
    )
    assert [line["progress"] for line in lines] == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("slow_start", [1.0, 100.0])
def test_a_time_budget_is_kept_by_the_clock(slow_start):
    """Steps of 0.1 s, some slower, and a first one that compiles."""
    clock, config = _Clock(), TrainConfig(max_minutes=1.0)
    shares = []
    while not clock.done:
        clock.advance(0.1 * (slow_start if clock.step == 0 else 3 if clock.step % 7 == 0 else 1), config)
        shares.append(clock.progress)
    assert clock.seconds == pytest.approx(60, rel=0.05)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert max(np.diff(shares)) < 0.1


def test_a_time_budget_ends_a_run(tmp_path):
    trained = run(tmp_path / "state", dataclasses.replace(CONFIG, max_minutes=0.02))
    assert trained.steps >= 1 and trained.seconds < 60
    assert steps_of(tmp_path / "log.jsonl")[-1] == trained.steps


def test_a_schedule_counts_its_steps_without_a_budget():
    clock, config = _Clock(), TrainConfig(steps=4)
    for _ in range(4):
        assert not clock.done
        clock.advance(1e6, config)
    assert clock.done


def test_the_log_is_cut_to_what_is_kept(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    for step in (10, 20, 30):
        log.write(step=step, loss=1 / 3)
    with path.open("a") as stream:
        stream.write('{"step": 40, "lo')  # a killed run's last line
    resumed = RunLog(path)
    resumed.cut_after(20)
    resumed.write(step=21, loss=0.5)
    assert steps_of(path) == [10, 20, 21]
    assert resumed.curves() == {
        "step": [10, 20, 21],
        "loss": [pytest.approx(1 / 3), pytest.approx(1 / 3), 0.5],
    }


def test_a_log_needs_no_file(tmp_path):
    for log in (RunLog(None), RunLog(tmp_path / "none")):
        log.cut_after(0)
        assert log.curves() == {}
    log = RunLog(None)
    log.write(step=1)
    log.write(step=2)
    log.cut_after(1)
    assert log.curves() == {"step": [1]}


def test_curves_of_a_long_log_are_thinned_and_end_with_it():
    log = RunLog(None)
    for step in range(1, 9 * MOST_PLACES + 2):
        log.write(step=step, loss=1 / step, **({"late": 1.0} if step > 1 else {}))
    curves = log.curves()
    assert (
        0.8 * MOST_PLACES < len(curves["step"]) <= MOST_PLACES and curves["step"][-1] == 9 * MOST_PLACES + 1
    )
    assert len(set(np.diff(curves["step"]))) == 1 and len(curves["loss"]) == len(curves["step"])
    assert "late" not in curves  # which not all lines have
