"""NRRD and MetaImage: geometry turned to RAS, and payloads measured before SimpleITK reads them."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import OBLIQUE, block, grid_of, refused, written

from implicit_atlas.errors import InputError
from implicit_atlas.io import read_grid, read_labels, read_mask, write_mask

MASK = block().astype(np.uint8)
NRRD = (
    b"NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 7 6 5\n"
    b"space directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nencoding: raw\n"
    b"space origin: (0,0,0)\n\n"
)
META = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    b"CompressedData = False\n"
    b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 7 6 5\n"
    b"ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
)
VOXELS = MASK.tobytes(order="F")


@pytest.mark.parametrize(("header", "name"), [(NRRD, "a.nrrd"), (META, "a.mha")])
def test_plain_file(tmp_path: Path, header: bytes, name: str) -> None:
    mask = read_mask(written(tmp_path, header + VOXELS, name))
    np.testing.assert_array_equal(mask.occupancy, MASK > 0)
    np.testing.assert_array_equal(mask.grid.affine, np.diag([-1, -1, 1, 1]))
    assert mask.notes == ()


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_sitk_writes(tmp_path: Path, suffix: str, compressed: bool) -> None:
    image = sitk.GetImageFromArray(MASK.T.copy())
    image.SetSpacing((0.5, 2.0, 3.25))
    image.SetOrigin((1.0, 2.0, 3.0))
    image.SetDirection((0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    path = tmp_path / f"a b{suffix}"
    sitk.WriteImage(image, str(path), useCompression=compressed)
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.occupancy, MASK > 0)
    for index in ((0, 0, 0), (6, 0, 0), (1, 5, 4)):
        world = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose((mask.grid.affine @ (*index, 1))[:3], world)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_truncated(tmp_path: Path, suffix: str, compressed: bool, kept: float) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 2, (9, 9, 9), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), useCompression=compressed)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(read_mask, path, "truncated|dimensions|type|encoding|header")


@pytest.mark.parametrize(("header", "name"), [(NRRD, "a.nrrd"), (META, "a.mha")])
def test_longer_than_its_header_says(tmp_path: Path, header: bytes, name: str) -> None:
    refused(
        read_mask,
        written(tmp_path, header + VOXELS + b"\0", name),
        "header claims 210 bytes but the file has 211",
    )


@pytest.mark.parametrize(
    ("header", "name", "old", "new"),
    [
        (NRRD, "a.nrrd", b"sizes: 7 6 5", b"sizes: 2000 2000 2000"),
        (NRRD, "b.nrrd", b"sizes: 7 6 5", b"sizes: 32767 32767 32767"),
        (META, "a.mha", b"DimSize = 7 6 5", b"DimSize = 2000 2000 2000"),
        (META, "b.mha", b"DimSize = 7 6 5", b"DimSize = 99999999 99999999 99999999"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_header_bomb(
    tmp_path: Path, header: bytes, name: str, old: bytes, new: bytes, compressed: bool
) -> None:
    lying = header.replace(old, new)
    if compressed:
        lying = lying.replace(b"encoding: raw", b"encoding: gzip").replace(b"Data = False", b"Data = True")
    tracemalloc.start()
    refused(read_mask, written(tmp_path, lying + bytes(33_000), name), "header claims")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5e6


def test_gzip_that_unfolds_beyond_its_header(tmp_path: Path) -> None:
    header = NRRD.replace(b"encoding: raw", b"encoding: gzip")
    path = written(tmp_path, header + gzip.compress(VOXELS + bytes(2**24)), "a.nrrd")
    refused(read_mask, path, "holds more than")


def test_damaged_gzip(tmp_path: Path) -> None:
    content = bytearray(NRRD.replace(b"encoding: raw", b"encoding: gzip") + gzip.compress(VOXELS))
    content[-8] ^= 0xFF
    refused(read_mask, written(tmp_path, bytes(content), "a.nrrd"), "damaged")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"NRRD0004", b"PNG00000", "no NRRD file"),
        (b"type: uchar", b"type: block", "type 'block'"),
        (b"type: uchar\n", b"", "type ''"),
        (b"type: uchar", b"type: short", "byte order ''"),
        (b"dimension: 3", b"dimension: 4", "says 4 dimensions"),
        (b"dimension: 3\n", b"", "says no dimensions"),
        (b"sizes: 7 6 5", b"sizes: 7 6 x", "no numbers"),
        (b"sizes: 7 6 5", b"sizes: 7 0 5", "sizes '7 0 5'"),
        (b"dimension: 3", b"dimension: 4\nsizes: 2 7 6 5", "says 4|4 dimensions"),
        (b"encoding: raw", b"encoding: text", "encoding 'text'"),
        (b"encoding: raw", b"encoding: raw\nbyte skip: 10", "skips bytes"),
        (b"(1,0,0)", b"(nan,0,0)", "header that cannot be used|NaN|voxel size"),
        (b"(1,0,0)", b"(0,0,0)", "header that cannot be used|NaN|voxel size"),
        (b"(1,0,0)", b"(0,1,0)", "header that cannot be used|singular"),
        (b"(1,0,0)", b"(1,0.3,0)", "shear|header that cannot be used"),
        (b"origin: (0,0,0)", b"origin: (nan,0,0)", "NaN|header that cannot be used"),
        (b"left-posterior-superior", b"scanner-xyz", "space 'scanner-xyz'"),
        (b"(1,0,0) (0,1,0) (0,0,1)", b"none none none", "no space directions"),
        (b"space directions: (1,0,0) (0,1,0) (0,0,1)\n", b"", "no space directions"),
        (b"encoding: raw", b"encoding: raw\ndata file: ../secret.raw", "no file beside it"),
        (b"encoding: raw", b"encoding: raw\ndata file: /etc/hostname", "no file beside it"),
        (b"encoding: raw", b"encoding: raw\ndata file: LIST", "no file beside it"),
        (b"encoding: raw", b"encoding: raw\ndata file: none.raw", "does not exist"),
    ],
)
def test_impossible_nrrd_header(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    assert old in NRRD
    refused(read_mask, written(tmp_path, NRRD.replace(old, new) + VOXELS, "a.nrrd"), words)


def test_nrrd_of_several_layers_is_refused(tmp_path: Path) -> None:
    header = NRRD.replace(b"dimension: 3", b"dimension: 4").replace(b"sizes: 7", b"sizes: 2 7")
    refused(read_mask, written(tmp_path, header + VOXELS * 2, "a.seg.nrrd"), "4 dimensions")


@pytest.mark.parametrize("unit", ["cm", "m"])
def test_nrrd_in_another_unit_is_refused(tmp_path: Path, unit: str) -> None:
    for name, units in (("mm", "mm"), ("other", unit)):
        text = NRRD.replace(b"\n\n", f'\nspace units: "{units}" "{units}" "{units}"\n\n'.encode(), 1)
        (tmp_path / f"{name}.nrrd").write_bytes(text + VOXELS)
    read_mask(tmp_path / "mm.nrrd")
    with pytest.raises(InputError, match=f"unit '{unit}'"):
        read_mask(tmp_path / "other.nrrd")


def test_nrrd_without_space_is_noted(tmp_path: Path) -> None:
    header = NRRD.replace(b"space: left-posterior-superior\n", b"").replace(b"space directions", b"x-none")
    header = header.replace(b"space origin: (0,0,0)\n", b"").replace(
        b"x-none: (1,0,0) (0,1,0) (0,0,1)\n", b""
    )
    mask = read_mask(written(tmp_path, header + VOXELS, "a.nrrd"))
    assert "names no space" in mask.notes[0]


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1)), ("LPS", (-1, -1, 1))],
)
def test_nrrd_in_another_space(tmp_path: Path, space: str, signs: tuple[int, ...]) -> None:
    header = NRRD.replace(b"left-posterior-superior", space.encode()).replace(b"(0,0,0)", b"(5,6,7)")
    affine = read_grid(written(tmp_path, header + VOXELS, "a.nrrd")).affine
    np.testing.assert_array_equal(affine[:3, :3], np.diag(signs))
    np.testing.assert_array_equal(affine[:3, 3], np.multiply(signs, (5, 6, 7)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"ElementDataFile = LOCAL\n", b"", "no MetaImage file"),
        (b"NDims = 3", b"NDims = 2", "says 2 dimensions"),
        (b"DimSize = 7 6 5", b"DimSize = -7 6 5", "sizes '-7 6 5'"),
        (b"MET_UCHAR", b"MET_UCHAR_ARRAY", "type 'MET_UCHAR_ARRAY'"),
        (b"MET_UCHAR", b"MET_UCHAR\nElementNumberOfChannels = 3", "type"),
        (b"BinaryData = True", b"BinaryData = False", "as text"),
        (b"NDims = 3", b"NDims = 3\nHeaderSize = 12", "header of their own"),
        (b"ElementSpacing = 1 1 1", b"ElementSpacing = 0 1 1", "voxel size|header that cannot be used"),
        (b"ElementSpacing = 1 1 1", b"ElementSpacing = nan 1 1", "NaN|voxel size|header that cannot be used"),
        (b"Matrix = 1 0 0", b"Matrix = 0 1 0", "singular|header that cannot be used"),
        (b"Matrix = 1 0 0", b"Matrix = 1 0.3 0", "shear|header that cannot be used"),
        (b"= LOCAL", b"= ../secret.raw", "no file beside it"),
        (b"= LOCAL", b"= x%03d.raw 1 5 1", "no file beside it"),
    ],
)
def test_impossible_metaimage_header(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    assert old in META
    refused(read_mask, written(tmp_path, META.replace(old, new) + VOXELS, "a.mha"), words)


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_order(tmp_path: Path, order: str) -> None:
    voxels = (MASK * np.int16(300)).astype(f"{order}i2").tobytes(order="F")
    endian = b"little" if order == "<" else b"big"
    nrrd = NRRD.replace(b"type: uchar", b"type: short\nendian: " + endian)
    meta = META.replace(b"MET_UCHAR", b"MET_SHORT").replace(
        b"MSB = False", b"MSB = False" if order == "<" else b"MSB = True"
    )
    for path in (written(tmp_path, nrrd + voxels, "a.nrrd"), written(tmp_path, meta + voxels, "a.mha")):
        np.testing.assert_array_equal(read_labels(path).values, MASK * np.int16(300))
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, MASK * np.int16(300)
        )


def test_header_without_end(tmp_path: Path) -> None:
    refused(read_mask, written(tmp_path, b"NRRD0004\n" + b"# x\n" * 300_000, "a.nrrd"), "header without end")
    refused(read_mask, written(tmp_path, b"Comment = x\n" * 100_000, "a.mha"), "no MetaImage file")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_wide_and_fractional_labels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for dtype, label in ((np.uint16, 65535), (np.int64, 2**40)):
        sitk.WriteImage(sitk.GetImageFromArray((MASK.astype(dtype) * dtype(label)).T.copy()), str(path))
        assert read_mask(path, (label,)).occupancy.sum() == MASK.sum()
    values = MASK * 0.5
    values[0, 0, 0] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(values.T.copy()), str(path))
    with pytest.raises(InputError, match="NaN"):
        read_labels(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_any_file_name(tmp_path: Path, suffix: str) -> None:
    for name in ("a b", "Größe 肝", "line\nbreak"):
        write_mask(tmp_path / f"{name}{suffix}", block(), grid_of((7, 6, 5), OBLIQUE))
        assert read_mask(tmp_path / f"{name}{suffix}").occupancy.sum() == MASK.sum()


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_name_that_is_not_unicode_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a\udcff{suffix}"
    write_mask(tmp_path / f"a{suffix}", block(), grid_of((7, 6, 5)))
    (tmp_path / f"a{suffix}").rename(path)
    refused(read_mask, path, "not valid Unicode")
