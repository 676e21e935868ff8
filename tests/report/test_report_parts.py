"""Parts of the report: escaped texts, surfaces, the map of codes, histograms."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from atlas_samples import tiny_atlas

from implicit_atlas.report.figures import curves_figure, histogram_figure, solid_figure
from implicit_atlas.report.latent import principal_map, spread
from implicit_atlas.report.markup import inline_json, label, prose, text
from implicit_atlas.report.scores import summary
from implicit_atlas.report.solids import gallery

EVIL = "</script><script>alert('x')</script><!--"


@pytest.mark.parametrize(
    "value", [EVIL, "\u2028\u2029", "a&b", "tab\tline\nend", "ü 形 \udcff", '"quoted\'"']
)
def test_texts_are_escaped(value):
    dumped = inline_json({value: [value]})
    assert not set("<>&\u2028\u2029") & set(dumped) and json.loads(dumped) == {value: [value]}
    assert not set("<>\"'\n\t") & set(text(value)) and "<" not in label(value)
    text(value).encode("utf-8")


def test_numbers_that_json_has_not_are_refused():
    with pytest.raises(ValueError):
        inline_json([float("nan")])


def test_a_card_is_read_without_headings_and_tables():
    made = prose("# Title\n\n| a | b |\n|---|---|\n\n**Bold** and `code`\nof *one* <i>line</i>.\n\nAnother.")
    first = "<p><strong>Bold</strong> and <code>code</code> of *one* &lt;i&gt;line&lt;/i&gt;.</p>"
    assert made == f"{first}<p>Another.</p>"


def test_surfaces_are_those_of_the_atlas():
    found = gallery(tiny_atlas(), lambda share, said: None)
    assert [solid.template for solid in found.templates] == list(range(tiny_atlas().templates))
    for index, count in enumerate(tiny_atlas().template_usage()):
        assert found.templates[index].note.startswith(f"{count or 'none'} of ")
    solid = found.examples[0]
    mesh = tiny_atlas().known(solid.title).cube_mesh(found.side)
    size = tiny_atlas().config.sizes_mm[tiny_atlas().config.names.index(solid.title)]
    assert np.allclose(solid.vertices_mm, mesh.vertices * np.array(size) / 2)
    trace = solid_figure(solid, (1, 2, 3)).data[0]
    for axis, values in zip("xyz", solid.vertices_mm.T, strict=True):
        stored = np.frombuffer(base64.b64decode(trace[axis]["bdata"]), f"<{trace[axis]['dtype']}")
        assert np.allclose(stored, values, atol=1e-4)
    corners = np.frombuffer(base64.b64decode(trace["i"]["bdata"]), f"<{trace['i']['dtype']}")
    assert np.array_equal(corners, solid.faces[:, 0])
    stored = sum(len(trace[name]["bdata"]) for name in "xyzijk")
    assert abs(stored - solid.bytes) < 32


def test_the_map_keeps_what_two_components_hold():
    generator = np.random.default_rng(0)
    plane = generator.normal(size=(9, 2)) * (5, 1)
    axes = np.linalg.qr(generator.normal(size=(6, 2)))[0]
    codes = (plane @ axes.T + 3).astype(np.float32)
    found = principal_map(codes)
    assert found is not None and sum(found.shares) == pytest.approx(1) and found.shares[0] > found.shares[1]
    pairs = np.linalg.norm(codes[:, None] - codes[None], axis=-1)
    assert np.allclose(np.linalg.norm(found.points[:, None] - found.points[None], axis=-1), pairs, atol=1e-4)
    assert principal_map(np.ones((3, 4), np.float32)) is None
    line = principal_map(np.array([[0.0], [1.0]], np.float32))
    assert line is not None and np.allclose(line.points, [[-0.5, 0], [0.5, 0]])


def test_examples_are_spread():
    codes = np.array([[0.0], [0.1], [5.0], [-6.0], [0.2]], np.float32)
    assert spread(codes, 3) == [0, 3, 2]
    assert sorted(spread(np.zeros((4, 2), np.float32), 6)) == [0, 1, 2, 3]


@pytest.mark.parametrize("values", [[100.0], [0.0, 100.0], [91.2, 99.99, 93.0], [99.7, 99.9]])
def test_a_histogram_counts_every_case(values):
    assert sum(histogram_figure(values, "DSC", 0).data[0]["y"]) == len(values)


def test_summaries():
    assert summary([]) is None
    one = summary([3.0])
    assert one is not None and one.deviation is None and one.mean == one.least == one.greatest == 3
    assert curves_figure({"step": [1], "loss": [0.0]}).data == []
