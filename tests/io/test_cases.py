"""Folders of cases: names, duplicates, links, and files that are no masks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from implicit_atlas.errors import InputError
from implicit_atlas.io import case_name, find_cases, list_cases, printable


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.nii.gz", "a"),
        ("a.b.NII.GZ", "a.b"),
        ("a.nii", "a"),
        ("a.seg.nrrd", "a"),
        ("a.nrrd", "a"),
        ("a.1.stl", "a.1"),
        ("a b\n.vtk", "a b\n"),
        ("肝.mha", "肝"),
    ],
)
def test_case_name(file: str, name: str) -> None:
    assert case_name(Path("folder") / file) == name


def test_masks_of_a_folder_in_order(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.nii.gz",
        "a.stl",
        "C.NRRD",
        "d.mha",
        "notes.txt",
        ".hidden.nii",
        "._a.nii.gz",
        "x.png",
        "z.hdr",
    )
    (tmp_path / "e.nii").mkdir()
    (tmp_path / "deeper").mkdir()
    touch(tmp_path / "deeper", "f.nii")
    assert [path.name for path in list_cases(tmp_path)] == ["C.NRRD", "a.stl", "b.nii.gz", "d.mha", "z.hdr"]
    assert list_cases(str(tmp_path)) == list_cases(tmp_path)


def test_a_list_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    touch(tmp_path / "one", "a.nii")
    touch(tmp_path, "b.nii", ".c.nii")
    source = [tmp_path / "b.nii", tmp_path / "one", tmp_path / "one" / "a.nii", tmp_path / ".c.nii"]
    assert [path.name for path in list_cases(source)] == ["b.nii", "a.nii", ".c.nii"]


def test_odd_names_are_cases(tmp_path: Path) -> None:
    names = [
        "a b.nii",
        "Größe.nii",
        "肝臓.nii",
        "line\nbreak.nii",
        "tab\t.nii",
        "'; --.nii",
        "=1+1.nii",
        "<b>.nii",
    ]
    touch(tmp_path, *names)
    os.close(os.open(os.fsencode(tmp_path) + b"/not-utf8-\xff.nii", os.O_CREAT))
    cases = list_cases(tmp_path)
    assert len(cases) == len(names) + 1
    for path in cases:
        shown = printable(case_name(path))
        assert shown.isprintable() and shown.encode("utf-8")


def test_files_of_one_case_name_are_set_aside_together(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "a.nii.gz", "a.stl", "b.nii")
    cases = find_cases(tmp_path)
    assert [path.name for path in cases.paths] == ["b.nii"]
    assert {problem.path.name for problem in cases.problems} == {"a.nii", "a.nii.gz", "a.stl"}
    assert all(problem.name == "a" and "same case name" in problem.message for problem in cases.problems)
    with pytest.raises(InputError, match="case name of another file"):
        list_cases(tmp_path)


def test_files_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for folder in ("s1/organs", "s2/organs", "s2/organs/old"):
        (tmp_path / folder).mkdir(parents=True)
        touch(tmp_path / folder, "liver.nii.gz")
    touch(tmp_path / "s2" / "organs", "spleen.stl")
    found = find_cases(str(tmp_path / "s*" / "organs"))
    assert [file.name for file in found.files] == ["s1_liver", "s2_liver", "spleen"]
    assert [file.path.parent.parent.name for file in found.files] == ["s1", "s2", "s2"]
    found = find_cases(tmp_path / "**" / "liver.*")
    assert [file.name for file in found.files] == [
        "s1_organs_liver",
        "s2_organs_liver",
        "s2_organs_old_liver",
    ]
    (tmp_path / "s3" / "organs").mkdir(parents=True)  # not annotated yet
    touch(tmp_path / "s3" / "organs", "notes.txt")
    again = find_cases(str(tmp_path / "s*" / "organs"))
    assert [file.name for file in again.files] == ["s1_liver", "s2_liver", "spleen"]
    assert [path.name for path in again.passed_over] == ["notes.txt"]
    # As they were named, they stay named.
    assert find_cases(found.files[1:2]).files == found.files[1:2]
    touch(tmp_path / "s2" / "organs", "liver.stl")
    found = find_cases(tmp_path / "s*" / "organs")
    assert [file.name for file in found.files] == ["s1_liver", "spleen"]
    assert {problem.name for problem in found.problems} == {"s2_liver"}


def test_links_that_lead_back_do_not_count_cases_again(tmp_path: Path) -> None:
    for folder in ("s1", "s2", ".hidden"):
        (tmp_path / "cases" / folder).mkdir(parents=True)
        touch(tmp_path / "cases" / folder, "liver.nii.gz")
        (tmp_path / "cases" / folder / "up").symlink_to(tmp_path / "cases")
    (tmp_path / "elsewhere").mkdir()
    touch(tmp_path / "elsewhere", "liver.nii.gz")
    (tmp_path / "cases" / "s3").symlink_to(tmp_path / "elsewhere")
    for pattern in ("cases/**/liver.nii.gz", "**/s*/liver.*", "cases/**"):
        found = find_cases(tmp_path / pattern).paths
        assert {path.parent.name for path in found} >= {"s1", "s2", "s3"} and len(found) <= 4
    assert len(find_cases(tmp_path / "cases" / "**" / "liver.nii.gz").paths) == 3


def test_names_of_folders_become_names_of_files(tmp_path: Path) -> None:
    long = ["x" * 120 + end for end in "ab"]
    for folder in (".a", *long):
        (tmp_path / folder / folder.strip(".")[:100]).mkdir(parents=True)
        touch(tmp_path / folder / folder.strip(".")[:100], "liver.nii")
    found = [tmp_path / folder / folder.strip(".")[:100] / "liver.nii" for folder in (".a", *long)]
    names = [file.name for file in find_cases(found).files]
    assert names[0] == "a_a_liver" and len(set(names)) == 3
    assert all(len(name) < 100 and name.endswith("_liver") for name in names)
    with pytest.raises(InputError, match="case name of another file"):
        list_cases(found)  # whose paths alone do not tell them apart


def test_a_folder_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path, monkeypatch) -> None:
    for folder in ("s1", "s2"):
        (tmp_path / folder).mkdir()
        touch(tmp_path / folder, "liver.nii")
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("s2"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    matched = find_cases(tmp_path / "s*")
    monkeypatch.setattr("implicit_atlas.io.cases.glob.glob", lambda *_, **__: ["s1", "s2"])
    monkeypatch.setattr(os, "scandir", denied)
    found = find_cases(tmp_path / "s*")
    assert [file.path for file in found.files] == [matched.files[0].path]
    assert [problem.name for problem in found.problems] == ["s2"]
    assert "cannot be listed" in found.problems[0].message


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.stl", "a.txt", "c[1].nii")
    assert [path.name for path in list_cases(tmp_path / "a.*")] == ["a.nii"]
    assert [path.name for path in find_cases(tmp_path / "a.*").passed_over] == ["a.txt"]
    assert [path.name for path in list_cases(tmp_path / "c[1].nii")] == ["c[1].nii"]
    (tmp_path / "study[2]").mkdir()
    touch(tmp_path / "study[2]", "e.nii")
    assert [path.name for path in list_cases(tmp_path / "study[2]" / "*.nii")] == ["e.nii"]
    with pytest.raises(InputError, match="matches none as a pattern"):
        list_cases(tmp_path / "d*")
    with pytest.raises(InputError, match="matches no mask files"):
        list_cases(tmp_path / "*.txt")


def test_links(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / "good.nii").symlink_to(tmp_path / "a.nii")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    (tmp_path / "broken.nii").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "folder.nii").symlink_to(tmp_path)
    names = [path.name for path in list_cases(tmp_path)]
    assert names == ["a.nii", "broken.nii", "good.nii", "loop.nii"]


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list_cases(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no mask files"):
        list_cases(tmp_path)
    with pytest.raises(InputError, match="none were named"):
        list_cases([])
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match=r"it has the folders masks"):
        list_cases(tmp_path)
    touch(tmp_path, "a.png")
    with pytest.raises(InputError, match=r"'\.png' is not a known format"):
        list_cases(tmp_path / "a.png")


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match="cannot be listed"):
        list_cases(tmp_path)


@pytest.mark.slow
def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    for number in range(100_000):
        os.close(os.open(tmp_path / f"case_{number:06d}.nii.gz", os.O_CREAT))
    assert len(list_cases(tmp_path)) == 100_000


def test_files_of_other_formats_are_passed_over_by_name(tmp_path):
    for name in ("a.nii.gz", "notes.txt", "b.mat", ".hidden"):
        (tmp_path / name).touch()
    found = find_cases(tmp_path)
    assert [path.name for path in found.paths] == ["a.nii.gz"]
    assert [path.name for path in found.passed_over] == ["b.mat", "notes.txt"]


def test_a_list_keeps_its_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "c.stl", "a.nrrd")
    given = [tmp_path / name for name in ("c.stl", "a.nrrd", "b.nii.gz")]
    assert list(find_cases(given).paths) == given
