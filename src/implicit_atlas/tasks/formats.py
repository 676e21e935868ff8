"""The files of a case's results: a mask and a mesh, in the formats that were asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, get_args

MaskFormat = Literal["nii.gz", "nrrd", "mha"]
MeshFormat = Literal["ply", "stl", "obj", "vtp", "glb"]


@dataclass(frozen=True)
class Formats:
    """How masks and meshes are written, by the endings of their files.

    Meshes lie apart, so that a folder of results can be read again as masks, of which a name stands for one file only.
    """

    mask: MaskFormat = "nii.gz"
    mesh: MeshFormat = "ply"

    def mask_path(self, folder: Path, name: str) -> Path:
        """Where a case's mask is written, or its label map."""
        return folder / f"{name}.{self.mask}"

    def mesh_path(self, folder: Path, name: str) -> Path:
        """Where a case's mesh is written."""
        return folder / "meshes" / f"{name}.{self.mesh}"

    def spread_path(self, folder: Path, name: str) -> Path:
        """Where a mesh with the spread of each vertex is written; a mesh that is a VTP itself holds it."""
        return folder / "meshes" / f"{name}.vtp"

    def probability_path(self, folder: Path, name: str) -> Path:
        """Where the probability of each voxel is written."""
        return folder / "probability" / f"{name}.{self.mask}"

    def results(self, folder: Path, name: str) -> tuple[Path, ...]:
        """All files that may be written of a case."""
        paths = self.mask_path, self.mesh_path, self.spread_path, self.probability_path
        return (*(path(folder, name) for path in paths), folder / f"{name}.mrk.json")


DEFAULT = Formats()


def results_in_any_format(folder: Path, name: str) -> list[Path]:
    """All files that calls with any formats may have written of a case."""
    every = product(get_args(MaskFormat), get_args(MeshFormat))
    return list(dict.fromkeys(path for formats in every for path in Formats(*formats).results(folder, name)))
