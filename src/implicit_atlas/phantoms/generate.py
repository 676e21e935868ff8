"""Phantoms: a random organ of a family placed on a scanner's grid, with its ground truth beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from implicit_atlas.errors import InputError
from implicit_atlas.io import Mask, Mesh, voxelise, write_mask
from implicit_atlas.io.voxel_grid import Grid
from implicit_atlas.phantoms.artefacts import add_label_noise, crop_border, merge_slices
from implicit_atlas.phantoms.solids import FAMILIES, make_solid, solid_faces
from implicit_atlas.support.files import write_atomic

ORIENTATIONS = tuple(
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for flips in product((0, 1), repeat=3)
)
_DIRECTIONS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}


@dataclass(frozen=True)
class PhantomConfig:
    """How phantoms are made.

    Args:
        voxels: in-plane voxels along the organ's longest extent.
        variability: 0 gives the family's average organ every time, 1 variability like that of real organs.
        orientation: where the array axes point, as "LPS", or "random" for one of the 48 axis orders each
            time; one data set may have several.
        oblique_degrees: the scanner, and the organ with it, is tilted by up to this angle.
        anisotropy: the slices (last axis) are up to this many times thicker than a voxel is wide.
        label_noise_voxels: standard deviation of a random shift of the border.
        merged_slices: this many neighbouring slices share one outline (1: none).
        crop: fraction of the organ that is cut off on one side.

    Raises:
        InputError: a value out of range.
    """

    voxels: int = 48
    variability: float = 1.0
    orientation: str = "LPS"
    oblique_degrees: float = 20.0
    anisotropy: float = 1.5
    label_noise_voxels: float = 0.0
    merged_slices: int = 1
    crop: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "voxels": (8, 512),
            "variability": (0, 1.5),
            "oblique_degrees": (0, 40),
            "anisotropy": (1, 8),
            "label_noise_voxels": (0, 8),
            "merged_slices": (1, 16),
            "crop": (0, 0.8),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise InputError(name, f"{value} is out of range", f"Use {lowest} to {highest}.")
        if self.orientation not in (*ORIENTATIONS, "random"):
            remedy = 'Use axis codes such as "RAS" or "LPS", or "random".'
            raise InputError("orientation", f"'{self.orientation}' is unknown", remedy)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic organ and everything that is known about it.

    Args:
        name: unique within a data set.
        family: one of `FAMILIES`.
        mask: the organ as annotated, with the artefacts that were asked for.
        clean_mask: the same organ on the same grid without artefacts.
        volume_mm3: volume inside the exact surface.
        landmark_names: what the landmarks are, the same in every organ of the family.
        landmarks_mm: (k, 3) where they are, RAS mm, on the exact surface.
        vertices_mm: (v, 3) the exact surface, RAS mm; vertex i is the same place in all organs of the family.
        faces: (f, 3) its triangles, oriented outward, the same for every phantom.
    """

    name: str
    family: str
    mask: Mask
    clean_mask: Mask
    volume_mm3: float
    landmark_names: tuple[str, ...]
    landmarks_mm: Float[np.ndarray, "k 3"]
    vertices_mm: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]

    @property
    def surface(self) -> Mesh:
        """The exact surface as a mesh."""
        return Mesh(self.vertices_mm, self.faces)


def make_phantom(
    family: str, seed: int, config: PhantomConfig | None = None, name: str | None = None
) -> Phantom:
    """Make one synthetic organ; the same arguments always give the same one.

    The organ and its grid depend on the seed alone; artefacts are added to them afterwards.

    Raises:
        InputError: an unknown family, a negative seed, or artefacts that leave no voxel.
    """
    config = config or PhantomConfig()
    _check_family(family)
    if seed < 0:
        raise InputError("seed", f"{seed} is negative", "Use 0 or more.")
    streams = np.random.SeedSequence((FAMILIES.index(family), seed)).spawn(3)
    shape_rng, grid_rng, artefact_rng = (np.random.default_rng(stream) for stream in streams)
    solid, faces = make_solid(family, shape_rng, config.variability), solid_faces()
    grid, vertices_mm = _place(solid.vertices_mm, grid_rng, config)
    surface = Mesh(vertices_mm, faces)
    clean, _ = voxelise(surface, grid=grid)
    path = Path(f"{name or f'{family}-{seed:04d}'}.nii.gz")
    return Phantom(
        name=name or f"{family}-{seed:04d}",
        family=family,
        mask=_mask(_with_artefacts(clean, config, artefact_rng), grid, path),
        clean_mask=_mask(clean, grid, path),
        volume_mm3=surface.volume_mm3,
        landmark_names=tuple(solid.landmark_vertices),
        landmarks_mm=vertices_mm[list(solid.landmark_vertices.values())],
        vertices_mm=vertices_mm,
        faces=faces,
    )


def make_phantoms(
    family: str, count: int, seed: int = 0, config: PhantomConfig | None = None
) -> list[Phantom]:
    """Make a data set of one family; phantom i is the same whatever the count.

    Raises:
        InputError: an unknown family, a count below 1, or as `make_phantom`.
    """
    _check_family(family)
    if count < 1 or seed < 0:
        raise InputError(
            "phantoms", f"count {count}, seed {seed} make no sense", "Use count >= 1, seed >= 0."
        )
    seeds = [int(np.random.SeedSequence((seed, i)).generate_state(1)[0]) for i in range(count)]
    return [make_phantom(family, s, config, f"{family}-{i:03d}") for i, s in enumerate(seeds)]


def write_phantoms(
    folder: Path | str, family: str, count: int, seed: int = 0, config: PhantomConfig | None = None
) -> list[Path]:
    """Write a data set of phantoms as NIfTI masks, with its ground truth in a subfolder `truth`.

    `truth/` holds `phantoms.json` (volume and landmarks of each), `correspondence.npz` (vertices_mm
    (count, v, 3), faces (f, 3), names) and the masks without artefacts in `truth/clean`.

    Returns:
        The masks' paths, in order.

    Raises:
        InputError: as `make_phantoms`, or the folder cannot be written.
    """
    phantoms = make_phantoms(family, count, seed, config)
    folder = Path(folder)
    paths = [folder / phantom.mask.path for phantom in phantoms]
    for path, phantom in zip(paths, phantoms, strict=True):
        write_mask(path, phantom.mask.occupancy, phantom.mask.grid)
        write_mask(folder / "truth" / "clean" / path.name, phantom.clean_mask.occupancy, phantom.mask.grid)
    records = json.dumps([_record(phantom) for phantom in phantoms], indent=1)
    write_atomic(folder / "truth" / "phantoms.json", records.encode())
    write_atomic(folder / "truth" / "correspondence.npz", lambda path: _save_correspondence(path, phantoms))
    return paths


def _check_family(family: str) -> None:
    if family not in FAMILIES:
        raise InputError("family", f"'{family}' is unknown", f"Use one of {', '.join(FAMILIES)}.")


def _place(
    vertices_mm: Float[np.ndarray, "v 3"], rng: np.random.Generator, config: PhantomConfig
) -> tuple[Grid, Float[np.ndarray, "v 3"]]:
    """Pose an organ in the patient and lay a scanner's grid around it; returns the vertices in RAS mm."""
    degrees = np.clip(rng.normal(size=3), -2, 2) * 4 * config.variability
    tilt = rng.uniform(-1, 1, 3) * config.oblique_degrees / np.sqrt(3)
    offset_mm = rng.uniform(-120, 120, 3)
    orientation = ORIENTATIONS[rng.integers(len(ORIENTATIONS))]
    if config.orientation != "random":
        orientation = config.orientation
    axes = np.array([_DIRECTIONS[code] for code in orientation], dtype=float).T
    along_axes = vertices_mm @ _rotation(degrees).T @ axes
    spacing = np.full(3, np.ptp(along_axes, axis=0).max() / config.voxels)
    spacing[2] *= rng.uniform(1, config.anisotropy)
    lower = along_axes.min(axis=0) - rng.uniform(2, 6, 3) * spacing
    upper = along_axes.max(axis=0) + rng.uniform(2, 6, 3) * spacing
    shape = np.ceil((upper - lower) / spacing).astype(int) + 1
    scanner = _rotation(tilt) @ axes
    affine = np.eye(4)
    affine[:3, :3] = scanner * spacing
    affine[:3, 3] = scanner @ lower + offset_mm
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine), along_axes @ scanner.T + offset_mm


def _rotation(degrees: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rotation about the x, then the y, then the z axis."""
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def _with_artefacts(
    clean: Bool[np.ndarray, "x y z"], config: PhantomConfig, rng: np.random.Generator
) -> Bool[np.ndarray, "x y z"]:
    occupancy = clean
    if config.label_noise_voxels > 0:
        occupancy = add_label_noise(occupancy, config.label_noise_voxels, rng)
    if config.merged_slices > 1:
        occupancy = merge_slices(occupancy, config.merged_slices)
    if config.crop > 0 and occupancy.any():
        occupancy = crop_border(occupancy, config.crop, rng)
    if not occupancy.any():
        raise InputError("phantom", "its artefacts leave no voxel", "Make them weaker, or use more voxels.")
    return occupancy


def _mask(occupancy: Bool[np.ndarray, "x y z"], grid: Grid, path: Path) -> Mask:
    return Mask(occupancy=occupancy, grid=grid, path=path, labels=(), dtype=np.dtype(np.uint8))


def _record(phantom: Phantom) -> dict[str, Any]:
    landmarks = zip(phantom.landmark_names, phantom.landmarks_mm.tolist(), strict=True)
    return {
        "name": phantom.name,
        "family": phantom.family,
        "volume_mm3": phantom.volume_mm3,
        "landmarks_ras_mm": dict(landmarks),
    }


def _save_correspondence(path: Path, phantoms: list[Phantom]) -> None:
    vertices_mm = np.stack([phantom.vertices_mm for phantom in phantoms])
    names = np.array([phantom.name for phantom in phantoms])
    np.savez(path, vertices_mm=vertices_mm, faces=phantoms[0].faces, names=names)
