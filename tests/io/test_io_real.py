"""Real masks and surfaces: read as nibabel and vtk read them, written, and read again."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from vtkmodules.vtkFiltersCore import vtkMassProperties
from vtkmodules.vtkIOLegacy import vtkPolyDataReader

from implicit_atlas.errors import InputError
from implicit_atlas.io import label_ids, list_cases, read_labels, read_mask, read_mesh, write_mask, write_mesh
from implicit_atlas.shapes.fingerprint import fingerprint

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ORGANS = ["hippocampus", "liver", "pancreas", "kidney", "kidney_multilabel", "prostate"]

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")]


def some(organ: str, count: int = 6) -> list[Path]:
    cases = list_cases(DATA / organ / "masks")
    return cases[:: max(1, len(cases) // count)][:count]


@pytest.mark.parametrize("organ", ORGANS)
def test_masks_are_what_nibabel_reads(organ: str) -> None:
    for path in some(organ):
        mask, image = read_mask(path), nibabel.load(path)
        np.testing.assert_array_equal(mask.occupancy, np.asarray(image.dataobj) > 0)
        np.testing.assert_array_equal(mask.grid.affine, image.affine)
        assert mask.dtype == image.get_data_dtype() and mask.notes == ()


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("organ", ORGANS)
def test_masks_survive_a_round_trip(tmp_path: Path, organ: str, suffix: str) -> None:
    for path in some(organ, 2):
        mask = read_mask(path)
        write_mask(tmp_path / f"a{suffix}", mask.occupancy, mask.grid, mask.dtype)
        again = read_mask(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(again.occupancy, mask.occupancy)
        assert again.grid.same_as(mask.grid, 1e-4) and again.dtype == mask.dtype and again.notes == ()


def test_organs_of_a_whole_abdomen_by_id() -> None:
    for path in list_cases(DATA / "multilabel"):
        labels = read_labels(path)
        assert label_ids(labels.values) == tuple(range(1, 17))
        volume_ml = {
            name: read_mask(path, (label,)).occupancy.sum() * labels.grid.voxel_volume_mm3 / 1000
            for name, label in (("liver", 1), ("spleen", 2), ("pancreas", 8))
        }
        assert 800 < volume_ml["liver"] < 2500
        assert 50 < volume_ml["spleen"] < 600 and 20 < volume_ml["pancreas"] < 200
        with pytest.raises(InputError, match="it has labels 1, 2, 3"):
            read_mask(path, (40,))


def test_kidneys_with_and_without_tumour_and_cyst() -> None:
    for path in some("kidney_multilabel"):
        labels = read_labels(path)
        everything = read_mask(path, (1, 2, 3))
        np.testing.assert_array_equal(everything.occupancy, labels.values > 0)
        absent = sorted({1, 2, 3} - set(label_ids(labels.values)))
        assert bool(everything.notes) == bool(absent)
        np.testing.assert_array_equal(read_mask(path, (1,)).occupancy, labels.values == 1)


def test_spleen_surfaces(tmp_path: Path) -> None:
    for path in list_cases(DATA / "meshes"):
        reader = vtkPolyDataReader()
        reader.SetFileName(str(path))
        properties = vtkMassProperties()
        properties.SetInputConnection(reader.GetOutputPort())
        mesh, mask = read_mesh(path), read_mask(path)
        assert mesh.notes == ("it names no space: left-posterior-superior is taken",)
        assert mesh.volume_mm3 == pytest.approx(properties.GetVolume(), rel=1e-5)
        assert mask.occupancy.sum() * mask.grid.voxel_volume_mm3 == pytest.approx(mesh.volume_mm3, rel=5e-3)
        for suffix in (".stl", ".ply", ".obj", ".vtp"):
            write_mesh(tmp_path / f"a{suffix}", mesh)
            again = read_mesh(tmp_path / f"a{suffix}")
            assert again.notes == () and again.volume_mm3 == pytest.approx(mesh.volume_mm3, rel=1e-4)


def test_the_whole_hippocampus_folder() -> None:
    found = fingerprint(DATA / "hippocampus" / "masks")
    assert len(found.cases) == 221 and found.problems == ()
    assert all(case.label_ids == (1, 2) and case.orientation == "RAS" for case in found.cases)
    assert 1.5 < np.median([case.volume_ml for case in found.cases]) < 5
