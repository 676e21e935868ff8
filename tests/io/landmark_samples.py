"""Lists of landmarks as 3D Slicer and spreadsheets write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from io_samples import written


def as_file(folder: Path, content: str | bytes, suffix: str) -> Path:
    return written(folder, content if isinstance(content, bytes) else content.encode(), f"clicks{suffix}")


def point(position: Any = (1.0, 2.0, 3.0), **fields: Any) -> dict[str, Any]:
    return {"label": "F-1", "position": position, **fields}


def markups(*points: Any, **fields: Any) -> dict[str, Any]:
    return {"markups": [{"type": "Fiducial", "controlPoints": list(points), **fields}]}
