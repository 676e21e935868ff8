"""DICOM segmentations: on the series' slices, where the mask was, whatever its axes; what cannot be one is refused."""

from __future__ import annotations

import sys
from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from commands import run
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from implicit_atlas.errors import InputError
from implicit_atlas.io import read_labels, write_label_map
from implicit_atlas.io.dicom_seg import RAS_TO_LPS, write_dicom_seg
from implicit_atlas.io.voxel_grid import Grid

ROWS, COLUMNS, SLICES, SPACING, THICK, ORIGIN = 24, 20, 9, 0.8, 2.5, (-30.0, 12.0, 100.0)


def image(index: int, uids: dict[str, str]) -> Dataset:
    """A slice of a CT, transverse, that says only what it must."""
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.file_meta.MediaStorageSOPClassUID = out.SOPClassUID = CTImageStorage
    out.file_meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID = generate_uid()
    out.StudyInstanceUID, out.SeriesInstanceUID = uids["study"], uids["series"]
    out.FrameOfReferenceUID, out.Modality = uids["frame"], "CT"
    out.PatientID, out.PatientName, out.PatientBirthDate, out.PatientSex = "1", "A^B", "", ""
    out.StudyID, out.StudyDate, out.StudyTime, out.AccessionNumber = "1", "", "", ""
    out.ReferringPhysicianName, out.SeriesNumber, out.InstanceNumber = "", 1, index + 1
    out.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + THICK * index]
    out.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    out.PixelSpacing, out.SliceThickness = [SPACING, SPACING], THICK
    out.Rows, out.Columns, out.SamplesPerPixel = ROWS, COLUMNS, 1
    out.PhotometricInterpretation, out.PixelRepresentation = "MONOCHROME2", 0
    out.BitsAllocated, out.BitsStored, out.HighBit = 16, 16, 15
    out.PixelData = np.zeros((ROWS, COLUMNS), np.uint16).tobytes()
    return out


def grid() -> Grid:
    """Of the series, axes (column, row, slice), in RAS."""
    lps = np.diag([SPACING, SPACING, THICK, 1.0])
    lps[:3, 3] = ORIGIN
    return Grid((COLUMNS, ROWS, SLICES), RAS_TO_LPS @ lps)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    uids = {name: generate_uid() for name in ("study", "series", "frame")}
    for index in range(SLICES):
        image(index, uids).save_as(folder / f"{SLICES - index}.dcm", enforce_file_format=True)
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Two boxes, in a file whose axes are reversed and exchanged."""
    values = np.zeros((COLUMNS, ROWS, SLICES), np.uint8)
    values[3:8, 5:15, 2:7], values[10:13, 6:9, 4:9] = 1, 2
    affine = grid().affine @ np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = (grid().affine @ [COLUMNS - 1, 0, 0, 1])[:3]
    turned = np.ascontiguousarray(values[::-1].transpose(1, 0, 2))
    path = tmp_path_factory.mktemp("labels") / "organs.nii.gz"
    write_label_map(path, turned, Grid(turned.shape, affine[:, [1, 0, 2, 3]]))
    return path, values


def test_segments_lie_where_the_labels_do(series, labels, tmp_path):
    path, values = labels
    out = tmp_path / "new" / "organs.dcm"
    assert run("dicom-seg", path, series, "-o", out, "--segment", "left=1", "--segment", "right=2") == 0
    found = hd.seg.segread(out)
    assert [found.get_segment_description(n).segment_label for n in (1, 2)] == ["left", "right"]
    volume = found.get_volume(combine_segments=True)
    indices = np.argwhere(volume.array)
    lps = indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    ras = lps * [-1, -1, 1]
    inverse = np.linalg.inv(grid().affine)
    voxels = np.rint(ras @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    back = np.zeros_like(values)
    back[tuple(voxels.T)] = volume.array[tuple(indices.T)]
    np.testing.assert_array_equal(back, values)


def test_every_label_is_a_segment_by_default(series, labels, tmp_path):
    assert run("dicom-seg", labels[0], series, "-o", tmp_path / "a.dcm") == 0
    assert hd.seg.segread(tmp_path / "a.dcm").number_of_segments == 2


def test_segments_have_names_that_the_series_could_not_write(series, labels, tmp_path):
    out = tmp_path / "a.dcm"
    assert run("dicom-seg", labels[0], series, "-o", out, "--segment", "肝臓=1", "--segment", "größe=2") == 0
    found = hd.seg.segread(out)
    assert [found.get_segment_description(n).segment_label for n in (1, 2)] == ["肝臓", "größe"]


def test_what_is_no_such_series_or_mask_is_refused(series, labels, tmp_path, capsys):
    read, out = read_labels(labels[0]), tmp_path / "a.dcm"
    with pytest.raises(InputError, match="no DICOM images"):
        write_dicom_seg(out, read, tmp_path, {1: "organ"})
    with pytest.raises(InputError, match="does not exist"):
        write_dicom_seg(out, read, tmp_path / "nowhere", {1: "organ"})
    with pytest.raises(InputError, match="no voxel of label 7"):
        write_dicom_seg(out, read, series, {7: "organ"})
    moved = grid().affine.copy()
    moved[0, 3] += 0.4
    write_label_map(tmp_path / "moved.nii.gz", labels[1], Grid(labels[1].shape, moved))
    with pytest.raises(InputError, match="another grid"):
        write_dicom_seg(out, read_labels(tmp_path / "moved.nii.gz"), series, {1: "organ"})
    assert run("dicom-seg", labels[0], series, "-o", out, "--segment", "organ") == 1
    assert "NAME=ID" in capsys.readouterr().err
    assert not out.exists()


def test_a_label_is_one_segment_alone(series, labels, tmp_path, capsys):
    words = ("--segment", "a=1", "--segment", "b=1")
    assert run("dicom-seg", labels[0], series, "-o", tmp_path / "seg.dcm", *words) == 1
    assert "label 1 is 'a' already" in capsys.readouterr().err


def test_a_series_without_its_patient_is_named(labels, tmp_path, capsys):
    folder = tmp_path / "series"
    folder.mkdir()
    uids = {name: generate_uid() for name in ("study", "series", "frame")}
    for index in range(SLICES):
        anonymous = image(index, uids)
        del anonymous.PatientBirthDate
        anonymous.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    assert run("dicom-seg", labels[0], folder, "-o", tmp_path / "seg.dcm") == 1
    said = capsys.readouterr().err
    assert "PatientBirthDate" in said and str(folder) in said


def test_a_series_without_its_number_and_a_sheared_mask_are_named(series, labels, tmp_path, capsys):
    folder = tmp_path / "series"
    folder.mkdir()
    for path in series.glob("*.dcm"):
        one = dcmread(path)
        del one.SeriesInstanceUID
        one.save_as(folder / path.name, enforce_file_format=True)
    assert run("dicom-seg", labels[0], folder, "-o", tmp_path / "a.dcm") == 1
    capsys.readouterr()
    own = read_labels(labels[0])
    affine = own.grid.affine.copy()
    first, second = affine[:3, 0], affine[:3, 1]
    affine[:3, 1] += 5e-4 * np.linalg.norm(second) * first / np.linalg.norm(first)
    sheared = replace(own, grid=Grid(own.grid.shape, affine))
    with pytest.raises(InputError, match="is on another grid"):
        write_dicom_seg(tmp_path / "a.dcm", sheared, series, {1: "one"})
    for word in ("bg=0", f"{'x' * 65}=1"):
        assert run("dicom-seg", labels[0], series, "-o", tmp_path / "a.dcm", "--segment", word) == 1


def test_without_highdicom_the_remedy_is_named(series, labels, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match="pip install highdicom"):
        write_dicom_seg(tmp_path / "a.dcm", read_labels(labels[0]), series, {1: "organ"})
