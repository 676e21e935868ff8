"""Folders replaced as a whole: what is kept and what is cleaned away."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from implicit_atlas.support import folders
from implicit_atlas.support.folders import leftovers, replace_folder


def test_replaces_own_files_and_keeps_the_others(tmp_path: Path) -> None:
    target = tmp_path / "m"
    replace_folder(target, {"a": b"1", "b": b"2"}, {"a", "b"})
    (target / "mine").write_text("kept")
    replace_folder(target, {"a": b"3"}, {"a", "b"})
    assert {entry.name: entry.read_bytes() for entry in target.iterdir()} == {"a": b"3", "mine": b"kept"}


def test_removes_what_a_dead_writer_left_and_not_what_a_living_one_writes(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1, check=True)
    for owner in (dead.stdout.decode().strip(), str(os.getpid())):
        (tmp_path / f"m.partial-{owner}-00").mkdir()
    replace_folder(tmp_path / "m", {"a": b"1"}, {"a"})
    assert [entry.name for entry in leftovers(tmp_path / "m", "partial")] == [f"m.partial-{os.getpid()}-00"]


def test_an_earlier_folder_is_removed_only_when_a_complete_one_is_in_place(tmp_path: Path) -> None:
    replace_folder(tmp_path / "m", {"a": b"1"}, {"a"})
    (tmp_path / "m").rename(tmp_path / "m.previous-00")
    assert leftovers(tmp_path / "m", "previous") == [tmp_path / "m.previous-00"]
    replace_folder(tmp_path / "m", {"a": b"2"}, {"a"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_other_names_with_the_same_start_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m.previous").mkdir()
    (tmp_path / "m2.previous-00").mkdir()
    replace_folder(tmp_path / "m", {"a": b"1"}, {"a"})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m", "m.previous", "m2.previous-00"]


def write(target: Path, value: bytes) -> None:
    replace_folder(target, {"a": value, "b": value, "c": value}, {"a", "b", "c"})


def read(target: Path) -> bytes:
    """The value of the folder that a reader finds; all files of it must be there and agree."""
    folder = target if target.exists() else leftovers(target, "previous")[0]
    values = {(folder / name).read_bytes() for name in ("a", "b", "c")}
    assert len(values) == 1
    return values.pop()


class PowerFailure(BaseException):
    """Ends a write at one step; every later file operation of it fails too, as after a kill."""


def write_for(steps: int, target: Path) -> bool:
    """Write with a number of file operations that pass before all fail; whether the write came to its end."""
    left = itertools.count(steps, -1)

    def guard(operation: Callable) -> Callable:
        def guarded(*args: object, **kwargs: object) -> object:
            if next(left) <= 0:
                raise PowerFailure
            return operation(*args, **kwargs)

        return guarded

    with pytest.MonkeyPatch.context() as patch:
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
            patch.setattr(os, name, guard(getattr(os, name)))
        patch.setattr(Path, "write_bytes", guard(Path.write_bytes))
        try:
            write(target, b"new")
        except PowerFailure:
            return False
    return True


def test_crash_at_every_step_leaves_a_complete_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_is_running", lambda process: False)  # the writer counts as dead
    ends, finished = set(), False
    for steps in itertools.count():
        target = tmp_path / str(steps) / "m"
        target.parent.mkdir()
        write(target, b"old")
        finished = write_for(steps, target)
        ends.add((read(target), target.exists()))
        write(target, b"newer")
        assert [entry.name for entry in target.parent.iterdir()] == ["m"]
        if finished:
            break
    assert ends == {(b"old", True), (b"old", False), (b"new", True)}


def test_a_second_writer_in_between_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, other = tmp_path / "m", tmp_path / "other"
    write(target, b"old")
    write(other, b"other")
    rename, renames = os.rename, []

    def slip_in(source: Path, goal: Path) -> None:
        rename(source, goal)
        renames.append(goal)
        if len(renames) == 1:
            rename(other, target)

    monkeypatch.setattr(os, "rename", slip_in)
    write(target, b"new")
    assert read(target) == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_failed_swap_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def refuse(source: Path, goal: Path) -> None:
        if ".partial-" in Path(source).name:
            raise PermissionError(13, "Permission denied")
        rename(source, goal)

    write(tmp_path / "m", b"old")
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError):
        write(tmp_path / "m", b"new")
    assert read(tmp_path / "m") == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]
