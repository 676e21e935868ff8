"""What all tests share: array shapes and types are checked at run time, and benchmarks can be imported."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

# All modules but the kernels: numba compiles those, and cannot keep compiled code of a checked function.
MODULES = [module.name for module in pkgutil.iter_modules([str(ROOT / "src" / "implicit_atlas")])]
install_import_hook(
    [f"implicit_atlas.{name}" for name in MODULES if name != "kernels"], "runtime_types.check"
)

# Workers share the processor, so that a slow example says nothing.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
