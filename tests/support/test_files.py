"""Tests of implicit_atlas.support.files: whole files or none, and one owner of a folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from implicit_atlas.errors import InputError
from implicit_atlas.support.files import lock_folder, sha256_file, write_atomic

HOLD_LOCK = """
import sys, time
from pathlib import Path
from implicit_atlas.support.files import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_bytes_and_writer_give_the_same_file(tmp_path):
    write_atomic(tmp_path / "a.txt", b"content")
    write_atomic(tmp_path / "b.nii.gz", lambda path: path.write_bytes(path.name.encode()))
    assert (tmp_path / "a.txt").read_bytes() == b"content"
    assert (tmp_path / "b.nii.gz").read_bytes() == b"b.nii.gz"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.nii.gz"]


@pytest.mark.parametrize("stop", [RuntimeError, OSError, KeyboardInterrupt])
def test_a_writer_that_stops_leaves_the_old_file(tmp_path, stop):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def half(partial):
        partial.write_bytes(b"ne")
        raise stop(28, "no space left")

    with pytest.raises(InputError if stop is OSError else stop):
        write_atomic(path, half)
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file.bin"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_atomic(tmp_path / "missing" / "file.bin", b"")


def test_hash_is_of_the_bytes(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"abc")
    assert sha256_file(tmp_path / "file.bin") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(InputError, match="cannot be read"):
        sha256_file(tmp_path / "none.bin")


def test_a_folder_has_one_owner_until_it_ends_even_by_kill(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None and owner.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="in use by another process"), lock_folder(tmp_path):
            pass
    finally:
        owner.kill()
        owner.communicate()
    with lock_folder(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="no pipes with names, and links need rights there")
def test_links_are_followed_and_pipes_are_refused(tmp_path):
    (tmp_path / "target.txt").write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "target.txt")
    write_atomic(link, b"new")
    assert link.is_symlink() and (tmp_path / "target.txt").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        write_atomic(tmp_path / "pipe", b"new")
    assert not (tmp_path / "pipe").is_file()
