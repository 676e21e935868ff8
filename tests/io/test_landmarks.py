"""Lists of landmarks: what is written is read, and spaces, spreadsheets and the habits of 3D Slicer are respected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from landmark_samples import as_file, markups, point

from implicit_atlas.io import Landmarks, read_landmarks, write_landmarks

SUFFIXES = [".csv", ".mrk.json", ".fcsv"]
POINTS = np.array([[1.25, -2.5, 3.0], [-40.1, 1 / 3, 0.0], [1e-7, 99999.0, -1234.5678901234]])
NAMES = ("apex", "Größe 肝, left", '=1+1 "x"')
INSIDE = np.array([1.0, 0.5, 0.0])
HEADER = "# Markups fiducial file version = 4.13\n# CoordinateSystem = LPS\n"
HEADER += "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
LINE = "1,1,2,3,0,0,0,1,1,1,0,{label},{desc},"


def sample(path: Path, occupancy: np.ndarray | None = INSIDE) -> Path:
    write_landmarks(path, Landmarks(POINTS, NAMES, occupancy, path))
    return path


def read(folder: Path, content: str | bytes, suffix: str) -> Landmarks:
    return read_landmarks(as_file(folder, content, suffix))


def read_json(folder: Path, document: Any) -> Landmarks:
    return read(folder, json.dumps(document), ".mrk.json")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("occupancy", [None, INSIDE, np.full(3, 0.5)], ids=["none", "mixed", "boundary"])
def test_round_trip(tmp_path: Path, suffix: str, occupancy: np.ndarray | None) -> None:
    before = POINTS.copy()
    path = sample(tmp_path / "new folder" / f"a{suffix}", occupancy)
    back = read_landmarks(str(path))
    np.testing.assert_allclose(back.points_mm, before, atol=1e-6, rtol=0)
    assert back.labels == NAMES and back.path == path
    if occupancy is None:
        assert back.occupancy is None
    else:
        assert back.occupancy is not None
        np.testing.assert_array_equal(back.occupancy, occupancy)
    np.testing.assert_array_equal(POINTS, before)
    first = path.read_bytes()
    write_landmarks(path, back)
    assert path.read_bytes() == first


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(
    rows=st.lists(
        st.tuples(
            st.tuples(*[st.floats(-1e5, 1e5)] * 3), st.text(max_size=20), st.sampled_from([0.0, 0.5, 1.0])
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=30)
def test_any_points_and_names_survive(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list[tuple[Any, str, float]]
) -> None:
    path = tmp_path_factory.mktemp("any") / f"a{suffix}"
    points, names, occupancy = zip(*rows, strict=True)
    write_landmarks(path, Landmarks(np.array(points), names, np.array(occupancy), path))
    once = read_landmarks(path)
    np.testing.assert_array_equal(once.points_mm, np.array(points))
    assert once.occupancy is not None
    np.testing.assert_array_equal(once.occupancy, occupancy)
    for name, kept in zip(names, once.labels, strict=True):
        assert kept == (name.strip() if name.isprintable() else kept.strip())
    write_landmarks(path, once)
    assert read_landmarks(path).labels == once.labels


@pytest.mark.parametrize("name", ["=1+1", "+1", "-a", "@x", "'=1", "''-", "'a", "a=b", "'", "="])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formulas_are_kept_from_spreadsheets_and_come_back(tmp_path: Path, suffix: str, name: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_landmarks(path, Landmarks(POINTS[:1], (name,), None, path))
    assert read_landmarks(path).labels == (name,)
    if suffix == ".csv":
        assert path.read_text().splitlines()[1][0] not in "=+-@"


@pytest.mark.parametrize(
    ("suffix", "content", "space"),
    [
        (".csv", "x,y,z\n1,2,3\n", "RAS"),
        (".csv", "r,a,s\n1,2,3\n", "RAS"),
        (".csv", "label,L,P,S,defined\nF-1,1,2,3,1\nF-2,0,0,0,0\n", "LPS"),
        (".csv", "name,y,x,z\na,2,1,3\n", "RAS"),
        (".mrk.json", json.dumps(markups(point())), "LPS"),
        (".mrk.json", json.dumps(markups(point(), coordinateSystem="LPS")), "LPS"),
        (".mrk.json", json.dumps(markups(point(), coordinateSystem="RAS")), "RAS"),
        (".mrk.json", json.dumps(markups(point(), coordinateSystem=0)), "RAS"),
        (".mrk.json", json.dumps(markups(point(), coordinateSystem=1)), "LPS"),
        (".mrk.json", json.dumps(markups(point(), coordinateSystem="0")), "RAS"),
        (".fcsv", HEADER + LINE, "LPS"),
        (".fcsv", HEADER.replace("LPS", "1") + LINE, "LPS"),
        (".fcsv", HEADER.replace("LPS", "RAS") + LINE, "RAS"),
        (".fcsv", HEADER.replace("LPS", "0,,,,") + LINE, "RAS"),
        (".fcsv", HEADER.replace("# CoordinateSystem = LPS\n", "") + LINE, "RAS"),
        (".fcsv", "F-1,1,2,3,1,1\n", "RAS"),
        (".fcsv", "#CoordinateSystem=LPS\n# columns = z,y,label,x\n3,2,a,1\n", "LPS"),
    ],
)
def test_the_space_that_a_file_names(tmp_path: Path, suffix: str, content: str, space: str) -> None:
    expected = [[1.0, 2, 3]] if space == "RAS" else [[-1.0, -2, 3]]
    np.testing.assert_array_equal(read(tmp_path, content, suffix).points_mm, expected)


def test_slicer_files_hold_lps_and_csv_holds_ras(tmp_path: Path) -> None:
    x, y, z = POINTS[0]
    document = json.loads(sample(tmp_path / "a.mrk.json").read_text(encoding="utf-8"))
    assert document["@schema"].endswith("markups-schema-v1.0.3.json#")
    (markup,) = document["markups"]
    assert markup["type"] == "Fiducial" and markup["coordinateSystem"] == "LPS"
    assert markup["controlPoints"][0] == {
        "id": "1",
        "label": "apex",
        "description": "inside",
        "associatedNodeID": "",
        "position": [-x, -y, z],
        "orientation": [-1, 0, 0, 0, -1, 0, 0, 0, 1],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "defined",
    }
    lines = sample(tmp_path / "a.fcsv").read_text(encoding="utf-8").splitlines()
    assert "\n".join(lines[:3]) + "\n" == HEADER
    assert lines[3] == f"1,{-x},{-y},{z},0,0,0,1,1,1,0,apex,inside,"
    lines = sample(tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["name,x,y,z,inside", f"apex,{x},{y},{z},inside"]


def test_whole_numbers_are_written_as_slicer_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.mrk.json"
    write_landmarks(path, Landmarks(np.array([[0.0, 1, 2]], np.float32), ("",), None, path))
    position = json.loads(path.read_text())["markups"][0]["controlPoints"][0]["position"]
    assert [repr(value) for value in position] == ["0.0", "-1.0", "2.0"]


@pytest.mark.parametrize(
    "content",
    [
        "name,x,y,z,inside\na,1.5,2,3,1\n'-b,4,5,-6,\n",
        "NAME; X; Y; Z; Inside\r\na;1,5;2;3;in\r\n'-b;4,0;5;-6;on\r\n\r\n;;;;\r\n",
        "\ufeffinside\tz\ty\tx\tlabel\tnote\ninside\t3\t2\t1,5\ta\nboundary\t-6\t5\t4\t-b\n",
        '"name","x","y","z","inside"\n"a","1.5","2","3","INSIDE"\n"-b",4,5,-6,""\n',
        '"name";"x";"y";"z";"inside"\na;1.5;2;3;1\n-b;4;5;-6\n',
        "\n,,\nname, x, y, z, inside,\ra, 1.5, 2, 3, 1,\r-b, 4, 5, -6, ,\r",
    ],
)
def test_csv_of_spreadsheets(tmp_path: Path, content: str) -> None:
    landmarks = read(tmp_path, content, ".csv")
    np.testing.assert_array_equal(landmarks.points_mm, [[1.5, 2, 3], [4, 5, -6]])
    assert landmarks.labels == ("a", "-b")
    assert landmarks.occupancy is not None and landmarks.occupancy.tolist() == [1, 0.5]


def test_points_of_a_csv_say_where_they_are_as_those_of_slicer_do(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("name,x,y,z\nin-1,1,2,3\nout-1,4,5,6\nedge,7,8,9\n")
    np.testing.assert_array_equal(read_landmarks(path).occupancy, [1, 0, 0.5])
    path.write_text("label,r,a,s,description\nP1,1,2,3,outside\nP2,4,5,6,\n")
    np.testing.assert_array_equal(read_landmarks(path).occupancy, [0, 0.5])
    path.write_text("name,x,y,z,inside\nin-1,1,2,3,0\n")  # a column of its own says more than a name
    np.testing.assert_array_equal(read_landmarks(path).occupancy, [0])
    path.write_text("name,x,y,z\ninferior,1,2,3\n")
    assert read_landmarks(path).occupancy is None


def test_csv_without_names_or_occupancy(tmp_path: Path) -> None:
    landmarks = read(tmp_path, "x,y,z\n1,2,3\n", ".csv")
    assert landmarks.labels == ("",) and landmarks.occupancy is None


@pytest.mark.parametrize(
    ("fields", "name", "occupancy"),
    [
        ({"label": "in-3"}, "", 1),
        ({"label": "Out_2"}, "", 0),
        ({"label": "boundary 4"}, "", 0.5),
        ({"label": "F-1", "description": "INSIDE"}, "", 1),
        ({"label": "in-3", "description": "outside, left"}, "", 0),
        ({"label": "in-3", "description": "left"}, "out", 1),
        ({"label": "F-1"}, "Outside points", 0),
        ({"label": "inferior"}, "outer ridge", None),
        ({"label": "insidé"}, "boundaryless", None),
        ({"label": "not in"}, "", None),
    ],
)
def test_points_say_inside_or_outside(
    tmp_path: Path, fields: dict[str, str], name: str, occupancy: float | None
) -> None:
    found = read_json(tmp_path, markups(point(**fields), name=name)).occupancy
    assert (None if found is None else found.tolist()) == (None if occupancy is None else [occupancy])
    if not name:
        line = LINE.format(label=fields["label"], desc=f'"{fields.get("description", "")}"')
        found = read(tmp_path, HEADER + line, ".fcsv").occupancy
        assert (None if found is None else found.tolist()) == (None if occupancy is None else [occupancy])


def test_inside_is_read_as_libraries_of_tables_write_it(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("x,y,z,inside\n1,2,3,1.0\n4,5,6,0.0\n7,8,9,\n1,5,9,True\n2,5,8,False\n3,5,7,nan\n")
    found = read_landmarks(path).occupancy
    assert found is not None and found.tolist() == [1, 0, 0.5, 1, 0, 0.5]


def test_points_that_say_nothing_beside_others_are_on_the_boundary(tmp_path: Path) -> None:
    found = read_json(tmp_path, markups(point(), point(label="in-1"), point(label="out-1"))).occupancy
    assert found is not None and found.tolist() == [0.5, 1, 0]


def test_markups_are_joined_each_in_its_space_and_unplaced_points_are_left_out(tmp_path: Path) -> None:
    kinds = ["Fiducial", "Curve", "ClosedCurve", "Line", "Angle", "Plane"]
    entries = [point([n, 0, 0], label=kind) for n, kind in enumerate(kinds)]
    document = {
        "markups": [
            {
                "type": kind,
                "coordinateSystem": ("RAS", "LPS")[n % 2],
                "controlPoints": [
                    entry,
                    point([9, 9, 9], positionStatus="preview"),
                    point(None, positionStatus="undefined"),
                    {"label": "no position"},
                ],
            }
            for n, (kind, entry) in enumerate(zip(kinds, entries, strict=True))
        ]
    }
    landmarks = read_json(tmp_path, document)
    assert landmarks.labels == tuple(kinds)
    np.testing.assert_array_equal(landmarks.points_mm[:, 0], [0, -1, 2, -3, 4, -5])


@pytest.mark.parametrize(("units", "scale"), [("mm", 1), (["mm", "UCUM", "millimeter"], 1), ("um", 1e-3)])
def test_units_of_markups(tmp_path: Path, units: Any, scale: float) -> None:
    landmarks = read_json(tmp_path, markups(point(), coordinateUnits=units, coordinateSystem="RAS"))
    np.testing.assert_allclose(landmarks.points_mm, np.array([[1, 2, 3]]) * scale)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_fcsv_as_slicer_5_writes_it(tmp_path: Path, ending: str) -> None:
    lines = [*HEADER.splitlines()]
    stray = "" if ending == "\r" else "\r"
    for number, status in ((1, 2), (2, 0), (3, 1), (4, 2)):
        lines.append(f'{number},{number},2,3,0,0,0,1,1,1,0,"a, ""{number}""",,{stray},{status},0')
    landmarks = read(tmp_path, ending.join([*lines, ""]), ".fcsv")
    assert landmarks.labels == ('a, "1"', 'a, "4"')
    np.testing.assert_array_equal(landmarks.points_mm, [[-1, -2, 3], [-4, -2, 3]])


def test_tables_of_carried_landmarks_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.csv"
    path.write_text("case,landmark,x,y,z,left_mm\nliver_001,hilum,1,2,3,0.1\n")
    found = read_landmarks(path)
    assert found.labels == ("hilum",) and found.points_mm.tolist() == [[1, 2, 3]]
