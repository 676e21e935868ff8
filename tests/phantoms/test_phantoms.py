"""Phantoms: known volume, landmarks and correspondence; deterministic; varied; artefacts on top."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from nibabel import Nifti1Image
from nibabel.affines import apply_affine
from scipy.ndimage import zoom
from scipy.spatial import KDTree

from implicit_atlas.errors import InputError
from implicit_atlas.phantoms import (
    FAMILIES,
    Phantom,
    PhantomConfig,
    make_phantom,
    make_phantoms,
    write_phantoms,
)
from implicit_atlas.phantoms.solids import ANGLES, RINGS, solid_faces

every_family = pytest.mark.parametrize("family", FAMILIES)


def box_cube(phantom: Phantom, resolution: int = 24) -> np.ndarray:
    """The organ's box stretched to a cube."""
    where = np.argwhere(phantom.mask.occupancy)
    box = phantom.mask.occupancy[tuple(map(slice, where.min(0), where.max(0) + 1))].astype(float)
    return np.asarray(zoom(box, resolution / np.array(box.shape), order=1)) > 0.5


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def in_voxels(phantom: Phantom, points_mm: np.ndarray) -> np.ndarray:
    return apply_affine(np.linalg.inv(phantom.mask.grid.affine), points_mm)


@every_family
@pytest.mark.parametrize("seed", range(4))
def test_mask_has_the_known_volume(family, seed):
    phantom = make_phantom(family, seed, PhantomConfig(orientation="random"))
    measured = phantom.mask.occupancy.sum() * phantom.mask.grid.voxel_volume_mm3
    assert measured == pytest.approx(phantom.volume_mm3, rel=0.02)


@every_family
def test_surface_separates_inside_from_outside(family):
    """Half a voxel diagonal further in along the normal is occupied, as far out is empty."""
    phantom = make_phantom(family, 1, PhantomConfig(voxels=64, anisotropy=1, orientation="random"))
    corners = phantom.vertices_mm[phantom.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    step = 0.9 * phantom.mask.grid.spacing_mm.max() * normals
    for sign, inside in ((-1, True), (1, False)):
        voxels = np.rint(in_voxels(phantom, corners.mean(axis=1) + sign * step)).astype(int)
        assert (phantom.mask.occupancy[tuple(voxels.T)] == inside).mean() > 0.98


@every_family
def test_vertices_and_landmarks_lie_on_the_border_of_the_mask(family):
    phantom = make_phantom(family, 2)
    occupancy = np.pad(phantom.mask.occupancy, 1)
    border = occupancy.copy()
    for axis in range(3):
        border &= np.roll(occupancy, 1, axis) & np.roll(occupancy, -1, axis)
    border_mm = apply_affine(phantom.mask.grid.affine, np.argwhere(occupancy & ~border) - 1)
    tree = KDTree(border_mm)
    voxel_diagonal_mm = np.linalg.norm(phantom.mask.grid.spacing_mm)
    assert tree.query(phantom.vertices_mm)[0].max() < voxel_diagonal_mm
    assert tree.query(phantom.landmarks_mm)[0].max() < voxel_diagonal_mm
    assert len(phantom.landmark_names) == len(phantom.landmarks_mm) == len(set(phantom.landmark_names))
    assert KDTree(phantom.vertices_mm).query(phantom.landmarks_mm)[0].max() == 0


@every_family
def test_correspondence_is_consistent_within_a_family(family):
    phantoms = make_phantoms(family, 4, seed=5)
    for phantom in phantoms:
        assert phantom.vertices_mm.shape == (RINGS * ANGLES + 2, 3)
        assert phantom.landmark_names == phantoms[0].landmark_names
        assert phantom.faces is phantoms[0].faces
    average = make_phantom(family, 0, PhantomConfig(variability=0, oblique_degrees=0)).vertices_mm
    for phantom in phantoms:
        # After the best rotation and scale, corresponding vertices are far closer than the organ is long.
        a, b = (v - v.mean(axis=0) for v in (average, phantom.vertices_mm))
        u, s, vt = np.linalg.svd(b.T @ a)
        aligned = b @ (u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt) * s.sum() / (b**2).sum()
        assert np.linalg.norm(aligned - a, axis=1).mean() < 0.1 * np.ptp(a, axis=0).max()


def test_surface_is_closed_and_oriented_outward():
    faces = solid_faces()
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)
    assert {tuple(edge) for edge in edges} == {tuple(edge) for edge in edges[:, ::-1]}
    phantom = make_phantom("two-lobe", 0)
    assert phantom.surface.volume_mm3 == phantom.volume_mm3 > 0


@every_family
def test_surfaces_do_not_cut_themselves(family):
    """The organ's volume by its surface, which counts folds twice or negative, is that of its fine voxels."""
    for seed in range(10):
        phantom = make_phantom(family, seed, PhantomConfig(voxels=100, anisotropy=1, variability=1.5))
        measured = phantom.mask.occupancy.sum() * phantom.mask.grid.voxel_volume_mm3
        assert measured == pytest.approx(phantom.volume_mm3, rel=0.005)


@every_family
def test_deterministic_in_the_seed(family):
    first, second, other = (make_phantom(family, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.mask.occupancy, second.mask.occupancy)
    np.testing.assert_array_equal(first.vertices_mm, second.vertices_mm)
    assert first.mask.grid.same_as(second.mask.grid)
    assert (
        first.mask.occupancy.shape != other.mask.occupancy.shape
        or (first.mask.occupancy != other.mask.occupancy).any()
    )
    short, long = make_phantoms(family, 2, seed=3), make_phantoms(family, 3, seed=3)
    np.testing.assert_array_equal(short[1].vertices_mm, long[1].vertices_mm)
    assert [phantom.name for phantom in long] == [f"{family}-{i:03d}" for i in range(3)]


@every_family
def test_variability_is_that_of_organs(family):
    cubes = [box_cube(phantom) for phantom in make_phantoms(family, 10)]
    pairwise = np.mean([dsc(a, b) for a, b in combinations(cubes, 2)])
    assert 0.6 < pairwise < 0.95


def test_families_differ_more_than_their_members():
    cubes = {family: [box_cube(phantom) for phantom in make_phantoms(family, 6)] for family in FAMILIES}
    within = np.mean([dsc(a, b) for family in cubes.values() for a, b in combinations(family, 2)])
    between = [dsc(a, b) for one, other in combinations(cubes.values(), 2) for a in one for b in other]
    assert np.mean(between) < within - 0.05


def test_without_variability_every_seed_gives_the_average_organ():
    config = PhantomConfig(variability=0, oblique_degrees=0)
    first, second = (make_phantom("two-lobe", seed, config).vertices_mm for seed in (1, 2))
    np.testing.assert_allclose(first - first.mean(axis=0), second - second.mean(axis=0), atol=1e-9)


def test_grids_vary_in_spacing_tilt_and_orientation():
    phantoms = make_phantoms("two-lobe", 6, config=PhantomConfig(orientation="random"))
    grids = [phantom.mask.grid for phantom in phantoms]
    assert len({grid.orientation for grid in grids}) > 3
    assert len({tuple(grid.spacing_mm.round(3)) for grid in grids}) == 6
    assert all((np.abs(grid.affine[:3, :3] / grid.spacing_mm) < 1 - 1e-6).all() for grid in grids)
    fixed = make_phantoms("two-lobe", 3, config=PhantomConfig(orientation="RAS", oblique_degrees=15))
    assert {phantom.mask.grid.orientation for phantom in fixed} == {"RAS"}


def test_the_array_holds_the_same_organ_at_any_tilt():
    straight, tilted = (
        make_phantom("bulb-tube", 4, PhantomConfig(oblique_degrees=degrees)) for degrees in (0, 30)
    )
    assert (straight.mask.occupancy != tilted.mask.occupancy).mean() < 1e-3
    assert straight.volume_mm3 == pytest.approx(tilted.volume_mm3)


def test_label_noise_moves_the_border_only():
    clean, noisy = (make_phantom("two-lobe", 3, PhantomConfig(label_noise_voxels=s)) for s in (0, 1.0))
    np.testing.assert_array_equal(noisy.clean_mask.occupancy, clean.mask.occupancy)
    assert noisy.volume_mm3 == clean.volume_mm3
    changed = noisy.mask.occupancy != noisy.clean_mask.occupancy
    assert 0.85 < dsc(noisy.mask.occupancy, noisy.clean_mask.occupancy) < 0.99
    inner = noisy.clean_mask.occupancy.copy()
    for _ in range(5):
        for axis in range(3):
            inner &= np.roll(inner, 1, axis) & np.roll(inner, -1, axis)
    assert inner.any()
    assert not (changed & inner).any()


def test_merged_slices_share_one_outline():
    occupancy = make_phantom("curved-tube", 3, PhantomConfig(merged_slices=3)).mask.occupancy
    whole = occupancy.shape[2] // 3 * 3
    stacks = occupancy[..., :whole].reshape(*occupancy.shape[:2], -1, 3)
    assert (stacks == stacks[..., :1]).all()


def test_crop_removes_the_stated_part_of_the_extent():
    phantom = make_phantom("two-lobe", 6, PhantomConfig(crop=0.25))
    kept, full = phantom.mask.occupancy, phantom.clean_mask.occupancy
    assert not (kept & ~full).any()
    lengths = np.array([[m.any(axis=axes).sum() for axes in ((1, 2), (0, 2), (0, 1))] for m in (kept, full)])
    assert (lengths[0] / lengths[1]).min() == pytest.approx(0.75, abs=0.04)


def test_written_data_set_reads_back(tmp_path):
    config = PhantomConfig(voxels=24, label_noise_voxels=0.7)
    paths = write_phantoms(tmp_path / "set", "curved-tube", 2, seed=1, config=config)
    phantoms = make_phantoms("curved-tube", 2, seed=1, config=config)
    records = json.loads((tmp_path / "set" / "truth" / "phantoms.json").read_text())
    for path, phantom, record in zip(paths, phantoms, records, strict=True):
        image = Nifti1Image.from_filename(path)
        np.testing.assert_array_equal(np.asarray(image.dataobj) > 0, phantom.mask.occupancy)
        np.testing.assert_allclose(np.asarray(image.affine, float), phantom.mask.grid.affine, atol=1e-4)
        clean = Nifti1Image.from_filename(path.parent / "truth" / "clean" / path.name)
        np.testing.assert_array_equal(np.asarray(clean.dataobj) > 0, phantom.clean_mask.occupancy)
        assert record["volume_mm3"] == phantom.volume_mm3
        np.testing.assert_array_equal(list(record["landmarks_ras_mm"].values()), phantom.landmarks_mm)
    with np.load(tmp_path / "set" / "truth" / "correspondence.npz") as truth:
        np.testing.assert_array_equal(truth["vertices_mm"][1], phantoms[1].vertices_mm)
        assert truth["names"].tolist() == [phantom.name for phantom in phantoms]


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_phantom("spleen", 0),
        lambda: make_phantom("two-lobe", -1),
        lambda: make_phantoms("two-lobe", 0),
        lambda: make_phantoms("spleen", 1),
        lambda: PhantomConfig(crop=1.0),
        lambda: PhantomConfig(voxels=4),
        lambda: PhantomConfig(label_noise_voxels=float("nan")),
        lambda: PhantomConfig(orientation="RAL"),
    ],
)
def test_senseless_arguments_are_refused(call):
    with pytest.raises(InputError):
        call()
