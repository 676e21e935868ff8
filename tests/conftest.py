"""What all tests share: the reference in benchmarks can be imported, and a busy machine fails no property test."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
