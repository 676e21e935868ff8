"""The model card, and the facts that `info` prints."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from implicit_atlas.atlas.folder import AtlasConfig

FEW_NAMES = 12


@runtime_checkable
class Described(Protocol):
    """What a card tells of a `TrainedAtlas`."""

    config: AtlasConfig
    provenance: dict[str, Any]

    @property
    def templates(self) -> int:
        """Number of templates."""
        ...

    @property
    def parameters(self) -> int:
        """Number of learned weights."""
        ...

    def template_usage(self) -> list[int]:
        """Training shapes of each template."""
        ...


def facts(atlas: Described) -> list[tuple[str, str]]:
    """What a model is and how it was trained, name by name."""
    about, source = atlas.config, atlas.provenance
    options = source["training"]
    mirrored = source.get("mirrored", ())
    turned = f", {len(mirrored)} shapes mirrored" if mirrored else ""
    return [
        ("method", about.model.method),
        ("code size", str(about.model.code_size)),
        ("templates", f"{atlas.templates} (used by {atlas.template_usage()} training shapes)"),
        ("parameters", f"{atlas.parameters:,}"),
        ("training shapes", f"{len(about.names)} and {options['warps']} warped copies{turned}"),
        ("their names", _some(about.names)),
        ("labels", ", ".join(map(str, about.labels)) or "all above 0"),
        ("frame", f"{about.frame}, margin {about.margin:g}, resolution {about.resolution}"),
        ("mean size", " x ".join(f"{size:.1f}" for size in about.size_mm) + " mm"),
        ("training", f"{source['steps']} steps, {source['seconds']:.0f} s, seed {options['seed']}"),
        ("device", f"{source['device']}, torch {source['torch']}"),
        ("version", str(source.get("version", "unknown"))),
    ]


def _some(names: tuple[str, ...]) -> str:
    """The first and the last of many names."""
    return ", ".join(names) if len(names) <= FEW_NAMES else f"{', '.join(names[:3])} ... {names[-1]}"


def model_card(
    atlas: Described,
    organ: str,
    data: str = "not stated",
    licence: str = "not stated",
    scores: str = "not stated",
) -> str:
    """Markdown text of a model's README."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts(atlas))
    return f"""# {organ}: shape atlas ({atlas.config.model.method})

A learned deformable multi-template implicit shape model (ImplicitAtlas, CVPR 2022), written by implicit-atlas.

| | |
|---|---|
{rows}

**Training data**: {data}. The SHA-256 of each training mask is in `manifest.json`.

**Licence of the weights**: {licence}.

**Scores**: {scores}.

**Intended use**: reconstruction and analysis of shapes of the organ that it was trained on, in research. Not a
medical device. Shapes that differ from the training shapes (other organs, severe pathology) are fitted badly;
check the residual of each fit.
"""
