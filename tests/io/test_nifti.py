"""NIfTI files: every type and byte order; damaged, lying and unusual files are refused or noted."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from io_samples import OBLIQUE, block, gzipped, nifti_bytes, refused, written

from implicit_atlas.io import read_grid, read_labels, read_mask

MASK = block().astype(np.uint8)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_nibabel_reads(tmp_path: Path, version: int, compressed: bool) -> None:
    content = nifti_bytes(MASK, OBLIQUE, version)
    path = written(tmp_path, gzipped(content) if compressed else content, f"a.nii{'.gz' * compressed}")
    mask, peer = read_mask(path), nibabel.load(path)
    np.testing.assert_array_equal(mask.occupancy, np.asarray(peer.dataobj) > 0)
    np.testing.assert_array_equal(mask.grid.affine, peer.affine)
    assert (mask.dtype, mask.labels, mask.notes, mask.path) == (np.uint8, (), (), path)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_type_and_byte_order(tmp_path: Path, kind: str, order: str) -> None:
    dtype = np.dtype(order + kind)
    array = (MASK * 3).astype(dtype)
    image = nibabel.Nifti1Image(array, OBLIQUE, nibabel.Nifti1Header(endianness=order), dtype=dtype)
    path = tmp_path / "a.nii"
    nibabel.save(image, path)
    label_map = read_labels(path)
    assert label_map.values.dtype.kind in "iu" and label_map.values.dtype.isnative
    assert label_map.dtype.itemsize == dtype.itemsize
    np.testing.assert_array_equal(label_map.values, MASK * 3)


@pytest.mark.parametrize("label", [65535, 2**31, 2**53 + 1])
def test_large_integer_labels_survive(tmp_path: Path, label: int) -> None:
    values = MASK.astype(np.int64) * label
    path = written(tmp_path, nifti_bytes(values))
    assert read_mask(path, (label,)).occupancy.sum() == MASK.sum()


@pytest.mark.parametrize("length", [2000, 32767])
@pytest.mark.parametrize("name", ["bomb.nii", "bomb.nii.gz"])
def test_header_bomb_is_refused_before_memory_is_spent(tmp_path: Path, length: int, name: str) -> None:
    header = nifti_bytes(MASK, dim=[3, length, length, length, 1, 1, 1, 1])[:352]
    filling = np.random.default_rng(0).bytes(33_000)
    path = written(tmp_path, gzipped(header + filling) if name.endswith("gz") else header + filling, name)
    tracemalloc.start()
    refused(read_mask, path, "header claims")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5e6


def test_gzip_that_unfolds_beyond_its_header_is_refused_in_little_memory(tmp_path: Path) -> None:
    compressor = zlib.compressobj(9, wbits=31)
    content = compressor.compress(nifti_bytes(MASK))
    content += b"".join(compressor.compress(bytes(2**20)) for _ in range(64)) + compressor.flush()
    path = written(tmp_path, content, "bomb.nii.gz")
    tracemalloc.start()
    refused(read_mask, path, "holds more than")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1e7


def test_a_volume_beyond_the_limit_is_refused_even_if_its_stream_could_hold_it(tmp_path: Path) -> None:
    header = nifti_bytes(MASK, dim=[3, 2000, 2000, 2000, 1, 1, 1, 1])[:352]
    path = written(tmp_path, gzipped(header + np.random.default_rng(0).bytes(8_000_000)), "huge.nii.gz")
    refused(read_mask, path, "GiB of voxels")


@pytest.mark.parametrize("kept", [0, 3, 100, 347, 351, 352, 400])
def test_truncated_raw_file(tmp_path: Path, kept: int) -> None:
    refused(read_mask, written(tmp_path, nifti_bytes(MASK)[:kept]), "truncated")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated_gzip(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (9, 9, 9), np.uint8)
    content = gzipped(nifti_bytes(noise))
    refused(read_mask, written(tmp_path, content[: int(share * len(content))], "a.nii.gz"), "truncated")


def test_longer_raw_file(tmp_path: Path) -> None:
    refused(
        read_mask,
        written(tmp_path, nifti_bytes(MASK) + b"\0"),
        "header claims 562 bytes but the file has 563",
    )


@pytest.mark.parametrize("position", [-8, -4, 60])
def test_damaged_gzip(tmp_path: Path, position: int) -> None:
    content = bytearray(gzipped(nifti_bytes(MASK)))
    content[position] ^= 0xFF
    refused(read_mask, written(tmp_path, bytes(content), "a.nii.gz"), "damaged|truncated")


def test_gzip_members_are_read_as_one_stream(tmp_path: Path) -> None:
    content = nifti_bytes(MASK)
    path = written(tmp_path, gzipped(content[:400]) + gzipped(content[400:]), "a.nii.gz")
    np.testing.assert_array_equal(read_mask(path).occupancy, MASK > 0)


def test_two_volumes_in_one_gzip_file(tmp_path: Path) -> None:
    content = gzipped(nifti_bytes(MASK))
    refused(read_mask, written(tmp_path, content + content, "a.nii.gz"), "holds more than")


def test_garbage_after_gzip(tmp_path: Path) -> None:
    refused(read_mask, written(tmp_path, gzipped(nifti_bytes(MASK)) + b"tail", "a.nii.gz"), "damaged")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_content_is_believed_over_its_name_and_said_so(tmp_path: Path, name: str) -> None:
    content = nifti_bytes(MASK)
    mask = read_mask(written(tmp_path, content if name == "a.nii.gz" else gzip.compress(content), name))
    np.testing.assert_array_equal(mask.occupancy, MASK > 0)
    assert len(mask.notes) == 1 and "although its name says" in mask.notes[0]


def test_missing_file_and_folder_in_its_place(tmp_path: Path) -> None:
    refused(read_mask, tmp_path / "none.nii.gz", "does not exist")
    (tmp_path / "folder.nii").mkdir()
    refused(read_mask, tmp_path / "folder.nii", "cannot be read")


def test_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    refused(read_mask, tmp_path / "loop.nii", "cannot be read")


def test_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path, nifti_bytes(MASK))
    monkeypatch.setattr(Path, "open", denied)
    refused(read_mask, path, "Permission denied")


@pytest.mark.parametrize("name", ["a b.nii", "Leber-Größe-肝.nii.gz", "line\nbreak.nii", "a.b.c.NII.GZ"])
def test_any_file_name(tmp_path: Path, name: str) -> None:
    content = nifti_bytes(MASK)
    path = written(tmp_path, gzipped(content) if name.lower().endswith("gz") else content, name)
    assert read_mask(path).occupancy.sum() == MASK.sum()


def test_grid_comes_from_the_header_alone(tmp_path: Path) -> None:
    path = written(tmp_path, nifti_bytes(MASK, OBLIQUE))
    assert read_grid(path).same_as(read_mask(path).grid, 0)
