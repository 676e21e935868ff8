"""Pictures: surfaces of any proportion fill their panels, and none is cut off."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from implicit_atlas.geometry.surface import volume_mesh
from implicit_atlas.pictures import AZIMUTH, DPI, ELEVATION, HIGH, TITLE, WIDE, Panel, hidden, surfaces


def ball(stretched: tuple[float, float, float]) -> Panel:
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij"), axis=-1)
    mesh = volume_mesh((0.8 - np.linalg.norm(at, axis=-1)).astype(np.float32))
    return Panel(mesh.vertices * stretched + 100.0, mesh.faces, "")


@pytest.mark.parametrize("stretched", [(1, 1, 1), (1, 9, 1), (1, 1, 9), (9, 1, 1)])
def test_a_surface_fills_its_panel_and_is_not_cut_off(
    tmp_path: Path, stretched: tuple[float, float, float]
) -> None:
    surfaces(tmp_path / "one.png", [[ball(stretched)]])
    image = plt.imread(tmp_path / "one.png")[..., :3]
    assert image.shape[:2] == (round((HIGH + TITLE) * DPI), round(WIDE * DPI))
    rows, columns = np.nonzero((image < 0.98).any(axis=2))
    share = np.ptp(columns) / image.shape[1], np.ptp(rows) / (HIGH * DPI)
    assert max(share[0] / 0.94, share[1] / 0.76) == pytest.approx(1, abs=0.05)
    assert columns.min() > 3 and columns.max() < image.shape[1] - 4
    assert rows.min() >= TITLE * DPI


def test_panels_of_a_row_have_one_scale(tmp_path: Path) -> None:
    surfaces(tmp_path / "two.png", [[ball((1, 1, 1)), ball((2, 2, 2))]])
    image = plt.imread(tmp_path / "two.png")[..., :3]
    half = image.shape[1] // 2
    small, large = (
        np.ptp(np.nonzero((part < 0.98).any(axis=2))[0]) for part in (image[:, :half], image[:, half:])
    )
    assert small / large == pytest.approx(0.5, abs=0.03)


def test_faces_that_look_away_are_left_out_and_change_nothing(tmp_path: Path) -> None:
    whole = ball((1, 1, 1))
    middle = whole.vertices[whole.faces].mean(1) - whole.vertices.mean(0)
    azimuth, elevation = np.deg2rad([AZIMUTH, ELEVATION])
    toward = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    before = middle @ toward > -0.05
    half = Panel(whole.vertices, whole.faces[before], "")
    assert before.mean() < 0.6
    surfaces(tmp_path / "whole.png", [[whole]])
    surfaces(tmp_path / "half.png", [[half]])
    assert np.array_equal(plt.imread(tmp_path / "whole.png"), plt.imread(tmp_path / "half.png"))


def test_marks_behind_a_ball_are_hidden() -> None:
    rng = np.random.default_rng(0)
    ball = rng.standard_normal((4000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    azimuth, elevation = np.deg2rad([AZIMUTH, ELEVATION])
    viewer = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    assert hidden(ball, np.stack([viewer, -viewer])).tolist() == [False, True]
