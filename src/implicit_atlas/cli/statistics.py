"""The command of shape statistics: mean, principal modes, quality of the model, and two groups compared."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from implicit_atlas.cli.options import OutputFolder, Seed
from implicit_atlas.cli.output import keep_files, results_folder, write_csv
from implicit_atlas.errors import InputError

LEVEL = 0.05  # of false discoveries


def statistics(  # noqa: PLR0913 (each is an option of the command)
    meshes: Annotated[Path, typer.Argument(help="folder of meshes, as `correspond` wrote them")],
    output: OutputFolder,
    modes: Annotated[int, typer.Option(min=1, help="how many principal modes")] = 5,
    scale: Annotated[
        bool, typer.Option("--scale", help="bring all to one size first, so that form is left")
    ] = False,
    groups: Annotated[Path | None, typer.Option(help="CSV (name,group) of two groups to compare")] = None,
    permutations: Annotated[
        int, typer.Option(min=1, help="relabellings that groups are compared with")
    ] = 1000,
    seed: Seed = 0,
) -> None:
    """Mean shape, modes of +-2 deviations, compactness, generality, specificity; where two groups differ."""
    from implicit_atlas.statistics import align
    from implicit_atlas.statistics.cases import check_at_least
    from implicit_atlas.statistics.files import corresponding, read_groups, write_comparison, write_modes

    folder = meshes / "meshes" if (meshes / "meshes").is_dir() else meshes
    results_folder(output, [folder, meshes])
    paths = sorted(folder.glob("*.ply"))
    if not paths:
        raise InputError(
            meshes, "holds no .ply meshes", "Give the folder that `implicit-atlas correspond` wrote."
        )
    for name in ("modes.csv", "scores.csv"):
        keep_files(output / name, [groups])
    names = [path.stem for path in paths]
    labels = None if groups is None else read_groups(groups, names)
    check_at_least(len(paths), 3, "shapes")
    with tempfile.TemporaryDirectory() as store:
        shapes, faces = corresponding(paths, Path(store) / "vertices.npy")
        alike = align(shapes, scale)
        for old in (*output.glob("mode-*-*.ply"), output / "groups.vtp"):  # of an earlier call
            old.unlink(missing_ok=True)
        curves, scores = write_modes(alike, faces, names, modes, output, seed)
        write_csv(output / "modes.csv", curves)
        write_csv(output / "scores.csv", scores)
        share = 100 * curves[-1]["compactness"]
        print(f"{output}: {len(paths)} shapes, {len(curves) - 1} modes hold {share:.1f} % of the variance")
        if labels is not None:
            found = write_comparison(alike, faces, labels, output, permutations, seed)
            (a, b), (m, n), least = found.groups, found.sizes, float(found.q.min())
            share = (found.q <= LEVEL).mean()
            compared = f"all {found.permutations}" if found.exact else f"{found.permutations} random"
            print(
                f"{a} ({m}) and {b} ({n}): p = {found.global_p:.4g} of as large a difference by chance, "
                f"least q of a vertex {least:.4g}, {share:.1%} of vertices at q <= {LEVEL}; {compared} relabellings"
            )
