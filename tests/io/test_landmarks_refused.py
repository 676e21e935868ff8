"""Lists of landmarks that are refused, and any bytes: no other error than ours leaves the reader or the writer."""

from __future__ import annotations

import functools
import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from io_samples import refused, written
from landmark_samples import as_file, markups, point

from implicit_atlas.errors import InputError
from implicit_atlas.io import Landmarks, read_landmarks, write_landmarks

SUFFIXES = [".csv", ".mrk.json", ".fcsv"]
POINTS = np.array([[1.25, -2.5, 3.0], [-40.1, 0.0, 7.0], [1e-7, 99999.0, -1234.5]])
NAMES = ("apex", "Größe 肝, left", '=1+1 "x"')
HEADER = "# Markups fiducial file version = 4.13\n# CoordinateSystem = LPS\n"
HEADER += "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
LINE = "1,1,2,3,0,0,0,1,1,1,0,{label},{desc},"


@functools.cache
def whole(suffix: str) -> bytes:
    """The bytes of a list as this package writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_landmarks(path, Landmarks(POINTS, NAMES, np.array([1.0, 0.5, 0.0]), path))
        return path.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \r\n\t", "is empty"),
        (b"\xef\xbb\xbf", "no columns|no points|valid JSON"),
        (b"x,y,z\n\xff\xfe\x80", "not text in UTF-8"),
        ("x,y,z\n1,2,3\n".encode("utf-16"), "not text in UTF-8"),
        ("x,y,z\n1,2,3\n".encode("utf-16-le"), "binary, or text in UTF-16"),
        (bytes(range(256)), "UTF-8"),
        (b"hello world\nthis is no list\n", "no columns|valid JSON|too few columns"),
    ],
)
def test_files_that_are_no_lists(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    refused(read_landmarks, as_file(tmp_path, content, suffix), words)


@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        (".csv", "a,b,c\n1,2,3\n", "no columns x, y, z"),
        (".csv", "1,2,3\n4,5,6\n", "no columns x, y, z"),
        (".csv", "x,y,z\n", "has no points"),
        (".csv", "x,y,z\n1,2\n", "line 2 has too few columns: z missing"),
        (".csv", "x,y,z\n1,2,\n", "line 2 has '' for z, which is no number"),
        (".csv", "x,y,z\n\n1,two,3\n", "line 3 has 'two' for y, which is no number"),
        (".csv", "x,y,z\n1,5,2,5,3,5\n", "line 2 has 6 columns, the first has 3"),
        (".csv", "x;y;z\n1.000,5;2;3\n", "no number"),
        (".csv", "x,y,z\n1_0,2,3\n", "no number"),
        (".csv", "x,y,z\nnan,2,3\n", "1 points with coordinates that are NaN or infinite"),
        (".csv", "x,y,z\n1,2,3\n1,-inf,3\n1,2,1e999\n", "2 points .* the first is number 2"),
        (".csv", "x,y,z\n1,2,100001\n", "coordinates up to 1e[+]05 mm"),
        (".csv", "x,y,z,inside\n1,2,3,maybe\n", "line 2 has 'maybe' for inside"),
        (".csv", 'x,y,z,name\n1,2,3,"a\n4,5,6,b\n', "cannot be read as a table"),
        (".csv", "x,y,z,name\n1,2,3," + "a" * 200_000, "cannot be read as a table"),
        (".fcsv", HEADER, "has no points"),
        (".fcsv", HEADER.replace("LPS", "IJK") + LINE, "coordinate system 'IJK'"),
        (".fcsv", HEADER.replace("LPS", "2") + LINE, "coordinate system '2'"),
        (".fcsv", HEADER.replace("id,x,y", "id,u,v") + LINE, "no columns x, y, z"),
        (".fcsv", HEADER + "1,2\n", "line 4 has too few columns: y, z missing"),
        (".fcsv", HEADER + LINE.replace("2", "?"), "line 4 has '[?]' for y"),
        (".fcsv", HEADER + LINE.replace("2", "NaN"), "NaN or infinite"),
        (".fcsv", HEADER + LINE.replace("2", "-2e5"), "coordinates up to 2e[+]05 mm"),
        (".fcsv", HEADER + LINE.format(label="a" * 200_000, desc=""), "line 4 cannot be read as a table"),
        (".mrk.json", '{"markups": [', "not valid JSON"),
        (".mrk.json", "[" * 200_000, "not valid JSON"),
        (".mrk.json", '{"markups": ' + "9" * 10_000 + "}", "not valid JSON"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, suffix: str, content: str, words: str) -> None:
    refused(read_landmarks, as_file(tmp_path, content, suffix), words)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "the file is no JSON object"),
        (None, "the file is no JSON object"),
        ({}, "'markups' is no list"),
        ({"markups": {}}, "'markups' is no list"),
        ({"markups": []}, "has no points"),
        ({"markups": [3]}, "a markup is no JSON object"),
        (markups(), "has no points"),
        (markups(point(positionStatus="undefined")), "has no points"),
        (markups(4), "a control point is no JSON object"),
        (markups(controlPoints="abc"), "'controlPoints' is no list"),
        (markups(point(), type="ROI"), "none of Fiducial"),
        (markups(point(), type={}), "none of Fiducial"),
        (markups(point(), coordinateSystem="IJK"), "coordinate system 'IJK'"),
        (markups(point(), coordinateSystem=7), "coordinate system '7'"),
        (markups(point(), coordinateSystem=None), "coordinate system"),
        (markups(point(), coordinateSystem=[["LPS"]]), "coordinate system"),
        (markups(point(), coordinateUnits="inch"), "not mm or um"),
        (markups(point(), coordinateUnits=[]), "not mm or um"),
        (markups(point(), name=5), "'name' that is no text"),
        (markups(point(label=5)), "'label' that is no text"),
        (markups(point(description=[])), "'description' that is no text"),
        (markups(point([1, 2])), "not three numbers"),
        (markups(point([1, 2, "3"])), "not three numbers"),
        (markups(point([1, 2, True])), "not three numbers"),
        (markups(point([1, 2, 10**400])), "not three numbers"),
        (markups(point(None)), "not three numbers"),
        (markups(point([1, 2, float("nan")])), "NaN or infinite"),
        (markups(point([1, 2, float("inf")])), "NaN or infinite"),
        (markups(point([1, 2, 1e6])), "coordinates up to 1e[+]06 mm"),
    ],
)
def test_markups_that_cannot_be_used(tmp_path: Path, document: Any, words: str) -> None:
    refused(read_landmarks, as_file(tmp_path, json.dumps(document), ".mrk.json"), words)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("wb") as stream:
        stream.truncate(60_000_000)
    tracemalloc.start()
    refused(read_landmarks, path, "has 60 MB")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1e6


def test_too_many_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("implicit_atlas.io.landmarks.MAX_POINTS", 2)
    refused(read_landmarks, as_file(tmp_path, "x,y,z\n" + "1,2,3\n" * 3, ".csv"), "more than 2 points")


def test_names_and_formats(tmp_path: Path) -> None:
    for name in ("a.txt", "a.json", "a", "a.acsv"):
        refused(read_landmarks, written(tmp_path, b"x,y,z\n1,2,3\n", name), "no format of landmarks")
        with pytest.raises(InputError, match="no format of landmarks"):
            write_landmarks(tmp_path / name, Landmarks(POINTS, NAMES, None, tmp_path))
    refused(read_landmarks, tmp_path / "missing.csv", "does not exist")
    (tmp_path / "folder.csv").mkdir()
    refused(read_landmarks, tmp_path / "folder.csv", "cannot be read")
    assert read_landmarks(written(tmp_path, whole(".mrk.json"), "A.MRK.JSON")).labels == NAMES


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda points: (points[:0], (), None), "no points"),
        (lambda points: (points * np.nan, NAMES, None), "NaN or infinite"),
        (lambda points: (points * 10, NAMES, None), "coordinates up to"),
        (lambda points: (points, NAMES[:2], None), "as many names"),
        (lambda points: (points, NAMES, np.array([0, 1, 0.3])), "occupancy of 0, 0.5 or 1"),
        (lambda points: (points, NAMES, np.array([0, 1, np.nan])), "occupancy of 0, 0.5 or 1"),
    ],
)
def test_what_is_not_written(
    tmp_path: Path, suffix: str, change: Callable[[np.ndarray], tuple[Any, Any, Any]], words: str
) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(InputError, match=words):
        write_landmarks(path, Landmarks(*change(POINTS), path))
    assert not list(tmp_path.iterdir())


def holds_or_is_refused(path: Path) -> None:
    """Read a file of any content: either it is refused, or what comes out is what is promised."""
    try:
        landmarks = read_landmarks(path)
    except InputError as error:
        assert error.source == str(path) and error.remedy
        return
    assert np.isfinite(landmarks.points_mm).all() and len(landmarks.points_mm) == len(landmarks.labels) > 0
    assert landmarks.occupancy is None or set(landmarks.occupancy.tolist()) <= {0, 0.5, 1}


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(
    content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
)
@settings(max_examples=300)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes) -> None:
    holds_or_is_refused(written(tmp_path_factory.getbasetemp(), content, f"bytes{suffix}"))


PIECES = [
    b",",
    b";",
    b"\t",
    b'"',
    b"'",
    b"\n",
    b"\r",
    b"#",
    b"=",
    b"\0",
    b"[",
    b"]",
    b"{}",
    b"null",
    b"NaN",
    b"-",
]
PIECES += [
    b"1e999",
    b"true",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\\ud800",
    "\u2028".encode(),
    b"\x0c",
    b"\x1c",
    b"x,y,z",
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES) | st.binary(max_size=4)),
        max_size=8,
    )
)
@settings(max_examples=300)
def test_any_damage(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, edits: list[tuple[float, int, bytes]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = whole(suffix)
    for place, cut, piece in edits:
        start = int(place * len(content))
        content = content[:start] + piece + content[start + cut :]
    holds_or_is_refused(written(folder, content, f"damaged{suffix}"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["markups", "type", "coordinateSystem", "coordinateUnits", "name", "controlPoints"]
FIELDS += ["label", "description", "position", "positionStatus"]


@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=3))
@settings(max_examples=300)
def test_any_types_in_markups(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> None:
    inner = {key: changes.pop(key) for key in FIELDS[6:] if key in changes}
    document = markups(point() | inner, point())
    document["markups"][0].update({key: changes[key] for key in FIELDS[1:6] if key in changes})
    document.update({key: changes[key] for key in FIELDS[:1] if key in changes})
    content = json.dumps(document).encode()
    holds_or_is_refused(written(tmp_path_factory.getbasetemp(), content, "types.mrk.json"))
