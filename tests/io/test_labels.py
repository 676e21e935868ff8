"""Labels: whole numbers or a typed error; one organ picked by id or by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from io_samples import block, grid_of, nifti_bytes

from implicit_atlas.errors import InputError
from implicit_atlas.io import LabelMap, label_ids, parse_labels, read_labels, read_mask, select_mask
from implicit_atlas.io.labels import as_label_ids

MASK = block().astype(np.float32)


def saved(folder: Path, values: np.ndarray) -> Path:
    path = folder / "case.nii"
    path.write_bytes(nifti_bytes(values))
    return path


def label_map(values: np.ndarray) -> LabelMap:
    return LabelMap(values, grid_of(values.shape), Path("case.nii"), values.dtype)


def test_a_single_fractional_level_becomes_label_1_and_is_noted(tmp_path: Path) -> None:
    mask = read_mask(saved(tmp_path, MASK * 0.5))
    np.testing.assert_array_equal(mask.occupancy, MASK > 0)
    assert mask.notes == ("its values 0 and 0.5 were read as 0 and 1",)


@pytest.mark.parametrize("levels", [(0.25, 0.5), (1.0, 0.5), (-0.5, -0.5)])
def test_fractional_labels_are_refused(tmp_path: Path, levels: tuple[float, float]) -> None:
    values = MASK * levels[0]
    values[1, 1, 1] = levels[1]
    with pytest.raises(InputError, match=r"fractional labels \(for example -?0\.") as caught:
        read_mask(saved(tmp_path, values))
    assert "Threshold" in caught.value.remedy


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    values = MASK.copy()
    values[0, 0, 0] = bad
    with pytest.raises(InputError, match="1 voxels that are NaN or infinite"):
        read_mask(saved(tmp_path, values))


def test_float_labels_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="beyond"):
        read_mask(saved(tmp_path, MASK * np.float32(1e20)))


def test_labels_scaled_by_a_rounded_slope_are_whole(tmp_path: Path) -> None:
    content = nifti_bytes((MASK * 255).astype(np.uint8), scl_slope=1 / 255)
    (tmp_path / "case.nii").write_bytes(content)
    np.testing.assert_array_equal(read_labels(tmp_path / "case.nii").values, MASK)


def test_empty_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mask is empty"):
        read_mask(saved(tmp_path, MASK * 0))


def test_a_missing_label_names_the_labels_that_exist(tmp_path: Path) -> None:
    values = MASK.copy()
    values[1, 1, 1] = 4
    with pytest.raises(InputError, match=r"no voxel of label 7; it has labels 1, 4"):
        read_mask(saved(tmp_path, values), (7,))


def test_of_several_labels_some_may_be_absent_and_that_is_noted(tmp_path: Path) -> None:
    values = MASK.copy()
    values[1, 1, 1] = 4
    mask = read_mask(saved(tmp_path, values), (4, 7, 9))
    assert mask.occupancy.sum() == 1 and mask.labels == (4, 7, 9)
    assert mask.notes == ("labels 7, 9 do not occur",)


@pytest.mark.parametrize("label", [0, -1])
def test_background_is_no_organ(tmp_path: Path, label: int) -> None:
    with pytest.raises(InputError, match="no label of an organ"):
        read_mask(saved(tmp_path, MASK), (label,))


def test_label_beyond_the_voxels_type_is_just_absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no voxel of label 65535"):
        read_mask(saved(tmp_path, MASK.astype(np.uint8)), (65535,))


def test_an_image_is_not_taken_for_a_mask(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with pytest.raises(InputError, match="looks like an image"):
        read_mask(saved(tmp_path, random.integers(1, 200, (20, 20, 20), np.uint8)))
    with pytest.raises(InputError, match="negative voxels"):
        read_mask(saved(tmp_path, random.integers(-1000, 200, (20, 20, 20), np.int16)))


def test_a_map_of_many_labels_is_not_taken_for_an_image(tmp_path: Path) -> None:
    regions = np.kron(np.arange(1, 126).reshape(5, 5, 5), np.ones((4, 4, 4))).astype(np.uint8)
    assert read_mask(saved(tmp_path, regions)).occupancy.all()


def test_repairs_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path, MASK * 0.5)
    with caplog.at_level(logging.WARNING, "implicit_atlas"):
        read_mask(path)
    assert caplog.messages == [f"{path}: its values 0 and 0.5 were read as 0 and 1"]


@given(hnp.arrays(st.sampled_from([np.uint8, np.int16, np.int64]), (4, 3, 2), elements=st.integers(0, 9)))
def test_labels_partition_the_mask(values: np.ndarray) -> None:
    before = values.copy()
    ids = label_ids(values)
    assert ids == tuple(sorted(set(values.ravel().tolist()) - {0}))
    if ids:
        parts = [select_mask(label_map(values), (label,)).occupancy for label in ids]
        np.testing.assert_array_equal(np.sum(parts, axis=0), values > 0)
        np.testing.assert_array_equal(select_mask(label_map(values)).occupancy, values > 0)
        np.testing.assert_array_equal(select_mask(label_map(values), ids).occupancy, values > 0)
    np.testing.assert_array_equal(values, before)


def test_label_ids_of_a_file_in_pieces() -> None:
    values = np.zeros((300, 300, 30), np.uint16)
    values[-1, -1, -1], values[0, 0, 0] = 65535, 3
    assert label_ids(values) == (3, 65535)


def test_parse_ids() -> None:
    assert parse_labels("1, 2,2", Path("nowhere")) == (1, 2)
    with pytest.raises(InputError, match="no label of an organ"):
        parse_labels("0", Path("nowhere"))
    with pytest.raises(InputError, match="names no label"):
        parse_labels(" , ", Path("nowhere"))
    with pytest.raises(InputError, match="declares no label 'liver'"):
        parse_labels("liver", Path("nowhere"))


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "Liver", "2": "Tumour"},
        {"background": 0, "Liver": 1, "Tumour": 2},
    ],
)
def test_names_from_a_dataset_json(tmp_path: Path, labels: dict[str, object]) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    masks = tmp_path / "labelsTr"
    masks.mkdir()
    assert parse_labels("tumour,LIVER", masks) == (2, 1)
    with pytest.raises(InputError, match="it declares liver, tumour"):
        parse_labels("spleen", masks)


def test_regions_of_a_dataset_json(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"whole": [1, 2], "core": 2}}))
    assert parse_labels("whole", tmp_path) == (1, 2)


@pytest.mark.parametrize("content", ["{", "[]", '{"labels": 3}', '{"labels": {"a": "b"}}', "\udcff"])
def test_a_broken_dataset_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"dataset\.json: declares labels in a way"):
        parse_labels("liver", tmp_path)


def segmentation(path: Path, **segments: int) -> Path:
    """A .seg.nrrd of one voxel, with such segments."""
    lines = ["NRRD0004", "type: uchar", "dimension: 3", "sizes: 1 1 1", "encoding: raw"]
    for number, (name, value) in enumerate(segments.items()):
        lines += [f"Segment{number}_Name:={name}", f"Segment{number}_LabelValue:={value}"]
    path.write_bytes("\n".join(lines).encode() + b"\n\n\x03")
    return path


def test_names_from_a_seg_nrrd(tmp_path: Path) -> None:
    path = segmentation(tmp_path / "a.seg.nrrd", **{"Left Kidney": 3, "Cyst": 5, "Größe": 7})
    assert parse_labels("cyst,left kidney", path) == (5, 3)
    assert parse_labels("cyst", tmp_path) == (5,)
    assert parse_labels("größe", tmp_path) == (7,)


def test_files_that_number_an_organ_differently_are_refused(tmp_path: Path) -> None:
    first = segmentation(tmp_path / "a.seg.nrrd", liver=1, spleen=2)
    second = segmentation(tmp_path / "b.seg.nrrd", spleen=1, liver=2)
    for source in (tmp_path, tmp_path / "*.seg.nrrd", [first, second]):
        with pytest.raises(
            InputError, match=r"b\.seg\.nrrd: .* liver is 2 in it, and liver is 1 in .*a\.seg\.nrrd"
        ):
            parse_labels("liver", source)
    assert parse_labels("liver", second) == (2,)
    segmentation(second, spleen=1)  # the label of a's liver is another organ in a file without a liver
    with pytest.raises(InputError, match="spleen is 1 in it"):
        parse_labels("liver", tmp_path)
    segmentation(second, spleen=2, Liver=1, tumour=3)
    assert parse_labels("liver,tumour", tmp_path) == (1, 3)


def test_damaged_and_hidden_segmentations_do_not_hide_the_names_of_others(tmp_path: Path) -> None:
    segmentation(tmp_path / "c.seg.nrrd", liver=4)
    (tmp_path / "._a.seg.nrrd").write_bytes(b"no NRRD")
    (tmp_path / "b.seg.nrrd").write_bytes(b"no NRRD")
    assert parse_labels("liver", tmp_path) == (4,)
    with pytest.raises(InputError, match=r"b\.seg\.nrrd: is no NRRD file"):
        parse_labels("liver", tmp_path / "b.seg.nrrd")


def test_reading_does_not_change_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path, MASK)
    before = path.read_bytes()
    read_mask(path)
    assert path.read_bytes() == before
    assert nibabel.load(path).shape == MASK.shape


def test_ids_of_equal_names_are_joined_and_a_name_without_ids_is_none(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "Kidney", "2": "kidney"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert parse_labels("KIDNEY", tmp_path) == (1, 2)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": [], "b": [2, 2]}}))
    assert parse_labels("b", tmp_path) == (2,)
    with pytest.raises(InputError, match="declares no label 'a'"):
        parse_labels("a", tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": {"a": 1e400}}')
    with pytest.raises(InputError, match="cannot be read"):
        parse_labels("a", tmp_path)


@pytest.mark.parametrize(("given", "ids"), [(2, (2,)), ([1, 2], (1, 2)), (np.array([3]), (3,)), ((), ())])
def test_one_label_or_several_may_be_given(given: Any, ids: tuple[int, ...]) -> None:
    assert as_label_ids(given) == ids


@pytest.mark.parametrize("given", ["1,2", ["1"], 1.5, None])
def test_what_is_no_label_id_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="no label ids"):
        as_label_ids(given)
