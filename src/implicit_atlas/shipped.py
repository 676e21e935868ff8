"""The models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from implicit_atlas.checkpoint import CONFIG
from implicit_atlas.errors import InputError

FOLDER = Path(__file__).parent / "models"


def shipped_models() -> dict[str, Path]:
    """Model folders by name, in alphabetical order."""
    found = sorted(path.parent for path in FOLDER.glob(f"*/{CONFIG}"))
    return {folder.name: folder for folder in found}


def find_model(model: str | Path) -> Path:
    """A model folder: the path itself, or where nothing is there the model of that name that comes with the package.

    Raises:
        InputError: a bare name that is neither.
    """
    path, known = Path(model), shipped_models()
    if path.exists() or path.suffix or path.name != str(model):
        return path
    if path.name in known:
        return known[path.name]
    remedy = f"Give a model folder (*.atlas), or a model that ships: {', '.join(known) or 'none'}."
    raise InputError(path, "is no model", remedy)
