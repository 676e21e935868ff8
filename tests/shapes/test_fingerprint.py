"""The fingerprint of a folder: known numbers for known masks, outliers, and bad cases named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from io_samples import AXIS_ORDERS, grid_of, ordered_affine

from implicit_atlas.errors import InputError
from implicit_atlas.io import LabelMap, write_mask
from implicit_atlas.shapes.fingerprint import fingerprint, fingerprint_case, robust_z
from implicit_atlas.shapes.fingerprint_table import MAX_ROWS, table


def label_map(values: np.ndarray, affine: np.ndarray | None = None) -> LabelMap:
    return LabelMap(values, grid_of(values.shape, affine), Path("folder/case.nii.gz"), np.dtype(np.int16))


def solid(shape: tuple[int, int, int] = (12, 12, 12), margin: int = 2) -> np.ndarray:
    values = np.zeros(shape, np.int16)
    values[margin:-margin, margin:-margin, margin:-margin] = 1
    return values


def folder_of(folder: Path, count: int, **sizes: int) -> Path:
    for number in range(count):
        write_mask(folder / f"case_{number:02d}.nii.gz", solid() > 0, grid_of((12, 12, 12)))
    for name, size in sizes.items():
        values = solid((size + 4,) * 3)
        write_mask(folder / f"{name}.nii.gz", values > 0, grid_of(values.shape))
    return folder


def test_known_numbers() -> None:
    case = fingerprint_case(label_map(solid(), np.diag([-2.0, 3.0, 5.0, 1.0])))
    assert (case.name, case.shape, case.spacing_mm, case.orientation) == (
        "case",
        (12, 12, 12),
        (2, 3, 5),
        "LAS",
    )
    assert (case.dtype, case.label_ids) == ("int16", (1,))
    assert case.volume_ml == pytest.approx(8**3 * 30 / 1000)
    assert case.extent_mm == pytest.approx((16, 24, 40))
    assert (case.components, case.largest_component, case.holes, case.border_contact) == (1, 1.0, 0, ())


@pytest.mark.parametrize(("order", "signs"), AXIS_ORDERS)
def test_volume_extent_and_border_do_not_depend_on_the_axis_order(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    affine = ordered_affine(order, signs)
    values = np.zeros((6, 7, 8), np.int16)
    values[1:, 2:5, 1:4] = 1
    case = fingerprint_case(label_map(values, affine))
    extent_mm = np.abs(affine[:3, :3]) @ (5, 3, 3)
    assert case.extent_mm == pytest.approx(tuple(extent_mm))
    assert case.border_contact == (case.orientation[0],)
    assert case.volume_ml == pytest.approx(45 * 0.75 * 1.25 * 4 / 1000)


def test_pieces_holes_and_border() -> None:
    values = solid()
    values[5, 5, 5] = values[6, 6, 6] = 0
    values[0, 0, 0] = 1
    case = fingerprint_case(label_map(values))
    assert (case.components, case.holes) == (2, 2)
    assert case.largest_component == pytest.approx(510 / 511)
    assert case.border_contact == ("I", "L", "P")
    diagonal = np.zeros((4, 4, 4), np.int16)
    diagonal[1, 1, 1] = diagonal[2, 2, 2] = 1
    assert fingerprint_case(label_map(diagonal)).components == 1


def test_labels_pick_the_organ_and_all_ids_are_listed() -> None:
    values = solid()
    values[2:4] *= 7
    case = fingerprint_case(label_map(values), (7,))
    assert case.label_ids == (1, 7) and case.extent_mm[0] == pytest.approx(2)


def test_input_is_not_changed() -> None:
    values = solid()
    before = values.copy()
    fingerprint_case(label_map(values))
    np.testing.assert_array_equal(values, before)


def test_outliers_are_found_in_volume_and_extent(tmp_path: Path) -> None:
    found = fingerprint(folder_of(tmp_path, 6, large=14, small=3))
    assert {(outlier.name, outlier.measure) for outlier in found.outliers} == {
        (name, measure)
        for name in ("large", "small")
        for measure in ("volume_ml", "extent_LR_mm", "extent_PA_mm", "extent_IS_mm")
    }
    assert found.outliers[0].name == "small" and found.outliers[0].z < -3.5


def test_a_few_cases_or_a_few_per_cent_are_no_outliers(tmp_path: Path) -> None:
    assert fingerprint(folder_of(tmp_path / "few", 2, large=14)).outliers == ()
    assert fingerprint(folder_of(tmp_path / "near", 7)).outliers == ()


def test_robust_z_is_the_z_score_of_a_normal_sample() -> None:
    values = np.random.default_rng(0).normal(3, 2, 20_000)
    np.testing.assert_allclose(robust_z(values), (values - values.mean()) / values.std(), atol=0.1)


def test_bad_cases_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    (tmp_path / "case_00.stl").write_bytes(b"twin")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    write_mask(tmp_path / "empty.nii.gz", np.zeros((3, 3, 3), bool), grid_of((3, 3, 3)))
    found = fingerprint(tmp_path)
    assert [case.name for case in found.cases] == ["case_01", "case_02"]
    assert {problem.path.name for problem in found.problems} == {
        "broken.nii.gz",
        "case_00.nii.gz",
        "case_00.stl",
        "empty.nii.gz",
        "loop.nii",
    }
    for problem in found.problems:
        assert str(problem.path) in problem.message
    assert "5 that cannot be used" in table(found)


def test_all_bad_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    found = fingerprint(tmp_path)
    assert found.cases == () and "0 masks" in table(found)
    with pytest.raises(InputError, match="does not exist"):
        fingerprint(tmp_path / "nothing")
    with pytest.raises(InputError, match="no label of an organ"):
        fingerprint(tmp_path, (0,))


def test_threads_change_nothing_and_progress_counts(tmp_path: Path) -> None:
    folder_of(tmp_path, 5, large=14)
    seen: list[tuple[int, int]] = []
    one = fingerprint(tmp_path, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]
    assert fingerprint(tmp_path, workers=4) == one


def test_json_is_json(tmp_path: Path) -> None:
    folder_of(tmp_path, 5, large=14)
    (tmp_path / "bro\nken\udcff.nii.gz").write_bytes(b"nothing")
    found = fingerprint(tmp_path, (1,))
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values["labels"] == [1] and len(values["cases"]) == 6 and len(values["problems"]) == 1
    assert values["cases"][0]["path"] == str(tmp_path / "case_00.nii.gz")
    assert values["outliers"][0]["name"] == "large"


def test_table_has_one_line_a_case_whatever_its_name(tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    for name in ("line\nbreak", "not-utf8-\udcff", "x" * 60):
        write_mask(tmp_path / f"{name}.nii.gz", solid() > 0, grid_of((12, 12, 12)))
    text = table(fingerprint(tmp_path))
    rows = [line for line in text.splitlines() if "12x12x12" in line]
    assert len(rows) == 5 and len({line.index("12x12x12") for line in rows}) == 1
    assert r"line\nbreak" in text and r"not-utf8-\udcff" in text
    text.encode("utf-8")


def test_table_of_many_cases_shows_what_stands_out(tmp_path: Path) -> None:
    case = fingerprint_case(label_map(solid()))
    found = fingerprint(folder_of(tmp_path, 5, large=14))
    many = type(found)((), found.cases + (case,) * MAX_ROWS, found.outliers, ())
    text = table(many)
    assert f"1 of {MAX_ROWS + 6} cases shown" in text
    assert sum("x12x12" in line for line in text.splitlines()) == 0


def test_notes_are_in_the_table(tmp_path: Path) -> None:
    write_mask(tmp_path / "full.nii.gz", np.ones((4, 4, 4), bool), grid_of((4, 4, 4)))
    text = table(fingerprint(tmp_path))
    assert "full: the mask fills the whole volume" in text
