"""The command of statistics: meshes of one topology in; mean, modes, curves and a comparison out."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from commands import run, table
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

from implicit_atlas import statistics
from implicit_atlas.errors import InputError
from implicit_atlas.geometry.surface import field_mesh
from implicit_atlas.io import Mesh, read_stored, write_mesh
from implicit_atlas.statistics.files import DEVIATIONS, read_groups
from implicit_atlas.statistics.modes import most_modes

COUNT, GROWTH = 12, 1.0


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Balls of 10 mm, longer along x by a random amount and, in the second half, higher by `GROWTH` mm; moved about."""
    folder, rng = tmp_path_factory.mktemp("corresponding") / "meshes", np.random.default_rng(0)
    ball = field_mesh(lambda p: 0.5 - np.linalg.norm(p, axis=1), 24)
    unit = ball.vertices / np.linalg.norm(ball.vertices, axis=1, keepdims=True)
    for index in range(COUNT):
        radii = np.array([10 + 2 * rng.standard_normal(), 10.0, 10 + GROWTH * (index >= COUNT // 2)])
        write_mesh(folder / f"case{index:02d}.ply", Mesh(unit * radii + rng.uniform(-50, 50, 3), ball.faces))
    return folder


def test_too_few_meshes_leave_earlier_results(meshes, tmp_path):
    assert run("statistics", meshes, "-o", tmp_path / "out", "--modes", 1) == 0
    two = tmp_path / "two"
    two.mkdir()
    for path in sorted(meshes.iterdir())[:2]:
        shutil.copy(path, two)
    before = sorted((tmp_path / "out").iterdir())
    assert run("statistics", two, "-o", tmp_path / "out") == 1
    assert sorted((tmp_path / "out").iterdir()) == before


def test_one_mode_is_found_where_one_thing_varies(meshes, tmp_path):
    assert run("statistics", meshes.parent, "-o", tmp_path, "--modes", 3) == 0
    rows, scores = table(tmp_path / "modes.csv"), table(tmp_path / "scores.csv")
    assert len(rows) == 3 and len(scores) == COUNT and scores[0]["name"] == "case00"
    assert [row["modes"] for row in rows] == [
        "0",
        "1",
        "2",
    ]  # two things vary, so that there is no third mode
    shares = [float(row["compactness"]) for row in rows]
    assert shares[0] == 0 and shares[1] > 0.85 and shares[2] > 0.999
    assert all(float(row["compactness_low"]) <= float(row["compactness_high"]) for row in rows)
    mean, plus, minus = (read_stored(tmp_path / f"{n}.ply") for n in ("mean", "mode-1-plus", "mode-1-minus"))
    np.testing.assert_allclose((plus.vertices + minus.vertices) / 2, mean.vertices, atol=1e-3)
    moved_mm = np.linalg.norm(plus.vertices - mean.vertices, axis=1)
    assert float(rows[1]["rms_mm"]) == pytest.approx(np.sqrt(np.mean(moved_mm**2)) / DEVIATIONS, rel=1e-2)
    spans = [np.ptp(mesh.vertices, axis=0) for mesh in (plus, minus)]
    assert abs(spans[0] - spans[1]).argmax() == 0 and abs(spans[0] - spans[1])[0] > 5


@pytest.mark.parametrize("count", [3, 4])
def test_few_meshes_have_fewer_modes(meshes, tmp_path, count):
    some = tmp_path / "some"
    some.mkdir()
    for path in sorted(meshes.glob("*.ply"))[:: COUNT // count]:
        (some / path.name).write_bytes(path.read_bytes())
    assert run("statistics", some, "-o", tmp_path / "out", "--modes", 5) == 0
    assert len(table(tmp_path / "out" / "modes.csv")) == count - 1


def test_two_groups_are_compared_on_the_mean_surface(meshes, tmp_path, capsys):
    groups = tmp_path / "groups.csv"
    lines = [f"case{i:02d},{'ill' if i >= COUNT // 2 else 'healthy'}" for i in range(COUNT)]
    groups.write_text("name,group\n" + "\n".join(lines))
    assert run("statistics", meshes, "-o", tmp_path / "out", "--groups", groups, "--permutations", 200) == 0
    assert "healthy (6) and ill (6): p = 0.00" in capsys.readouterr().out
    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(tmp_path / "out" / "groups.vtp"))
    reader.Update()
    data = reader.GetOutput()
    values = {n: vtk_to_numpy(data.GetPointData().GetArray(n)) for n in ("outward_mm", "p", "q", "share")}
    height = vtk_to_numpy(data.GetPoints().GetData())[:, 2]
    top = height > height.max() - 0.5
    assert values["outward_mm"][top].mean() == pytest.approx(GROWTH, rel=0.2)
    assert values["q"][top].max() < 0.05 and (values["q"] >= values["p"] - 1e-12).all()


def test_groups_name_meshes_by_their_files_too_and_lacking_columns_are_named(meshes, tmp_path):
    names = [path.stem for path in sorted(meshes.rglob("*.ply")) if path.stem.startswith("case")]
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "name,group\n" + "\n".join(f"{name}.nii.gz,{'ab'[i % 2]}" for i, name in enumerate(names))
    )
    assert read_groups(groups, names)[:2] == ["a", "b"]
    groups.write_text("Name;Group\n" + "\n".join(f"{name};{'ab'[i % 2]}" for i, name in enumerate(names)))
    assert read_groups(groups, names)[:2] == ["a", "b"]
    groups.write_text("name,diagnosis\ncase00,a\n")
    with pytest.raises(InputError, match="no column 'group', but name, diagnosis"):
        read_groups(groups, names)


@pytest.mark.parametrize(
    "text",
    [
        "name,group\ncase00,a\n",
        "nothing\n",
        "name,group\n" + "\n".join(f"case{i:02d},a" for i in range(COUNT)),
        "name,group\n" + "\n".join(f"case{i:02d},{'ab'[i % 2]}" for i in range(COUNT)) + "\ncase00,b\n",
        "name,group\n" + "\n".join(f"case{i:02d},{'a' if i % 2 else ''}" for i in range(COUNT)),
    ],
)
def test_groups_that_cannot_be_compared(meshes, tmp_path, text, capsys):
    (tmp_path / "groups.csv").write_text(text)
    assert run("statistics", meshes, "-o", tmp_path / "out", "--groups", tmp_path / "groups.csv") == 1
    assert "groups.csv" in capsys.readouterr().err


def test_meshes_of_another_topology_are_named(meshes, tmp_path, capsys):
    ball = field_mesh(lambda p: 0.5 - np.linalg.norm(p, axis=1), 16)
    for name in ("case00.ply", "case01.ply"):
        (tmp_path / name).write_bytes((meshes / name).read_bytes())
    write_mesh(tmp_path / "other.ply", Mesh(ball.vertices, ball.faces))
    assert run("statistics", tmp_path, "-o", tmp_path / "out") == 1
    assert "other.ply" in capsys.readouterr().err
    assert run("statistics", tmp_path / "out", "-o", tmp_path / "out2") == 1


@pytest.mark.parametrize("n", [3, 4, 50, 51, 60, 61, 200])
def test_as_many_modes_are_testable_as_generality_has(n):
    shapes = np.random.default_rng(0).normal(size=(n, 70, 3))
    stats = statistics.principal_modes(shapes, max(1, n - 2))
    assert len(statistics.generality(shapes, stats).values) - 1 == most_modes(n)
