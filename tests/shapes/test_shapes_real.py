"""Real masks: preparation equals the paper's protocol, and comes back to the original grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from implicit_atlas.geometry.frame import bounding_box
from implicit_atlas.io import list_cases, read_mask, write_mask
from implicit_atlas.shapes.shape import prepare, restore
from implicit_atlas.shapes.store import load_shapes, open_store, prepare_folder

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")]


def masks(organ, count):
    paths = list_cases(DATA / organ / "masks")
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).astype(int)]


def dsc(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("organ", ["hippocampus", "liver", "pancreas", "kidney", "prostate"])
def test_the_cube_is_scipy_s_and_goes_back_to_the_grid(organ, tmp_path):
    for path in masks(organ, 2):
        mask = read_mask(path)
        box = mask.grid.to_canonical(mask.occupancy)[bounding_box(mask.occupancy, mask.grid)]
        expected = ndimage.zoom(box.astype(float), [128 / n for n in box.shape], order=3) > 0.5
        shape = prepare(mask)
        assert (shape.occupancy == expected).mean() >= 0.9999
        restored = restore(shape)
        assert dsc(restored, mask.occupancy) >= 0.98
        write_mask(tmp_path / "back.nii.gz", restored, shape.frame.grid, np.dtype(shape.dtype))
        back = read_mask(tmp_path / "back.nii.gz")
        assert back.grid.same_as(mask.grid) and back.dtype == mask.dtype
        assert np.array_equal(back.occupancy, restored)


def test_one_organ_of_a_whole_abdomen():
    mask = read_mask(DATA / "multilabel" / "word_0014.nii.gz", (1,))
    for kind, margin in (("box", 0.0), ("isotropic", 0.1)):
        shape = prepare(mask, 128, margin, kind)
        restored = restore(shape)
        assert restored.shape == mask.occupancy.shape
        assert dsc(restored, mask.occupancy) >= 0.97


def test_a_surface_is_a_mask_like_any_other():
    shape = load_shapes(DATA / "meshes" / "spleen_17.vtk", resolution=64)[0]
    mask = read_mask(DATA / "meshes" / "spleen_17.vtk")
    assert dsc(restore(shape), mask.occupancy) >= 0.97


def test_a_real_folder_goes_into_a_store(tmp_path):
    paths = masks("hippocampus", 12)
    report = prepare_folder(paths, tmp_path / "store")
    assert len(report.prepared) == 12 and not report.quarantined
    assert prepare_folder(paths, tmp_path / "store").reused == report.prepared
    for shape, path in zip(open_store(tmp_path / "store"), paths, strict=True):
        assert np.array_equal(shape.packed, prepare(read_mask(path)).packed)
