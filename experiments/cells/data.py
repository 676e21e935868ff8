"""The shapes of an experiment: which are known, which are unknown, and which five are the few."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from experiments.cells.corrupt import corrupted
from implicit_atlas import load_shapes
from implicit_atlas.errors import InputError
from implicit_atlas.io import case_name
from implicit_atlas.phantoms import PhantomConfig, write_phantoms
from implicit_atlas.shapes.shape import Shape

Organ = Literal["hippocampus", "liver", "pancreas", "prostate", "kidney"]
"""The paper's three, and two that nothing was chosen on."""
Subset = Literal["train", "few_shot", "first-10", "first-20", "first-50", "first-100"]
HERE = Path(__file__).parents[1]
PAPER = json.loads((HERE / "paper.json").read_text(encoding="utf-8"))
DEFAULT_DATA = HERE.parent.parent / "shared" / "data"
FEW = 5


@dataclass(frozen=True)
class Split:
    """Shapes to learn from, and shapes that no training sees; the few are the first known ones, as all subsets are."""

    known: tuple[Shape, ...]
    unknown: tuple[Shape, ...]

    def training(self, subset: Subset, noise: str = "") -> tuple[Shape, ...]:
        """What a cell of this subset learns from: clean, or with one of `experiments.cells.corrupt.NOISES`.

        Raises:
            InputError: there are fewer shapes, or there is no such noise.
        """
        if not self.holds(subset):
            problem = f"needs {_size(subset)} training shapes, and there are {len(self.known)}"
            raise InputError(f"subset {subset!r}", problem, "Choose a smaller one, or train.")
        return tuple(corrupted(shape, noise) for shape in self.known[: _size(subset)])

    def holds(self, subset: Subset) -> bool:
        """Whether there are so many shapes."""
        return len(self.known) >= (_size(subset) or 0)


def load_split(organ: Organ, data: Path | None = None) -> Split:
    """Read an organ's masks and split them.

    Args:
        organ: which.
        data: a folder with `masks` and `splits.json` (train, val), or a Decathlon `labelsTr`, whose cases are
            split by name order into the paper's numbers of known and unknown shapes.

    Raises:
        InputError: the organ is unknown, or the folder holds other cases than its split names.
    """
    if organ not in get_args(Organ):
        raise InputError(f"organ {organ!r}", "is not known", f"Choose one of: {', '.join(get_args(Organ))}.")
    folder = data or DEFAULT_DATA / organ
    if not folder.is_dir():
        raise InputError(folder, "does not exist", "Give --data FOLDER with the masks, or --smoke.")
    splits = folder / "splits.json"
    if splits.exists():
        names = json.loads(splits.read_text(encoding="utf-8"))
        known, unknown = names["train"], names["val"]
        shapes = _by_name(folder / "masks")
    else:
        if organ not in PAPER["table1"]:
            raise InputError(folder, "has no splits.json", "Give a folder with masks/ and splits.json.")
        shapes = _by_name(folder)
        count = PAPER["table1"][organ]
        ordered = sorted(shapes)
        if len(ordered) != count["known"] + count["unknown"]:
            problem = (
                f"holds {len(ordered)} cases, the paper's {organ} has {count['known']} + {count['unknown']}"
            )
            raise InputError(folder, problem, "Give the Decathlon's labelsTr, or a folder with splits.json.")
        known, unknown = ordered[: count["known"]], ordered[count["known"] :]
    return Split(_chosen(shapes, known, folder), _chosen(shapes, unknown, folder))


def phantom_split(folder: Path, known: int = 6, unknown: int = 2) -> Split:
    """A few small synthetic organs, for smoke runs."""
    write_phantoms(folder, "curved-tube", known + unknown, config=PhantomConfig(voxels=24))
    shapes = load_shapes(folder)
    return Split(tuple(shapes[:known]), tuple(shapes[known:]))


def _size(subset: Subset) -> int | None:
    """Number of shapes, None for all."""
    if subset == "train":
        return None
    return FEW if subset == "few_shot" else int(subset.removeprefix("first-"))


def _by_name(folder: Path) -> dict[str, Shape]:
    return {shape.name: shape for shape in load_shapes(folder)}


def _chosen(shapes: dict[str, Shape], names: list[str], folder: Path) -> tuple[Shape, ...]:
    wanted = [case_name(Path(name)) for name in names]
    missing = [name for name in wanted if name not in shapes]
    if missing:
        raise InputError(folder, f"lacks {', '.join(missing[:5])}", "Correct the split, or add the masks.")
    return tuple(shapes[name] for name in wanted)
