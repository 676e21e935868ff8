"""What scripts say of errors, and their exit status."""

import pytest

from implicit_atlas.errors import InputError
from implicit_atlas.support.console import exit_status


def test_an_error_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    @exit_status
    def job(name: str) -> None:
        raise InputError(name, "is empty", "Give another.")

    assert job("masks/") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: masks/") and said.err.count("\n") == 1


def test_a_job_without_errors_has_status_0_whatever_it_returns() -> None:
    assert exit_status(lambda: 7)() == 0


def test_other_exceptions_are_faults_and_come_through() -> None:
    @exit_status
    def job() -> None:
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        job()
