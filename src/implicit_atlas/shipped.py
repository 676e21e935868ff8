"""The models that come with the package, by name."""

from __future__ import annotations

import json
from pathlib import Path

from implicit_atlas.atlas.checkpoint import CARD, CONFIG, WEIGHTS
from implicit_atlas.errors import InputError

FOLDER = Path(__file__).parent / "models"


def shipped_models() -> dict[str, Path]:
    """Model folders by name, in alphabetical order."""
    found = sorted(path.parent for path in FOLDER.glob(f"*/{CONFIG}"))
    return {folder.name: folder for folder in found}


def described(folder: Path) -> str:
    """Size, method and number of training shapes of a model that ships; its tensors are not read."""
    size_mb = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return f"{size_mb:5.1f} MB  {config['model']['method']}  {len(config['names'])} training shapes"


def notes(folder: Path) -> str:
    """What a model's card says after its table: data, licence, scores and use."""
    text = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    return text.rpartition("\n|")[2].partition("\n")[2].strip()


def find_model(model: str | Path) -> Path:
    """A model folder: the path itself, or where it holds no model the one of that name that comes with the package.

    Raises:
        InputError: a bare name that is neither, or a file or folder that holds no model.
    """
    path, known = Path(model), shipped_models()
    is_name = path.name == str(model) and not path.suffix
    if is_name and path.name in known and not (path / CONFIG).exists():
        return known[path.name]
    if path.is_file() or (path.is_dir() and not any((path / name).exists() for name in (CONFIG, WEIGHTS))):
        remedy = (
            "Give a model folder (*.atlas) or the name of a model that ships; in commands, it comes first."
        )
        raise InputError(path, "is no model", remedy)
    if path.exists() or not is_name:
        return path
    remedy = f"Give a model folder (*.atlas), or a model that ships: {', '.join(known) or 'none'}."
    raise InputError(path, "is no model", remedy)
