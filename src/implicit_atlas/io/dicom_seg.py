"""Masks as DICOM segmentations of the image series that they were drawn on; by highdicom, which is optional."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from implicit_atlas.errors import InputError
from implicit_atlas.io.output import make_folder
from implicit_atlas.io.types import LabelMap
from implicit_atlas.support.files import write_atomic

if TYPE_CHECKING:
    from pydicom import Dataset

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CATEGORY = ("123037004", "SCT", "Anatomical Structure")
TYPE = ("113343008", "SCT", "Organ")


def write_dicom_seg(path: Path, labels: LabelMap, series: Path, names: Mapping[int, str]) -> None:
    """Write labels as one binary DICOM segmentation that refers to a series, on the series' own slices.

    Args:
        path: of the file.
        labels: on the series' grid; its axes may be in another order or reversed.
        series: folder of the DICOM files of one series.
        names: of the label ids that are written, each a segment.

    Raises:
        InputError: highdicom is not installed, the folder does not hold one regular series, the grids differ, or a
            label does not occur.
    """
    hd = _highdicom()
    images = read_series(series)
    for label in names:
        if not (labels.values == label).any():
            raise InputError(labels.path, f"has no voxel of label {label}", "Name labels that occur.")
    try:
        geometry = hd.get_volume_from_series(images)
    except (ValueError, RuntimeError, AttributeError) as error:
        problem = f"is not one regular series ({error})"
        raise InputError(series, problem, "Give the folder of one axial, unbroken series.") from error
    # One volume of segment numbers, however many there are.
    numbers = np.zeros(labels.values.shape, np.min_scalar_type(len(names)))
    for number, label in enumerate(names, start=1):
        numbers[labels.values == label] = number
    uid, remedy = geometry.frame_of_reference_uid, "Write the mask on the series' grid first."
    try:
        whole = hd.Volume(numbers, RAS_TO_LPS @ labels.grid.affine, "PATIENT", uid).match_geometry(geometry)
    except (ValueError, RuntimeError) as error:
        problem = f"is on another grid than the series ({error})"
        raise InputError(labels.path, problem, remedy) from error
    if np.count_nonzero(whole.array) != np.count_nonzero(numbers):
        raise InputError(labels.path, "reaches beyond the series", remedy)
    try:
        with warnings.catch_warnings():  # they repeat the patient's name, which belongs in no log
            warnings.simplefilter("ignore", UserWarning)
            made = _segmentation(hd, images, whole, names)
    except (AttributeError, ValueError, TypeError) as error:  # highdicom's words for what an image lacks
        remedy = "Give the series with the attributes that DICOM asks for; they may be empty."
        raise InputError(series, f"cannot be referred to ({error})", remedy) from error
    # UTF-8: segments may have any name, whatever the series can write.
    made.SpecificCharacterSet = "ISO_IR 192"
    make_folder(path.parent)
    write_atomic(path, lambda partial: made.save_as(partial))


def read_series(folder: Path) -> list[Dataset]:
    """The DICOM images of a folder that holds one series; other files are passed over.

    Raises:
        InputError: no such folder, no image, or those of several series.
    """
    if not folder.is_dir():
        problem = "is no folder" if folder.exists() else "does not exist"
        raise InputError(folder, problem, "Give the folder of one series.")
    _highdicom()
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    images = []
    for path in sorted(folder.iterdir()):
        try:
            image = dcmread(path)
        except (InvalidDicomError, OSError):
            continue
        if "PixelData" in image and "ImagePositionPatient" in image:
            images.append(image)
    series = {str(image.get("SeriesInstanceUID", "")) for image in images}
    if not images:
        raise InputError(
            folder, "holds no DICOM images", "Give the folder in which the files of one series lie."
        )
    if len(series) != 1:
        raise InputError(folder, f"holds images of {len(series)} series", "Give the folder of one series.")
    return images


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        remedy = "Install them: pip install highdicom."
        raise InputError("DICOM", "needs the packages highdicom and pydicom", remedy) from error
    return highdicom


def _segmentation(hd: Any, images: list[Dataset], whole: Any, names: Mapping[int, str]) -> Any:
    algorithm = hd.AlgorithmIdentificationSequence(
        name="implicit-atlas",
        family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=version("implicit-atlas"),
    )
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=hd.sr.CodedConcept(*CATEGORY),
            segmented_property_type=hd.sr.CodedConcept(*TYPE),
            algorithm_type="SEMIAUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(names.values(), start=1)
    ]
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=whole,
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=100,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="implicit-atlas",
        manufacturer_model_name="implicit-atlas",
        software_versions=version("implicit-atlas"),
        device_serial_number="0",
    )
