"""Options that several commands share: what they are called, and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from implicit_atlas.tasks.formats import MaskFormat, MeshFormat

Model = Annotated[Path, typer.Argument(help="model folder (*.atlas), or the name of a model that ships")]
Masks = Annotated[
    list[Path],
    typer.Argument(help="masks, folders of masks, or a pattern in quotes ('cases/*/liver.nii.gz')"),
]
Folder = Annotated[
    Path, typer.Argument(help="folder of masks, or a pattern in quotes ('cases/*/liver.nii.gz')")
]
Output = Annotated[Path, typer.Option("-o", "--output", help="where the result is written")]
OutputFolder = Annotated[Path, typer.Option("-o", "--output", help="folder where results are written")]
AnyLabels = Annotated[
    str,
    typer.Option("--label", help="label ids (1,2) or a name that the data declares; default: all above 0"),
]
Labels = Annotated[
    str, typer.Option("--label", help="label ids (1,2) or a name; default: as the atlas was trained")
]
Only = Annotated[
    str | None,
    typer.Option(
        help="names of the cases to use: a text file, one a line, or a list in a file, FILE.json:KEY"
    ),
]
Resolution = Annotated[int, typer.Option(help="nodes along each axis of the cube")]
Margin = Annotated[
    float, typer.Option(help="empty border on each side, as a share of the organ's box; 0 is the paper's")
]
Method = Annotated[str, typer.Option(help="method of the paper's tables")]
Seed = Annotated[int, typer.Option(min=0, help="seed of the random numbers")]
Iterations = Annotated[
    int | None,
    typer.Option(min=1, help="iterations of the fit, at most; default: 100, of methods without modes 200"),
]
Local = Annotated[
    bool, typer.Option("--local", help="closer to the mask, with some thousand more numbers a shape")
]
LocalByDefault = Annotated[
    bool,
    typer.Option("--local/--no-local", help="closer to the masks, with some thousand more numbers a shape"),
]
Side = Annotated[
    Literal["no", "auto", "all"],
    typer.Option(
        "--mirror", help="which are of the other side, mirror images of the atlas's organs: auto finds out"
    ),
]
MaskEnding = Annotated[MaskFormat, typer.Option("--mask-format", help="format of masks and other volumes")]
MeshEnding = Annotated[MeshFormat, typer.Option("--mesh-format", help="format of meshes")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="also write the result as JSON")]
