"""NIfTI headers: every field that cannot be true is refused, every repair is noted."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from io_samples import OBLIQUE, block, gzipped, nifti_bytes, refused, written

from implicit_atlas.io import read_labels, read_mask

MASK = block().astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("srow_x", [np.nan, 0, 0, 0], "NaN or infinite"),
        ("srow_x", [np.inf, 0, 0, 0], "NaN or infinite"),
        ("srow_x", [1, 0, 0, np.nan], "NaN or infinite"),
        ("srow_x", [1e30, 0, 0, np.inf], "NaN or infinite"),
        ("srow_x", [0, 0, 0, 0], "voxel size of 0"),
        ("srow_x", [0, 1, 0, 0], "voxel size of 0"),
        ("srow_z", [1, 0, 0, 0], "voxel size of 0"),
        ("srow_y", [1, 0, 0, 0], "voxel size of 0"),
        ("srow_x", [1, 0.2, 0, 0], "shear"),
    ],
)
def test_impossible_sform(tmp_path: Path, name: str, value: list[float], words: str) -> None:
    refused(read_mask, written(tmp_path, nifti_bytes(MASK, **{name: value}, qform_code=0)), words)


def test_singular_sform_without_a_zero_column(tmp_path: Path) -> None:
    rows = {"srow_x": [1, 1, 0, 0], "srow_y": [1, 1, 0, 0], "srow_z": [0, 0, 1, 0]}
    refused(read_mask, written(tmp_path, nifti_bytes(MASK, **rows, qform_code=0)), "singular")


@pytest.mark.parametrize(
    "fields",
    [{"quatern_b": np.nan}, {"quatern_b": 3.0}, {"pixdim": [1, 0, 1, 1, 0, 0, 0, 0]}, {"qoffset_x": np.inf}],
)
def test_impossible_qform(tmp_path: Path, fields: dict[str, object]) -> None:
    refused(
        read_mask,
        written(tmp_path, nifti_bytes(MASK, **fields, sform_code=0)),
        "qform|voxel size|NaN",
    )


def test_qform_alone_is_used_and_qfac_0_is_1(tmp_path: Path) -> None:
    content = nifti_bytes(
        MASK, OBLIQUE, sform_code=0, pixdim=[0, *np.linalg.norm(OBLIQUE[:3, :3], axis=0), 0, 0, 0, 0]
    )
    np.testing.assert_allclose(read_mask(written(tmp_path, content)).grid.affine, OBLIQUE, atol=1e-5)


def test_q_and_s_form_that_disagree_in_size_name_both_volumes(tmp_path: Path) -> None:
    content = nifti_bytes(MASK, srow_x=[2, 0, 0, 0], srow_y=[0, 2, 0, 0], srow_z=[0, 0, 2, 0])
    error = refused(read_mask, written(tmp_path, content), "qform and sform disagree")
    assert "1 mm^3" in error.problem and "8 mm^3" in error.problem


def test_q_and_s_form_that_disagree_in_orientation(tmp_path: Path) -> None:
    error = refused(
        read_mask,
        written(tmp_path, nifti_bytes(MASK, srow_x=[-1, 0, 0, 0])),
        "qform and sform disagree",
    )
    assert "axes LAS" in error.problem and "axes RAS" in error.problem


def test_q_and_s_form_apart_are_noted(tmp_path: Path) -> None:
    mask = read_mask(written(tmp_path, nifti_bytes(MASK, srow_x=[1, 0, 0, 40])))
    assert mask.grid.affine[0, 3] == 40
    assert mask.notes == ("qform and sform lie 40.0 mm apart; the sform is used",)


def test_pixdim_that_contradicts_a_lone_sform_is_noted(tmp_path: Path) -> None:
    content = nifti_bytes(MASK, qform_code=0, pixdim=[1, 2, 2, 2, 0, 0, 0, 0])
    assert "sform used" in read_mask(written(tmp_path, content)).notes[0]


def test_no_form_at_all_is_read_as_nibabel_reads_it_and_noted(tmp_path: Path) -> None:
    path = written(
        tmp_path, nifti_bytes(MASK, qform_code=0, sform_code=0, pixdim=[1, 2, 3, 4, 0, 0, 0, 0]), "case.nii"
    )
    mask = read_mask(path)
    np.testing.assert_allclose(mask.grid.affine, nibabel.load(path).affine)
    assert "neither qform nor sform" in mask.notes[0]


def test_micrometres_become_mm(tmp_path: Path) -> None:
    mask = read_mask(written(tmp_path, nifti_bytes(MASK, np.diag([500.0, 500, 500, 1]), xyzt_units=3)))
    np.testing.assert_allclose(mask.grid.spacing_mm, 0.5)
    assert "micrometres" in mask.notes[0]


@pytest.mark.parametrize(
    ("dim", "words"),
    [
        ([3, 0, 6, 5, 1, 1, 1, 1], "not positive: 0 x 6 x 5"),
        ([3, 7, -6, 5, 1, 1, 1, 1], "not positive"),
        ([0, 7, 6, 5, 1, 1, 1, 1], "0 dimensions"),
        ([8, 7, 6, 5, 1, 1, 1, 1], "8 dimensions"),
        ([2, 42, 5, 1, 1, 1, 1, 1], "2 dimensions"),
        ([4, 7, 6, 1, 5, 1, 1, 1], "4 dimensions"),
    ],
)
def test_impossible_dimensions(tmp_path: Path, dim: list[int], words: str) -> None:
    refused(read_mask, written(tmp_path, nifti_bytes(MASK, dim=dim)), words)


def test_trailing_dimensions_of_one_are_dropped(tmp_path: Path) -> None:
    assert read_mask(written(tmp_path, nifti_bytes(MASK, dim=[5, 7, 6, 5, 1, 1, 1, 1]))).occupancy.shape == (
        7,
        6,
        5,
    )


def test_wrong_byte_order_in_part_of_the_header(tmp_path: Path) -> None:
    content = bytearray(nifti_bytes(MASK))
    content[40:56] = np.frombuffer(content[40:56], "<i2").astype(">i2").tobytes()
    refused(read_mask, written(tmp_path, bytes(content)), "byte order")


@pytest.mark.parametrize("offset", [np.inf, -np.inf, np.nan, -352, 100, 352.5, 1e9, 3e38])
def test_impossible_vox_offset(tmp_path: Path, offset: float) -> None:
    refused(read_mask, written(tmp_path, nifti_bytes(MASK, vox_offset=offset)), "vox_offset")


def test_vox_offset_0_is_repaired(tmp_path: Path) -> None:
    mask = read_mask(written(tmp_path, nifti_bytes(MASK, vox_offset=0)))
    np.testing.assert_array_equal(mask.occupancy, MASK > 0)
    assert mask.notes == ("vox_offset 0 was read as 352",)


def test_header_extensions_are_skipped(tmp_path: Path) -> None:
    content = nifti_bytes(MASK, vox_offset=400)
    path = written(tmp_path, gzipped(content[:352] + b"x" * 48 + content[352:]), "a.nii.gz")
    np.testing.assert_array_equal(read_mask(path).occupancy, MASK > 0)


@pytest.mark.parametrize("code", [32, 128, 1792, 2304, 1, 1536, 77])
def test_voxels_that_are_no_labels(tmp_path: Path, code: int) -> None:
    refused(
        read_mask,
        written(tmp_path, nifti_bytes(MASK, datatype=code)),
        "complex|RGB|bit|unknown datatype",
    )


@pytest.mark.parametrize("name", ["a.hdr", "a.img"])
def test_analyze_by_name(tmp_path: Path, name: str) -> None:
    refused(read_mask, written(tmp_path, b"\0" * 348, name), "Analyze")


def test_analyze_by_content(tmp_path: Path) -> None:
    content = bytearray(nifti_bytes(MASK))
    content[344:348] = b"\0" * 4
    refused(read_mask, written(tmp_path, bytes(content)), "Analyze")


def test_half_of_a_pair_and_other_files(tmp_path: Path) -> None:
    refused(read_mask, written(tmp_path, nifti_bytes(MASK, magic=b"ni1")), "pair")
    refused(read_mask, written(tmp_path, nifti_bytes(MASK, magic=b"n+9")), "magic")
    refused(
        read_mask,
        written(tmp_path, b"PK\x03\x04" + b"x" * 600),
        "does not start with a NIfTI header",
    )


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_slope_0_or_nan_is_no_scaling(tmp_path: Path, slope: float) -> None:
    path = written(tmp_path, nifti_bytes(MASK * 2, scl_slope=slope, scl_inter=np.nan))
    np.testing.assert_array_equal(read_labels(path).values, MASK * 2)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = written(tmp_path, nifti_bytes(MASK, scl_slope=3, scl_inter=2))
    np.testing.assert_array_equal(read_labels(path).values, MASK * 3 + 2)


@pytest.mark.parametrize(("slope", "intercept"), [(np.inf, 0), (1, np.nan), (2, np.inf)])
def test_slope_that_gives_no_number(tmp_path: Path, slope: float, intercept: float) -> None:
    refused(
        read_mask,
        written(tmp_path, nifti_bytes(MASK, scl_slope=slope, scl_inter=intercept)),
        "scl_slope",
    )


@pytest.mark.parametrize("spacing_mm", [0.01, 20.0])
def test_extreme_spacing(tmp_path: Path, spacing_mm: float) -> None:
    path = written(tmp_path, nifti_bytes(MASK, np.diag([spacing_mm, spacing_mm, spacing_mm, 1])))
    np.testing.assert_allclose(read_mask(path).grid.spacing_mm, spacing_mm, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 4, 1)])
def test_one_voxel_and_one_slice(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    mask = read_mask(written(tmp_path, nifti_bytes(np.ones(shape, np.uint8))))
    assert mask.occupancy.shape == shape and mask.occupancy.all()
    assert mask.notes == ("the mask fills the whole volume",)
