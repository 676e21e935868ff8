"""The command that writes masks, label maps and surfaces in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from implicit_atlas.cli.cases import labels_of, mask_files
from implicit_atlas.cli.options import OutputFolder
from implicit_atlas.cli.output import finish, keep_sources, results_folder
from implicit_atlas.errors import InputError

Format = Literal["nii.gz", "nii", "nrrd", "mha", "stl", "ply", "obj", "vtp", "glb"]


def convert(
    sources: Annotated[
        list[Path], typer.Argument(help="masks, label maps or surfaces, or folders or patterns of them")
    ],
    output: OutputFolder,
    to: Annotated[Format, typer.Option(help="format of the results, volumes or surfaces")],
    label: Annotated[str, typer.Option("--label", help="label ids (1,2) or a name; default: all")] = "",
    distance: Annotated[
        bool,
        typer.Option(
            "--distance", help="volumes of the signed distance to the surface in mm, positive inside"
        ),
    ] = False,
) -> None:
    """Write masks and surfaces in another format, at the same place in the scanner (RAS and LPS as formats have it)."""
    from implicit_atlas.io import Problem
    from implicit_atlas.io.cases import matches
    from implicit_atlas.io.formats import MESH_SUFFIXES

    if distance and f".{to}" in (*MESH_SUFFIXES, ".glb"):
        raise InputError(
            "--distance", f"{to} holds surfaces, without distances", "Choose a volume's: --to nii.gz."
        )
    problems: list[Problem] = []
    files = mask_files(sources, problems)
    total = len(files) + len(problems)
    results_folder(output, [path for one in sources for path in matches(one) if path.is_dir()])
    keep_sources([output / f"{file.name}.{to}" for file in files], [file.path for file in files])
    labels, done = labels_of(label, sources), []
    for file in files:
        result = output / f"{file.name}.{to}"
        try:
            write_converted(file.path, result, labels, distance)
            done.append(file.name)
        except InputError as error:
            problems.append(file.problem(error))
    print(f"{output}: {len(done)} files")
    finish(problems, total, output, done)


def write_converted(source: Path, result: Path, labels: tuple[int, ...], distance: bool = False) -> None:
    """Write a mask, label map or surface as another file, by its suffix.

    Surfaces of masks have the voxels' steps; masks of surfaces lie on a grid around them. Vertices of a PLY keep their
    order, so that meshes of one topology stay so.

    Args:
        source: of any format that is read.
        result: its suffix is the format.
        labels: ids that make the organ; all where there are none.
        distance: write the depth of each voxel's centre below the surface in mm (float32, negative outside).

    Raises:
        InputError: the source cannot be read, or has not these labels; a distance where a surface is to be written.
    """
    from implicit_atlas.geometry.outlines import depths
    from implicit_atlas.geometry.surface import occupancy_mesh
    from implicit_atlas.io import (
        read_labels,
        read_mask,
        read_mesh,
        read_stored,
        write_label_map,
        write_mask,
        write_mesh,
    )
    from implicit_atlas.io.formats import MESH_SUFFIXES, suffix_of
    from implicit_atlas.io.volumes import say_notes, write_volume

    is_surface = suffix_of(source) in MESH_SUFFIXES
    if suffix_of(result) in (*MESH_SUFFIXES, ".glb"):
        if distance:
            raise InputError(result, "a surface has no distances", "Choose a volume's format: --to nii.gz.")
        if is_surface:
            if labels:
                raise InputError(source, "is a surface, without labels", "Leave --label out.")
            mesh = read_stored(source) if suffix_of(source) == ".ply" else read_mesh(source)
            say_notes(source, mesh.notes)
        else:
            mask = read_mask(source, labels)
            mesh = occupancy_mesh(mask.occupancy, mask.grid)
        write_mesh(result, mesh)
        return
    if labels or distance:
        mask = read_mask(source, labels)
        if distance:
            write_volume(result, depths(mask.occupancy, mask.grid.spacing_mm), mask.grid)
        else:
            write_mask(result, mask.occupancy, mask.grid)
    else:
        found = read_labels(source)
        say_notes(source, found.notes)
        write_label_map(result, found.values, found.grid)
