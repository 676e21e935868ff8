"""Synthetic organs with known volume, landmarks and dense correspondence: the embedded default data."""

from implicit_atlas.phantoms.generate import (
    Phantom,
    PhantomConfig,
    make_phantom,
    make_phantoms,
    write_phantoms,
)
from implicit_atlas.phantoms.solids import FAMILIES

__all__ = ["FAMILIES", "Phantom", "PhantomConfig", "make_phantom", "make_phantoms", "write_phantoms"]
