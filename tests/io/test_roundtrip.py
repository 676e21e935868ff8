"""Masks written and read again: every axis order, oblique axes, every format and type."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from io_samples import AXIS_ORDERS, OBLIQUE, block, grid_of, ordered_affine
from scipy.spatial.transform import Rotation

from implicit_atlas.errors import InputError
from implicit_atlas.io import check_same_grid, read_grid, read_mask, write_mask
from implicit_atlas.io.voxel_grid import Grid

FORMATS = [".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha"]


def assert_round_trip(path: Path, grid: Grid, tolerance_mm: float = 0.0) -> None:
    occupancy = block(grid.shape)
    before = occupancy.copy()
    write_mask(path, occupancy, grid)
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.occupancy, before)
    np.testing.assert_array_equal(occupancy, before)
    assert mask.grid.same_as(grid, tolerance_mm)
    assert mask.notes == ()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("order", "signs"), AXIS_ORDERS)
def test_all_48_axis_orders(
    tmp_path: Path, suffix: str, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    grid = grid_of((7, 6, 5), ordered_affine(order, signs))
    assert_round_trip(tmp_path / f"a{suffix}", grid, 1e-12)


def test_axis_orders_are_48_different_orientations() -> None:
    assert len({grid_of((7, 6, 5), ordered_affine(*order)).orientation for order in AXIS_ORDERS}) == 48


@pytest.mark.parametrize("suffix", FORMATS)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.01, 20)] * 3),
    signs=st.sampled_from(list(product((1, -1), repeat=3))),
)
@settings(max_examples=15, deadline=None)
def test_oblique_axes(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    angles: tuple[float, ...],
    spacing_mm: tuple[float, ...],
    signs: tuple[int, ...],
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * signs * spacing_mm
    affine[:3, 3] = (12.5, -300.0, 41.0)
    assert_round_trip(tmp_path_factory.mktemp("oblique") / f"a{suffix}", grid_of((7, 6, 5), affine), 1e-4)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_float32_affine_survives_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    affine = OBLIQUE.astype(np.float32).astype(np.float64)
    write_mask(tmp_path / f"a{suffix}", block(), grid_of((7, 6, 5), affine))
    np.testing.assert_array_equal(nibabel.load(tmp_path / f"a{suffix}").affine, affine)


@pytest.mark.parametrize("suffix", FORMATS)
def test_sitk_and_this_package_agree_on_world_points(tmp_path: Path, suffix: str) -> None:
    path, grid = tmp_path / f"a{suffix}", grid_of((7, 6, 5), OBLIQUE)
    write_mask(path, block(), grid)
    image = sitk.ReadImage(str(path))
    index = (3, 1, 4)
    world = grid.affine @ (*index, 1)
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), world[:3] * (-1, -1, 1), atol=1e-4)
    assert image[1, 3, 1] == 1 and image[3, 1, 1] == 1 and image[4, 2, 2] == 0


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "i8", "f8", ">i2"])
def test_type_in_the_file(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_mask(path, block(), grid_of((7, 6, 5)), np.dtype(dtype))
    mask = read_mask(path)
    assert mask.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(mask.occupancy, block())


def test_both_matrices_are_set_in_mm(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.nii.gz", block(), grid_of((7, 6, 5), OBLIQUE))
    header = nibabel.load(tmp_path / "a.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_mask_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_mask(tmp_path / f"{name}{suffix}", block(), grid_of((7, 6, 5), OBLIQUE))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_lengths_beyond_nifti_1(tmp_path: Path) -> None:
    occupancy = np.zeros((32768, 2, 1), bool)
    occupancy[-1, 1] = True
    write_mask(tmp_path / "a.nii.gz", occupancy, grid_of(occupancy.shape))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.nii.gz").occupancy, occupancy)


def test_folders_are_made_and_nothing_is_left_beside(tmp_path: Path) -> None:
    for suffix in FORMATS:
        write_mask(tmp_path / "new" / "deep" / f"a{suffix}", block(), grid_of((7, 6, 5)))
    assert len(list((tmp_path / "new" / "deep").iterdir())) == len(FORMATS)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    write_mask(path, block(), grid_of((7, 6, 5)))
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(InputError, match="cannot be written"):
        write_mask(path, ~block(), grid_of((7, 6, 5)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no format that volumes are written in"):
        write_mask(tmp_path / "a.png", block(), grid_of((7, 6, 5)))
    with pytest.raises(InputError, match="differs from its grid"):
        write_mask(tmp_path / "a.nii", block(), grid_of((5, 6, 7)))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        write_mask(tmp_path / "file" / "a.nii", block(), grid_of((7, 6, 5)))


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_image_on_another_grid_is_named(tmp_path: Path, suffix: str) -> None:
    write_mask(tmp_path / "mask.nii", block(), grid_of((7, 6, 5), OBLIQUE))
    write_mask(tmp_path / f"same{suffix}", block(), grid_of((7, 6, 5), OBLIQUE))
    shifted = OBLIQUE.copy()
    shifted[0, 3] += 1
    write_mask(tmp_path / f"other{suffix}", block(), grid_of((7, 6, 5), shifted))
    mask = read_mask(tmp_path / "mask.nii")
    check_same_grid(mask, tmp_path / f"same{suffix}")
    with pytest.raises(InputError, match="grid differs"):
        check_same_grid(mask, tmp_path / f"other{suffix}")
    assert read_grid(tmp_path / f"same{suffix}").same_as(mask.grid)
