"""The measured uses: what is shown of a mask, what one would use instead, and the page of results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from atlas_samples import FIT, dsc, phantom_shapes, tiny_atlas
from experiments import applications, calibration, gallery, generation, parts, uses_page
from experiments.cells import observed
from experiments.peers import others

from implicit_atlas.completion.drawn_slices import drawn_slices
from implicit_atlas.completion.observe import CLICK_MM, from_mask
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.io import Mask, find_cases, read_mask
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.phantoms import PhantomConfig, write_phantoms
from implicit_atlas.shapes.shape import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    write_phantoms(folder, "two-lobe", 3, config=PhantomConfig(voxels=24))
    return folder


@pytest.fixture(scope="module")
def mask(folder):
    return read_mask(find_cases(folder).paths[0])


def test_slices_and_parts_show_less_of_the_same(mask):
    axis, planes = applications.long_axis(mask)
    kept, chosen = applications.kept_slices(mask, 5)
    assert set(chosen) <= set(planes) and len(chosen) == 5
    assert (kept.occupancy & ~mask.occupancy).sum() == 0
    ((found_axis, found),) = drawn_slices(kept).items()
    assert found_axis == axis and found.tolist() == chosen.tolist()
    shares = [observed.cut_off(mask, percent).occupancy.sum() for percent in applications.CUT]
    assert mask.occupancy.sum() > shares[0] > shares[1] > shares[2] > 0


def test_an_unfinished_mask_is_the_part_and_its_volume_goes_on(mask):
    cut, left = (applications.TASKS[name][0](mask, 30) for name in ("cut off", "unfinished"))
    assert cut.drawn is not None and left.drawn is not None
    np.testing.assert_array_equal(left.others["the part alone"], left.drawn.mask.occupancy)
    np.testing.assert_array_equal(left.others["the part alone"], cut.others["the part alone"])
    missing = mask.occupancy & ~left.drawn.mask.occupancy
    assert left.drawn.observed.shape == mask.grid.shape and not left.drawn.observed[missing].any()


def test_a_part_whose_end_is_not_told_is_taken_for_the_whole(mask, monkeypatch):
    monkeypatch.setattr("implicit_atlas.completion.observe.cut_ends", lambda *_: [])
    left = applications.by_unfinished(mask, 30)
    assert left.drawn is not None and left.drawn.observed.all()


def test_only_annotated_slices_are_observed(mask):
    kept, chosen = applications.kept_slices(mask, 3)
    seen = from_mask(kept, "slices", "some")
    axis = applications.long_axis(mask)[0]
    voxels = (seen.points - mask.grid.affine[:3, 3]) @ np.linalg.inv(mask.grid.affine[:3, :3]).T
    assert set(np.rint(voxels[:, axis]).astype(int)) == set(chosen)
    inside = kept.occupancy[tuple(np.rint(voxels).astype(int).T)]
    assert np.array_equal(inside, seen.occupancy == 1) and inside.any() and not inside.all()


def test_the_gap_between_two_pieces_is_no_slice_left_out():
    """Of a pair of kidneys every second slice was drawn; what lies between the two is not."""
    pair = np.zeros((40, 20, 20), bool)
    pair[2:14, 4:16, 2:18] = pair[26:38, 4:16, 2:18] = True
    drawn = pair.copy()
    drawn[:, :, 1::2] = False
    grid = Grid(pair.shape, np.eye(4))
    ((axis, planes),) = drawn_slices(Mask(drawn, grid, Path("pair.nii.gz"), (), np.dtype(np.uint8))).items()
    assert axis == 2 and planes.tolist() == list(range(2, 18, 2))
    with pytest.raises(InputError, match="slices left out"):
        drawn_slices(Mask(pair, grid, Path("pair.nii.gz"), (), np.dtype(np.uint8)))


def test_interpolated_slices_keep_those_that_were_drawn(mask):
    axis, planes = applications.long_axis(mask)
    all_of_them = others.shape_based(mask, planes, axis)
    assert np.array_equal(all_of_them, mask.occupancy)
    kept, chosen = applications.kept_slices(mask, 6)
    found = others.shape_based(kept, chosen, axis)
    assert np.array_equal(np.moveaxis(found, axis, 0)[chosen], np.moveaxis(mask.occupancy, axis, 0)[chosen])
    assert dsc(found, mask.occupancy) > 0.75


def test_a_spline_through_many_clicks_is_the_organ(mask):
    seen = observed.clicks(mask, 1024)
    assert len(seen.points) == 1024 and dsc(others.smooth_function(seen, mask), mask.occupancy) > 0.8


def test_components_in_the_true_box_complete_what_they_have_learned(folder, mask):
    known = [read_mask(path) for path in find_cases(folder).paths]
    components = others.BoxedComponents([prepare(mask) for mask in known])
    assert len(components.model.deviation) == len(known) - 1
    found = components.complete(observed.clicks(mask, 256), mask)
    assert found.shape == mask.grid.shape and dsc(found, mask.occupancy) > 0.9


def test_clicks_on_the_boundary_lie_there_and_say_no_more(mask):
    seen = applications.boundary_clicks(mask, 200)
    voxels = (seen.points - mask.grid.affine[:3, 3]) @ np.linalg.inv(mask.grid.affine[:3, :3]).T
    nearest = np.rint(voxels).astype(int)
    around = nearest[:, None] + np.indices((3, 3, 3)).reshape(3, -1).T - 1
    labels = mask.occupancy[tuple(np.moveaxis(around, -1, 0))]
    assert len(voxels) == 200 and labels.any(1).all() and not labels.all(1).any()
    assert (seen.occupancy == 0.5).all() and (seen.spreads == CLICK_MM).all()
    sides = np.sign(seen.points - seen.points.mean(0))
    assert len(np.unique(sides, axis=0)) == 8  # on all sides of it


def test_points_in_a_box_keep_how_near_to_the_boundary_they_are(mask):
    frame = prepare(mask).frame
    boxed = others.in_box(applications.boundary_clicks(mask, 50), frame)
    size_mm = frame.lattice_spacing_mm * frame.resolution
    assert np.allclose(boxed.spreads, 2 * CLICK_MM / size_mm.mean()) and (np.abs(boxed.points) < 1).all()


def test_components_pass_through_clicks_on_the_boundary(folder, mask):
    components = others.BoxedComponents([prepare(read_mask(path)) for path in find_cases(folder).paths])
    found = components.complete(applications.boundary_clicks(mask, 256), mask)
    assert dsc(found, mask.occupancy) > 0.9


def test_surfaces_through_many_clicks_are_the_organ(mask):
    pytest.importorskip("open3d", exc_type=ImportError)
    told = applications.by_boundary(mask, 1024)
    assert list(told.others) == ["radial basis functions", "Poisson surface"]
    assert all(dsc(found, mask.occupancy) > 0.9 for found in told.others.values())


def test_surfaces_through_clicks_need_a_package_and_say_which(mask, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(InputError, match="pip install open3d-cpu"):
        applications.by_boundary(mask, 64)


def test_every_task_is_explained():
    assert set(uses_page.HOW) == set(applications.TASKS)


def test_results_become_a_page(mask, tmp_path, monkeypatch):
    monkeypatch.setattr(applications, "TASKS", {"clicks": (applications.by_clicks, (30,), "points")})
    monkeypatch.setattr(uses_page, "TASKS", applications.TASKS)
    monkeypatch.setattr(applications, "known_shapes", lambda atlas, folder: [prepare(mask), prepare(mask)])
    found = applications.run_completion(tiny_atlas(), [mask], lambda text: None)
    about = {
        "organ": "phantom",
        "cases": 1,
        "training_shapes": 6,
        "steps": 150,
        "seed": 0,
        "degrees_of_freedom": 9,
        "device": "cpu",
        "seconds": 1.0,
        "margin": 0.05,
        "every": 1,
    }
    (tmp_path / "applications-phantom.json").write_text(json.dumps({"about": about, "completion": found}))
    page = uses_page.filled("first\n<!-- measured: completion -->\nbefore it\n<!-- end -->\nlast\n", tmp_path)
    assert "| 30 |" in page and "radial basis functions" in page and "**Phantom.**" in page
    assert page.startswith("first\n") and page.endswith("\nlast\n") and "before it" not in page
    assert uses_page.filled(page, tmp_path) == page
    assert "Not measured" in uses_page.section("parts", tmp_path)


def test_parts_of_a_case_are_found_in_itself(folder):
    paths = find_cases(folder).paths[:2]
    alike = parts.Alike(tiny_atlas(), local=False)
    known = list(alike.fits(paths))
    found = parts.carried(alike, known, known)
    assert not alike.problems and set(found) == {"1", "3", "5"}
    for way in ("template", "affine", "nearest shape"):
        assert found["1"][0][way][0] == 100  # of a mask with one label, that label


def test_the_gallery_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "RESOLUTION", 48)
    shapes = list(phantom_shapes(6)[4:])
    fits = tiny_atlas().fit(shapes, FIT)
    gallery.reconstruction(tiny_atlas(), shapes, fits, tmp_path / "a.png")
    gallery.templates_and_made(tiny_atlas(), tmp_path / "b.png")
    gallery.correspondence(tiny_atlas(), shapes, tmp_path / "c.png")
    gallery.write_page(tmp_path)
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in "abc")
    assert "Gallery" in (tmp_path / "gallery.md").read_text()


def ball_of(radius: float, side: int = 64) -> SimpleNamespace:
    """A draw that is a ball, in a cube that is the world."""
    middle = (np.arange(side) * 2 + 1) / side - 1
    affine = np.diag([2 / side, 2 / side, 2 / side, 1.0])
    affine[:3, 3] = middle[0]
    frame = Frame(Grid((side, side, side), affine), np.zeros(3), np.ones(3), side, "box", 0.0)
    nodes = np.stack(np.meshgrid(middle, middle, middle, indexing="ij"), axis=-1)
    return SimpleNamespace(values=radius - np.linalg.norm(nodes, axis=-1), placed=lambda: frame)


def test_the_true_surface_is_covered_where_draws_differ_and_not_where_they_agree():
    balls = tuple(ball_of(radius) for radius in (0.5, 0.6, 0.7))
    draws = SimpleNamespace(draws=balls, field_of=lambda draw: draw.values)
    truth = np.array([[0.4, 0, 0], [0, 0.65, 0], [0, 0, 0.8], [0.55, 0, 0]])
    assert calibration.covered(draws, truth).tolist() == [False, True, False, True]


def test_measured_calibration_becomes_a_table(mask, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "DRAWS", 3)
    monkeypatch.setattr(calibration, "TASKS", {"half": calibration.by_part, "64": calibration.by_clicks})
    found = calibration.measure(tiny_atlas(), [mask], lambda text: None)
    for task, rows in found.items():
        for row in rows:
            assert 0 <= row["covered seen"] <= 100 and row["spread seen"] > 0
            assert (row["covered unseen"] is None) is (task == "64")
    about = dict.fromkeys(
        ("cases", "training_shapes", "steps", "seed", "degrees_of_freedom", "seconds", "every", "margin"), 1
    )
    about |= {"organ": "phantom", "draws": 3, "device": "cpu"}
    (tmp_path / "calibration-phantom.json").write_text(json.dumps({"about": about, "calibration": found}))
    page = uses_page.section("calibration", tmp_path)
    assert "| half |" in page and "| 64 |" in page and page.count("→") > 2


def test_voxels_are_counted_by_the_share_of_shapes_that_hold_them():
    """Of ten voxels five shapes hold as many each as they have numbers; truth is those that three or more hold."""
    said = (np.arange(10).reshape(10, 1, 1) % 6) / 5
    mask = SimpleNamespace(grid=None, occupancy=said >= 0.6)
    voxels = calibration.held_voxels(SimpleNamespace(probability_on=lambda grid: said), mask)
    assert voxels == {
        "none": 0,
        "to 20 %": [2, 0.4, 0],
        "to 40 %": [2, 0.8, 0],
        "to 60 %": [2, 1.2, 2],
        "to 80 %": [1, 0.8, 1],
        "below 100 %": [0, 0.0, 0],
        "100 %": [1, 1.0, 1],
    }
    cells = calibration.said_and_true([{"voxels": voxels}, {"voxels": voxels | {"none": 8}}])
    assert cells == ["20 → 0", "40 → 0", "60 → 100", "80 → 100", "-", "100 → 100", "50.0"]


def test_what_was_seen_is_told_by_the_slices(mask):
    axis, planes = applications.long_axis(mask)
    voxel = np.zeros((2, 3))
    voxel[:, axis] = planes[0], planes[-1]
    first, last = voxel @ mask.grid.affine[:3, :3].T + mask.grid.affine[:3, 3]
    _, seen = calibration.by_part(mask)
    assert seen(np.stack([first, last])).tolist() == [True, False]
    _, seen = calibration.by_slices(mask)
    _, chosen = applications.kept_slices(mask, 3)
    voxel[:, axis] = chosen[0], (chosen[0] + chosen[1]) / 2
    points = voxel @ mask.grid.affine[:3, :3].T + mask.grid.affine[:3, 3]
    assert seen(points).tolist() == [True, chosen[1] - chosen[0] <= 2]


def test_shapes_are_compared_by_their_bits():
    rng = np.random.default_rng(0)
    shapes = rng.random((3, 8, 8, 8)) > 0.6
    packed = np.stack([np.packbits(shape) for shape in shapes])
    found = generation.pairwise_dsc(packed[:2], packed)
    for i, j in np.ndindex(2, 3):
        assert found[i, j] == pytest.approx(100 * dsc(shapes[i], shapes[j]))


def test_the_area_in_excess_is_least_for_a_ball():
    at = np.indices((40, 40, 40)) - 19.5
    ball, plate = np.square(at).sum(0) < 15**2, np.abs(at[0]) < 3
    assert 1 < generation.excess_area(ball) < 1.15 < generation.excess_area(plate)


def test_random_shapes_are_described_beside_principal_components(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "COUNT", 3)
    shapes = phantom_shapes(5)
    found = generation.compare(tiny_atlas(), shapes[:3], shapes[3:], lambda text: None)
    assert "nearest to unseen shapes" not in found["real"] and "ours, temperature 0.8" in found
    components = found["2 principal components, temperature 1.0"]
    assert 0 < components["nearest training shape"] <= 100 and components["excess area"] > 1
    about = dict.fromkeys(("made", "cases", "training_shapes", "steps", "seed"), 1)
    about |= {"organ": "phantom", "device": "cpu", "margin": 0.0}
    real, ours = (found[way]["volume ml"] for way in ("real", "ours, temperature 0.8"))
    assert 0.3 * real < ours < 3 * real and "volume ml" not in components
    (tmp_path / "generation-phantom.json").write_text(json.dumps({"about": about, "generation": found}))
    assert "| 2 principal components, temperature 1.0 |" in uses_page.section("generation", tmp_path)
