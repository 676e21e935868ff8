"""What tests of stores share: a folder of masks, and shards that few shapes fill."""

from __future__ import annotations

import pytest
from shape_masks import save_masks

from implicit_atlas.shapes import shards


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHAPES_PER_SHARD", 3)


@pytest.fixture
def masks(tmp_path):
    return save_masks(tmp_path / "masks")
