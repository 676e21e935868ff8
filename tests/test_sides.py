"""Organs of the other side: found, and fitted, completed and compared mirrored, where they are."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from atlas_samples import FIT, RESOLUTION, phantom_shapes, tiny_atlas, tiny_model, tiny_training
from commands import run
from scipy.ndimage import binary_dilation
from scipy.spatial import KDTree

from implicit_atlas.completion.completion import complete
from implicit_atlas.completion.mirrored import OTHER_SIDE, OWN_SIDE, UNSURE
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.io import Mask, Mesh, read_mask, read_stored, write_mask, write_mesh
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.repair.annotations import repair
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.shapes.shape import Shape, prepare, restore
from implicit_atlas.sides import check_mirror, has_side, side_ratio, sided
from implicit_atlas.statistics.files import corresponding
from implicit_atlas.tasks.evaluate import evaluate, evaluate_known
from implicit_atlas.tasks.reconstruct import reconstruct
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training.learning import train

REFLECTION = np.diag([-1.0, 1, 1, 1])


def wedge(index: int, other: bool = False) -> Mask:
    """An organ of one side: thick on its right, thin on its left, of sizes that vary; or its mirror image in space."""
    x, y, z = np.indices((30, 26, 22)).astype(float)
    thick = 3.0 + 0.3 * (x - 5) + 0.3 * np.sin(index)
    inside = ((y - 12) / (thick + 0.8 * np.cos(2 * index))) ** 2 + ((z - 11) / thick) ** 2 < 1
    inside &= (x > 4) & (x < 24 + index % 3)
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3] = np.c_[turn * (1.5, -1.2, 2.0), (-7, 9, 5)]
    affine = REFLECTION @ affine if other else affine
    return Mask(inside, Grid(inside.shape, affine), Path(f"wedge{index}.nii.gz"), (), np.dtype(np.uint8))


@cache
def wedges() -> TrainedAtlas:
    shapes = [prepare(wedge(i), RESOLUTION, name=f"w{i}", content_hash="") for i in range(8)]
    return train(shapes, tiny_model(), tiny_training(steps=150))


def prepared(mask: Mask) -> Shape:
    return prepare(mask, RESOLUTION, name="case", content_hash="")


def reflected(points: np.ndarray) -> np.ndarray:
    return points * (-1, 1, 1)


def test_a_mirrored_shape_is_the_same_organ_in_a_cube_that_is_turned_round():
    shape = prepared(wedge(3))
    turned = shape.mirrored()
    np.testing.assert_array_equal(turned.occupancy, shape.occupancy[::-1])
    np.testing.assert_array_equal(restore(turned), restore(shape))
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    np.testing.assert_allclose(
        turned.frame.cube_to_world(reflected(points)), shape.frame.cube_to_world(points), atol=1e-12
    )
    np.testing.assert_allclose(turned.frame.voxel_to_cube(turned.frame.cube_to_voxel(points)), points)
    again = Frame.from_json(turned.frame.to_json())
    assert again.mirrored and not turned.mirrored().frame.mirrored
    np.testing.assert_array_equal(again.affine_cube_to_world, turned.frame.affine_cube_to_world)
    assert "mirrored" not in shape.frame.to_json()  # stores of one side are what they were


def test_the_image_in_space_of_an_organ_is_the_same_shape_mirrored():
    shape, image = prepared(wedge(5)), prepared(wedge(5, other=True)).mirrored()
    np.testing.assert_array_equal(image.occupancy, shape.occupancy)
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    np.testing.assert_allclose(
        image.frame.cube_to_world(points), reflected(shape.frame.cube_to_world(points)), atol=1e-9
    )


def test_the_other_side_is_found_where_an_atlas_has_one():
    atlas = wedges()
    assert has_side(atlas) and not has_side(tiny_atlas())
    few = train([prepared(wedge(i)) for i in range(3)], tiny_model(), tiny_training(steps=2))
    assert not has_side(few)
    for index in range(8, 12):
        own, other = prepared(wedge(index)), prepared(wedge(index, other=True))
        assert side_ratio(atlas, own) == pytest.approx(1 / side_ratio(atlas, other), rel=1e-4)
        assert sided(atlas, own, "auto") == (own, None)
        found, doubt = sided(atlas, other, "auto")
        assert found.frame.mirrored and doubt is None
        assert "--mirror auto" in str(sided(atlas, other, "no")[1])
        assert "no --mirror" in str(sided(atlas, own, "all")[1])
        assert sided(atlas, other, "all")[1] is None
    two_lobes = phantom_shapes(8)[6]
    assert sided(tiny_atlas(), two_lobes.mirrored(), "no")[1] is None
    with pytest.raises(InputError, match="no, auto, all"):
        check_mirror("left")


@pytest.fixture
def files(tmp_path):
    """Masks of one side and of the other, of the same organs."""
    folders = tmp_path / "own", tmp_path / "other"
    for other, folder in enumerate(folders):
        for index in (8, 9):
            mask = wedge(index, bool(other))
            write_mask(folder / f"wedge{index}.nii.gz", mask.occupancy, mask.grid)
    return folders


def test_fits_of_the_other_side_are_images_of_those_of_the_own(files):
    own, other = (
        list(reconstruct(wedges(), sorted(folder.iterdir()), FIT, mirror="auto")) for folder in files
    )
    assert [found.fit.placed().mirrored for found in (*own, *other)] == [False, False, True, True]
    for a, b in zip(own, other, strict=True):
        np.testing.assert_array_equal(a.mask(), b.mask())  # one array, on grids that are images of each other
        np.testing.assert_allclose(reflected(a.mesh().vertices), b.mesh().vertices, atol=1e-3)
        np.testing.assert_array_equal(a.fit.mask_on(a.case.mask.grid), b.fit.mask_on(b.case.mask.grid))
        assert signed_volume(b.mesh()) == pytest.approx(signed_volume(a.mesh())) and a.likeness == b.likeness
        assert b.doubt is None


def test_scores_say_whether_mirror_images_were_looked_for(files):
    masks = sorted(files[1].iterdir())
    as_they_are, mirrored = (evaluate(wedges(), masks, FIT, mirror=mirror) for mirror in ("no", "auto"))
    assert [case.mirrored for case in (*as_they_are.cases, *mirrored.cases)] == [False, False, True, True]
    assert [found.protocol.mirror for found in (as_they_are, mirrored)] == ["no", "auto"]
    assert "mirrored" in mirrored.protocol.line() and "mirrored" not in as_they_are.protocol.line()


def signed_volume(mesh: Mesh) -> float:
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces].astype(float), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def test_repairs_of_the_other_side_are_those_of_the_own(files):
    (own,), (other,) = (list(repair(wedges(), [folder / "wedge8.nii.gz"], mirror="auto")) for folder in files)
    assert (own.occupancy != other.occupancy).sum() <= 0.005 * own.occupancy.sum()
    assert other.fit.placed().mirrored and own.doubt == other.doubt


def test_completions_of_the_other_side_are_images_of_those_of_the_own():
    mask = wedge(9)
    around = binary_dilation(mask.occupancy, iterations=2) & ~mask.occupancy
    voxels = [np.argwhere(part)[::20].astype(float) for part in (mask.occupancy, around)]
    places = np.concatenate(voxels) @ mask.grid.affine[:3, :3].T + mask.grid.affine[:3, 3]
    inside = np.repeat([1.0, 0.0], [len(part) for part in voxels])
    seen = Observations(places, inside)
    image = replace(seen, points=reflected(seen.points))
    (own,), (other,) = complete(wedges(), [seen]), complete(wedges(), [image], mirror="auto")
    assert not own.fit.placed().mirrored and other.fit.placed().mirrored
    assert not any(
        side in str(done.doubt) for done in (own, other) for side in (OTHER_SIDE, OWN_SIDE, UNSURE)
    )
    (wrong,), (turned,) = complete(wedges(), [image]), complete(wedges(), [seen], mirror="all")
    assert OTHER_SIDE in str(wrong.doubt) and OWN_SIDE in str(turned.doubt)
    assert own.fit.found.improbability == pytest.approx(other.fit.found.improbability, rel=1e-3)
    apart_mm = KDTree(reflected(own.mesh().vertices)).query(other.mesh().vertices)[0]
    assert apart_mm.max() < 0.05
    grid = Grid(mask.grid.shape, REFLECTION @ mask.grid.affine)
    found = own.mask_on(mask.grid)
    assert (found != other.mask_on(grid)).sum() <= 0.005 * found.sum()
    assert np.linalg.det(other.fit.placed().grid.affine) > 0 and signed_volume(other.mesh()) > 0


def test_where_the_side_cannot_be_told_it_is_said():
    """Clicks in the plane about which both sides are images of each other; and an organ that has no side."""
    mask = wedge(9)
    y, z = np.meshgrid(np.linspace(-12, 12, 9), np.linspace(-12, 12, 9), indexing="ij")
    centre = mask.grid.affine[:3] @ np.array([*np.argwhere(mask.occupancy).mean(0), 1])
    points = centre + np.stack([np.zeros(y.size), y.ravel(), z.ravel()], axis=1)
    seen = Observations(points, (np.hypot(y, z).ravel() < 8).astype(float))
    (done,) = complete(wedges(), [seen], mirror="auto")
    assert done.doubt is not None and "--mirror no or all" in done.doubt
    shape = phantom_shapes(8)[6]
    points = shape.frame.cube_to_world(np.random.default_rng(0).uniform(-1, 1, (40, 3)))
    inside = shape.occupancy[tuple(np.rint(16 * (shape.frame.world_to_cube(points) + 1) - 0.5).astype(int).T)]
    (done,) = complete(tiny_atlas(), [Observations(points, inside.astype(float))], mirror="auto")
    assert not done.fit.placed().mirrored and "--mirror no" not in str(done.doubt)


def test_training_shapes_may_be_mirrored(files, tmp_path, capsys):
    both = tmp_path / "both"
    for folder, prefix in zip(files, ("l", "r"), strict=True):
        for path in folder.iterdir():
            image = nibabel.load(path)
            both.mkdir(exist_ok=True)
            nibabel.save(image, both / f"{prefix}-{path.name}")
    right = tmp_path / "right.txt"
    right.write_text("r-wedge8\nr-wedge9\nr-wedge10\n")
    words = ["train", both, "-o", tmp_path / "w.atlas", "--steps", 2, "--warps", 0]
    assert run(*words, "--mirror", right) == 0
    capsys.readouterr()
    assert run("info", tmp_path / "w.atlas") == 0
    assert "2 shapes mirrored" in capsys.readouterr().out
    right.write_text("nobody\n")
    assert run(*words, "--mirror", right, "--overwrite") == 1
    assert "names none of the cases" in capsys.readouterr().err


def test_known_shapes_are_scored_as_they_were_learned(tmp_path):
    """An atlas that has learned every second shape mirrored, from masks of both sides."""
    paths = [tmp_path / f"w{i}.nii.gz" for i in range(8)]
    for i, path in enumerate(paths):
        mask = wedge(i, other=i % 2 == 1)
        write_mask(path, mask.occupancy, mask.grid)
    shapes = [prepare(read_mask(path), RESOLUTION) for path in paths]
    shapes = [shape.mirrored() if i % 2 else shape for i, shape in enumerate(shapes)]
    atlas = train(shapes, tiny_model(), tiny_training(steps=150))
    cases = evaluate_known(atlas, paths).cases
    assert [case.mirrored for case in cases] == [False, True] * 4
    assert min(case.dsc for case in cases) > 85 and has_side(atlas)


def test_meshes_of_the_other_side_are_compared_mirrored(tmp_path, caplog):
    rng = np.random.default_rng(0)
    vertices, faces = rng.standard_normal((6, 3)), np.array([(0, 1, 2), (3, 4, 5), (0, 3, 5)])
    write_mesh(tmp_path / "a.ply", Mesh(vertices, faces))
    write_mesh(tmp_path / "b.ply", Mesh(reflected(vertices), faces[:, ::-1].copy()))
    shapes, common = corresponding([tmp_path / "a.ply", tmp_path / "b.ply"], tmp_path / "v.npy")
    np.testing.assert_allclose(shapes[0], shapes[1], atol=1e-6)
    np.testing.assert_array_equal(common, read_stored(tmp_path / "a.ply").faces)
    assert "1 of 2 meshes are of the other side" in caplog.text


def test_commands_say_what_was_mirrored(files, tmp_path, capsys):
    model = tmp_path / "wedges.atlas"
    wedges().save(model)
    out = tmp_path / "out"
    assert run("correspond", model, files[1], "-o", out, "--mirror", "auto", "--no-local") == 0
    assert [row["mirrored"] for row in csv.DictReader((out / "correspondence.csv").open())] == ["True"] * 2
    run("reconstruct", model, files[1], "-o", tmp_path / "rec")  # followed badly, or not at all
    said = capsys.readouterr()
    assert (said.out + said.err).count("--mirror auto") == 2
    one, other = files[1] / "wedge8.nii.gz", files[1] / "wedge9.nii.gz"
    assert (
        run("interpolate", model, one, other, "-o", tmp_path / "line", "--steps", 2, "--mirror", "all") == 0
    )
    assert "DOUBTFUL" not in capsys.readouterr().out
    assert run("evaluate", model, files[0], "--known", "--mirror", "all") == 1
    assert run("evaluate", model, files[0], "--mirror", "all", "--json", tmp_path / "e.json") == 0
    assert "no --mirror" in capsys.readouterr().out
    assert [case["mirrored"] for case in json.loads((tmp_path / "e.json").read_text())["cases"]] == [
        True,
        True,
    ]
