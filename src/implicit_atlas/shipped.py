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
    """A model folder: the path itself, or where it holds no model the one of that name that comes with the package.

    Raises:
        InputError: a bare name that is neither.
    """
    path, known = Path(model), shipped_models()
    is_name = path.name == str(model) and not path.suffix
    if is_name and path.name in known and not (path / CONFIG).exists():
        return known[path.name]
    if path.exists() or not is_name:
        return path
    remedy = f"Give a model folder (*.atlas), or a model that ships: {', '.join(known) or 'none'}."
    raise InputError(path, "is no model", remedy)
