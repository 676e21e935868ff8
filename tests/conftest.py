"""What all tests share: array shapes and types are checked at run time, and benchmarks can be imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # GPU kernels are interpreted; read when Triton is imported

# All modules but the kernels: numba and Triton compile those from their source, which a check would hide.
PACKAGE = ROOT / "src" / "implicit_atlas"
MODULES = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
install_import_hook(
    [".".join(module.parts) for module in MODULES if module.name not in ("kernels", "cuda_kernels")],
    "runtime_types.check",
)

# Workers share the processor, so that a slow example says nothing.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> Path:
    """Files of three synthetic organs, of the family of `tiny_atlas`."""
    from implicit_atlas.phantoms import PhantomConfig, write_phantoms

    folder = tmp_path_factory.mktemp("masks")
    write_phantoms(folder, "two-lobe", 3, config=PhantomConfig(voxels=24))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The model folder of `tiny_atlas`."""
    from atlas_samples import tiny_atlas

    folder = tmp_path_factory.mktemp("model") / "organ.atlas"
    tiny_atlas().save(folder, "")
    return folder
