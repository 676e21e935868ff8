"""From a model folder to its report."""

from __future__ import annotations

from pathlib import Path

from implicit_atlas import __version__
from implicit_atlas.atlas.checkpoint import CARD
from implicit_atlas.errors import InputError
from implicit_atlas.report.page import page
from implicit_atlas.report.scores import Scores, read_scores
from implicit_atlas.report.sections import (
    Section,
    about_section,
    examples_section,
    latent_section,
    provenance_section,
    scores_section,
    templates_section,
    training_section,
)
from implicit_atlas.report.solids import gallery
from implicit_atlas.shipped import find_model
from implicit_atlas.support.console import Report
from implicit_atlas.support.files import write_atomic
from implicit_atlas.trained_atlas import TrainedAtlas


def write_report(
    atlas: TrainedAtlas,
    model: str | Path,
    output: Path,
    scores: Path | None = None,
    report: Report = lambda share, text: None,
) -> int:
    """Write a model's report: one HTML file, the same bytes for the same input.

    Args:
        atlas: the model, loaded.
        model: its folder, or the name of one that ships: for its card.
        output: the file to write; its folder must exist.
        scores: what `implicit-atlas evaluate --json` wrote.
        report: told the share that is done.

    Returns:
        The file's size in bytes.

    Raises:
        InputError: the scores cannot be read, or the file cannot be written.
    """
    folder = find_model(model)
    scored = None if scores is None else read_scores(scores)
    content = page(
        f"{folder.stem}: shape model report",
        _sections(atlas, folder, scored, report),
        f"Written by implicit-atlas {__version__}. Not a medical device.",
    )
    write_atomic(output, content)
    report(1.0, "written")
    return len(content)


def _sections(atlas: TrainedAtlas, folder: Path, scored: Scores | None, report: Report) -> list[Section]:
    found = gallery(atlas, report)
    report(0.95, "page")
    parts = [
        about_section(atlas, _card(folder)),
        templates_section(found),
        examples_section(found, len(atlas.config.names)),
        latent_section(atlas),
        training_section(atlas),
        provenance_section(atlas),
    ]
    if scored is not None:
        parts.insert(1, scores_section(scored, atlas))
    return parts


def _card(folder: Path) -> str:
    try:
        return (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            folder / CARD, f"cannot be read ({error.strerror})", "Copy the whole model folder again."
        ) from error
