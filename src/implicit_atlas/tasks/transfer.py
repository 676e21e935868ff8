"""Files of cases brought together by the template that all deform: meshes of one topology, landmarks and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from implicit_atlas.correspondence.through_template import (
    Labelled,
    places_in,
    reference_template,
    share_of_folds,
    surface_map,
    template_mesh,
    transfer_labels,
)
from implicit_atlas.errors import AtlasError, InputError
from implicit_atlas.fitting.code_fit import FitConfig, at_once
from implicit_atlas.fitting.fit import all_doubts
from implicit_atlas.fitting.local import LocalConfig
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.geometry.surface import CubeMesh
from implicit_atlas.io import (
    Landmarks,
    MaskFile,
    Mesh,
    Problem,
    read_labels,
    read_landmarks,
    read_stored,
    write_label_map,
    write_landmarks,
    write_mesh,
)
from implicit_atlas.sides import Mirror
from implicit_atlas.support.console import Report
from implicit_atlas.tasks.formats import DEFAULT, Formats
from implicit_atlas.tasks.reconstruct import Reconstruction, reconstruct
from implicit_atlas.trained_atlas import TrainedAtlas

OFF_SURFACE = 0.1  # of the organ's mean size: landmarks farther from the surface are named
LEFT_MM = 0.5  # landmarks whose place was found less exactly are named
TEMPLATE = "template.ply"  # beside the folder of meshes that have its topology
FOLD_POINTS = 4000  # vertices at which folds are looked for


@dataclass(frozen=True)
class Alike:
    """Fits of masks that deform one common template, so that their places can be compared.

    Args:
        atlas: which deforms it.
        labels: ids that make the organ; none for those that the atlas was trained on.
        local: with a local residual, closer to the masks.
        problems: masks that cannot be used are added here.
        report: told how far it is.
        mirror: which masks are mirror images of the atlas's organs.
    """

    atlas: TrainedAtlas
    labels: Sequence[int] = ()
    local: bool = True
    problems: list[Problem] = field(default_factory=list)
    report: Report = lambda share, text: None
    mirror: Mirror = "no"

    @cached_property
    def template(self) -> CubeMesh:
        """The surface of that template."""
        return template_mesh(self.atlas, reference_template(self.atlas))

    def fits(self, files: Sequence[MaskFile]) -> Iterator[Reconstruction]:
        """Fit masks, batch by batch."""
        local = LocalConfig() if self.local else None
        config = FitConfig(local=local, batch=at_once(self.atlas.device.type))
        template = reference_template(self.atlas)
        told = self.problems.append, self.report
        yield from reconstruct(self.atlas, files, config, self.labels, *told, template, self.mirror)


def correspond_all(
    alike: Alike, files: Sequence[MaskFile], folder: Path, resolution: int
) -> Iterator[dict[str, Any]]:
    """Write a mesh of the reference template's topology for each mask, and the template itself; how exact each is.

    `dsc` is that of the mask and the shape whose surface the mesh follows, `left_mm_p95` what the search for the
    template's vertices in it left, `off_surface_mm_p95` how far they lie from vertices of that surface.

    Raises:
        InputError: the folder has meshes of another topology.
    """
    atlas = alike.atlas
    template = template_mesh(atlas, reference_template(atlas), resolution)
    _keep_topology(folder / TEMPLATE, template, np.array(atlas.config.size_mm) / 2)
    for found in alike.fits(files):
        fit, frame = found.fit, found.fit.placed()
        mapped = surface_map(atlas, fit, template)
        vertices, left_mm = places_in(fit, mapped, template.vertices)
        places = frame.world_to_cube(vertices)
        path = DEFAULT.mesh_path(folder, fit.name)  # a PLY, in which vertices keep their order
        write_mesh(path, Mesh(vertices, _outward(template.faces, frame)))
        step = max(1, len(places) // FOLD_POINTS)
        off_mm = KDTree(fit.mesh().vertices).query(vertices)[0]
        yield {
            "name": fit.name,
            "vertices": len(vertices),
            "left_mm_p95": round(float(np.percentile(left_mm, 95)), 4),
            "off_surface_mm_p95": round(float(np.percentile(off_mm, 95)), 4),
            "not_found": round(float((left_mm > LEFT_MM).mean()), 4),
            "folds": round(share_of_folds(mapped, places[::step]), 4),
            "dsc": round(100 * found.likeness, 2),
            "mirrored": frame.mirrored,
            "doubt": found.doubt or "",
        }


def _keep_topology(path: Path, template: CubeMesh, half_mm: np.ndarray) -> None:
    """Write the template at the mean size of its organs, where no other one is: meshes of two cannot be compared."""
    if path.exists() and not np.array_equal(read_stored(path).faces, template.faces):
        raise InputError(
            path.parent,
            "has meshes of another topology, of another model or resolution",
            "Give another folder to -o, or remove that one.",
        )
    write_mesh(path, Mesh(template.vertices * half_mm, template.faces))


def _outward(faces: np.ndarray, frame: Frame) -> np.ndarray:
    """Faces turned round where the frame mirrors."""
    return faces[:, ::-1].copy() if np.linalg.det(frame.affine_cube_to_world[:3, :3]) < 0 else faces


def carry_landmarks(
    alike: Alike, source: Path, points: Path, targets: Sequence[MaskFile], folder: Path
) -> Iterator[dict[str, Any]]:
    """Write the landmarks of a case as they lie in each target; a row for each, with what is doubtful about it.

    Raises:
        InputError: the source or its landmarks cannot be used.
    """
    marks = read_landmarks(points)
    atlas, bad = alike.atlas, []
    first = next(replace(alike, problems=bad).fits([source]), None)
    if first is None:
        raise AtlasError(f"the mask of the landmarks: {bad[0].message}")
    off_mm = KDTree(first.fit.mesh().vertices).query(marks.points_mm)[0]
    far = off_mm > OFF_SURFACE * float(np.mean(atlas.config.size_mm))
    if far.all():
        problem = f"its landmarks lie {off_mm.min():.0f} mm and more from the organ's surface"
        raise InputError(
            points, problem, "Check that they are of this case, and in the right space (LPS or RAS)."
        )
    template = alike.template
    places = first.fit.placed().world_to_cube(marks.points_mm)
    wanted = surface_map(atlas, first.fit, template)(places)
    for found in alike.fits(targets):
        places_mm, left_mm = places_in(found.fit, surface_map(atlas, found.fit, template), wanted)
        cases = all_doubts(first.doubt and f"{first.fit.name}: {first.doubt}", found.doubt)
        doubts = [
            all_doubts(_doubt(*one), cases) or ""
            for one in zip(left_mm.tolist(), off_mm.tolist(), far.tolist(), strict=True)
        ]
        # Who opens the file should see it there, too.
        names = tuple(
            f"{name} (doubtful)" if doubt else name for name, doubt in zip(marks.labels, doubts, strict=True)
        )
        carried = Landmarks(places_mm, names, marks.occupancy, folder / f"{found.fit.name}.mrk.json")
        write_landmarks(carried.path, carried)
        for name, place, left, off, doubt in zip(
            marks.labels, places_mm, left_mm, off_mm, doubts, strict=True
        ):
            x, y, z = (round(float(value), 3) for value in place)
            yield {
                "case": found.fit.name,
                "landmark": name,
                "x": x,
                "y": y,
                "z": z,
                "left_mm": round(float(left), 3),
                "off_surface_mm": round(float(off), 3),
                "mirrored": found.fit.placed().mirrored,
                "doubt": doubt,
            }


def _doubt(left_mm: float, off_mm: float, is_far: bool) -> str:
    """Why a landmark that was carried is not to be trusted."""
    if is_far:
        return f"it lies {off_mm:.1f} mm from the surface of its own case"
    return f"its place was found to {left_mm:.1f} mm only" if left_mm > LEFT_MM else ""


def carry_labels(
    alike: Alike,
    sources: Sequence[MaskFile],
    targets: Sequence[MaskFile],
    folder: Path,
    formats: Formats = DEFAULT,
) -> Iterator[dict[str, Any]]:
    """Write a label map of each target's parts, by the vote of the labelled cases; a row for each, with doubts.

    Raises:
        InputError: no labelled case can be used.
    """
    atlas = alike.atlas
    template = alike.template
    labelled = [
        (found.fit.name, found.doubt, parts_of(atlas, found, template)) for found in alike.fits(sources)
    ]
    known = [parts for *_, parts in labelled]
    if not known:
        why = f": {alike.problems[0].message.rstrip('.')}" if alike.problems else ""
        raise InputError(
            "labelled cases", f"cannot be used{why}", "Give at least one label map with the organ's parts."
        )
    ids = np.unique(np.concatenate([own.labels for own in known]))
    doubts = [_source_doubt(*one, ids) for one in labelled]
    for found in alike.fits(targets):
        mask = found.case.mask
        parts = transfer_labels(known, voxels_in_template(atlas, found, template))
        values = np.zeros(mask.grid.shape, parts.dtype)
        values[mask.occupancy] = parts
        write_label_map(formats.mask_path(folder, found.fit.name), values, mask.grid)
        row: dict[str, Any] = {"case": found.fit.name, "mirrored": found.fit.placed().mirrored}
        row |= {f"voxels_{part}": int((parts == part).sum()) for part in ids}
        yield {**row, "doubt": all_doubts(found.doubt, *doubts) or ""}


def _source_doubt(name: str, doubt: str | None, parts: Labelled, ids: np.ndarray) -> str | None:
    """Why not to trust what a labelled case says; `ids` are the parts of all of them."""
    absent = np.setdiff1d(ids, parts.labels)
    lacks = f"it has no part {', '.join(map(str, absent))}" if len(absent) else None
    alone = f"it has one part alone ({ids[0]}), which says nothing" if len(ids) == 1 else None
    doubt = all_doubts(doubt, lacks, alone)
    return doubt and f"{name}: {doubt}"


def voxels_in_template(atlas: TrainedAtlas, found: Reconstruction, template: CubeMesh) -> np.ndarray:
    """Where the voxels of a case's mask lie in the template."""
    voxels = np.argwhere(found.case.mask.occupancy).astype(np.float64)
    return surface_map(atlas, found.fit, template)(found.fit.placed().voxel_to_cube(voxels))


def parts_of(atlas: TrainedAtlas, found: Reconstruction, template: CubeMesh) -> Labelled:
    """Places in the template of the voxels of a labelled case, and their labels."""
    mask = found.case.mask
    return Labelled(voxels_in_template(atlas, found, template), read_labels(mask.path).values[mask.occupancy])
