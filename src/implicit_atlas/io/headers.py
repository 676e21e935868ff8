"""The header of a NIfTI-1 or NIfTI-2 file, checked field by field before a byte of payload is read.

nibabel parses the header's fields; whether they can be true is decided here, because nibabel accepts zero
dimensions, NaN, singular and sheared affines, and matrices that contradict each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Float
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from implicit_atlas.errors import InputError
from implicit_atlas.io.geometry import check_affine, check_agreement, checked_grid
from implicit_atlas.io.payload import DAMAGED_REMEDY
from implicit_atlas.io.voxel_grid import Grid

Header = Nifti1Header | Nifti2Header

MAX_OFFSET_BYTES = 64 * 2**20
"""Largest header with extensions that is believed."""

_REEXPORT = "Export the volume again as NIfTI, for example with nibabel or 3D Slicer."
_ANALYZE_REMEDY = "Convert it to a single .nii.gz: Analyze does not say which side is left."
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_REFUSED_TYPES = {
    1: "1-bit",
    32: "complex",
    128: "RGB",
    1536: "128-bit float",
    1792: "complex",
    2048: "complex",
}
_REFUSED_TYPES |= {2304: "RGBA"}
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
_SIZES = {348: Nifti1Header, 540: Nifti2Header}
_MAGIC = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}
_PAIR_MAGIC = {348: b"ni1\0", 540: b"ni2\0\r\n\x1a\n"}


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a NIfTI header says, once it is believed.

    Args:
        grid: the voxel grid, in RAS mm.
        dtype: the voxels' type with the file's byte order.
        offset: where the payload starts, in bytes of the (decompressed) file.
        slope: factor on the stored values; 1 where the file says 0 or NaN, as the standard asks.
        intercept: added after the factor.
        size: bytes of the header itself, that is what `read_nifti_header` consumed.
        notes: repairs made.
    """

    grid: Grid
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    size: int
    notes: tuple[str, ...]

    @property
    def payload_bytes(self) -> int:
        """Bytes that the voxels take."""
        return math.prod(self.grid.shape) * self.dtype.itemsize


def read_nifti_header(stream: BufferedIOBase, source: Path) -> NiftiHeader:
    """Read and check the header at the start of an open NIfTI file (decompressed where it is compressed).

    Raises:
        InputError: not a single-file NIfTI, or a field that cannot be true.
    """
    block = stream.read(348)
    if block[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        block += stream.read(540 - 348)
    header = _parse(block, source)
    shape = _shape(header, source)
    dtype = _dtype(header, source)
    offset, offset_notes = _offset(header, source)
    slope, intercept = _scaling(header, source)
    affine, affine_notes = _affine(header, shape, source)
    grid = checked_grid(shape, affine, source)
    return NiftiHeader(grid, dtype, offset, slope, intercept, len(block), offset_notes + affine_notes)


def _parse(block: bytes, source: Path) -> Header:
    """Return nibabel's header, once size and magic have said version and byte order."""
    if len(block) < 348:
        raise InputError(source, f"is truncated: {len(block)} bytes are no NIfTI header", DAMAGED_REMEDY)
    for code in "<>":
        size = int(np.frombuffer(block[:4], f"{code}i4")[0])
        if size not in _SIZES or len(block) < size:
            continue
        header = _SIZES[size](block[:size], endianness=code, check=False)
        magic = block[4:12] if size == 540 else block[344:348]
        if magic == _PAIR_MAGIC[size]:
            raise InputError(source, "is one half of a .hdr/.img pair", "Convert it to a single .nii.gz.")
        if size == 348 and not magic.strip(b"\0"):
            raise InputError(source, "is an Analyze header, not NIfTI", _ANALYZE_REMEDY)
        if magic != _MAGIC[size]:
            raise InputError(source, f"has no NIfTI magic (found {magic!r})", _REEXPORT)
        return header
    raise InputError(source, "does not start with a NIfTI header", _REEXPORT)


def _shape(header: Header, source: Path) -> tuple[int, int, int]:
    """Return the three lengths of the volume."""
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7:
        problem = f"header says {dims[0]} dimensions (a wrong byte order gives such numbers)"
        raise InputError(source, problem, _REEXPORT)
    shape = dims[1 : dims[0] + 1]
    if min(shape) < 1:
        raise InputError(source, f"has a dimension that is not positive: {_times(shape)}", _REEXPORT)
    if dims[0] < 3:
        problem = f"has {dims[0]} dimensions ({_times(shape)}), not 3"
        raise InputError(source, problem, "Give a volume; a single slice is one of n x m x 1 voxels.")
    if any(n > 1 for n in shape[3:]):
        problem = f"has {dims[0]} dimensions ({_times(shape)}), not 3"
        raise InputError(source, problem, "Save each volume of the series to a file of its own.")
    return shape[0], shape[1], shape[2]


def _dtype(header: Header, source: Path) -> np.dtype:
    """Return the voxels' type with its byte order."""
    code = int(header["datatype"])
    if code in _REFUSED_TYPES:
        problem = f"has {_REFUSED_TYPES[code]} voxels, which are no labels"
        raise InputError(source, problem, "Save the segmentation as an integer label map.")
    if code not in _TYPES:
        raise InputError(source, f"has an unknown datatype code {code}", _REEXPORT)
    return np.dtype(_TYPES[code]).newbyteorder(header.endianness)


def _offset(header: Header, source: Path) -> tuple[int, tuple[str, ...]]:
    """Return where the payload starts, and a note where 0 had to be read as the first possible byte."""
    lowest = 544 if isinstance(header, Nifti2Header) else 352
    offset = float(header["vox_offset"])
    if offset == 0:
        return lowest, (f"vox_offset 0 was read as {lowest}",)
    if not (math.isfinite(offset) and offset == int(offset) and lowest <= offset <= MAX_OFFSET_BYTES):
        raise InputError(source, f"vox_offset {offset:g} is no possible start of the voxels", _REEXPORT)
    return int(offset), ()


def _scaling(header: Header, source: Path) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means that there is none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        problem = f"scl_slope {slope:g} with scl_inter {intercept:g} scales no voxel to a number"
        raise InputError(source, problem, _REEXPORT)
    return slope, intercept


def _affine(header: Header, shape: tuple[int, int, int], source: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the voxel-to-RAS matrix in mm: the sform where there is one, else the qform."""
    sform = np.asarray(header.get_sform(), np.float64) if int(header["sform_code"]) > 0 else None
    if sform is not None:
        check_affine(sform, source)
    qform = _qform(header, source) if int(header["qform_code"]) > 0 else None
    if sform is None and qform is None:
        affine = _affine_without_code(header, shape, source)
        notes = ("neither qform nor sform is set: the first axis is taken to point to the left",)
    elif sform is None:
        affine, notes = qform, ()
    else:
        affine, notes = sform, _sform_notes(header, qform, sform, source)
    return _in_mm(header, np.array(affine), notes)


def _qform(header: Header, source: Path) -> Float[np.ndarray, "4 4"]:
    """Return the qform's matrix, checked."""
    pixdim = np.asarray(header["pixdim"], np.float64)
    corrected = header.copy()
    # The standard reads any qfac but -1 as 1, and 0 occurs in old files; nibabel insists on -1 or 1.
    corrected["pixdim"][0] = -1 if pixdim[0] < 0 else 1
    if not (np.isfinite(pixdim[1:4]).all() and (pixdim[1:4] > 0).all()):
        raise InputError(source, f"voxel size {_times(pixdim[1:4])} is not positive", _REEXPORT)
    quaternion = [float(header[f"quatern_{letter}"]) for letter in "bcd"]
    try:
        if not np.isfinite(quaternion).all():
            raise ValueError("quaternion is not finite")
        qform = np.asarray(corrected.get_qform(), np.float64)
    except (ValueError, HeaderDataError) as error:
        raise InputError(source, f"its qform is no rotation ({error})", _REEXPORT) from error
    check_affine(qform, source)
    return qform


def _sform_notes(
    header: Header, qform: np.ndarray | None, sform: np.ndarray, source: Path
) -> tuple[str, ...]:
    """Hold the sform against the qform, or against pixdim where there is no qform."""
    if qform is not None:
        return check_agreement(qform, sform, source)
    pixdim = np.asarray(header["pixdim"][1:4], np.float64)
    spacing_mm = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.allclose(pixdim, spacing_mm, rtol=0.01):
        return (f"voxel size is {_times(spacing_mm)} by the sform, {_times(pixdim)} by pixdim; sform used",)
    return ()


def _affine_without_code(header: Header, shape: tuple[int, int, int], source: Path) -> np.ndarray:
    """Return what nibabel takes where no matrix is given: LAS axes, the volume's centre at the origin."""
    spacing = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(source, f"voxel size {_times(spacing)} is not positive", _REEXPORT)
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _in_mm(header: Header, affine: np.ndarray, notes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Scale an affine that is in metres or micrometres to mm."""
    unit = int(header["xyzt_units"]) & 7
    if unit not in _MM_PER_UNIT:
        return affine, notes
    affine[:3] *= _MM_PER_UNIT[unit]
    return affine, (*notes, f"its geometry is in {_UNIT_NAMES[unit]} and was converted to mm")


def _times(numbers: list[int] | np.ndarray) -> str:
    """Write lengths as "a x b x c"."""
    return " x ".join(f"{number:g}" for number in numbers)
