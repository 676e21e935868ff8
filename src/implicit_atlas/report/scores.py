"""What `implicit-atlas evaluate --json` wrote, read back and put in order."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from implicit_atlas.errors import InputError
from implicit_atlas.support.records import from_json
from implicit_atlas.tasks.evaluate import Protocol
from implicit_atlas.trained_atlas import TrainedAtlas

REMEDY = "Give the file that `implicit-atlas evaluate MODEL FOLDER --json FILE` of this version writes."
SECONDS_TOLERANCE = 0.05


@dataclass(frozen=True)
class ScoredCase:
    """`implicit_atlas.tasks.evaluate.CaseScore` as it was written; a score that is not finite is None."""

    name: str
    dsc: float | None
    nsd: float | None
    hd95_mm: float | None
    assd_mm: float | None
    dsc_native: float | None
    seconds: float
    iterations: int
    template: int | None
    start: str
    learned: bool
    mirrored: bool
    doubt: str


@dataclass(frozen=True)
class ScoredProblem:
    """A case that could not be scored."""

    name: str
    path: str
    message: str


@dataclass(frozen=True)
class Scores:
    """Scores of a model, the protocol that they follow, and the cases that could not be scored."""

    protocol: Protocol
    mean: dict[str, float | None]
    cases: tuple[ScoredCase, ...]
    problems: tuple[ScoredProblem, ...]

    def worst_first(self) -> list[ScoredCase]:
        """The cases from the least NSD on; of equal ones, from the least DSC on."""
        return sorted(self.cases, key=lambda case: (_rank(case.nsd), _rank(case.dsc), case.name))

    def values(self, score: str) -> list[float]:
        """A score of every case in which it is finite."""
        return [value for case in self.cases if (value := getattr(case, score)) is not None]

    def doubts(self, atlas: TrainedAtlas) -> list[str]:
        """Why these may not be scores of the model, or not of unseen shapes, in sentences."""
        about, source, protocol = atlas.config, atlas.provenance, self.protocol
        pairs = {
            "method": (protocol.method, about.model.method),
            "code size": (protocol.code_size, about.model.code_size),
            "templates": (protocol.templates, atlas.templates),
            "parameters": (protocol.parameters, atlas.parameters),
            "training shapes": (protocol.training_shapes, len(about.names)),
            "training steps": (protocol.training_steps, source["steps"]),
            "seed": (protocol.seed, source["training"]["seed"]),
        }
        found = [f"{name} {theirs}, here {own}" for name, (theirs, own) in pairs.items() if theirs != own]
        if abs(protocol.training_seconds - source["seconds"]) > SECONDS_TOLERANCE:
            found.append(f"training of {protocol.training_seconds:g} s, here {source['seconds']:g} s")
        sentences = [f"These are scores of another model: {'; '.join(found)}."] if found else []
        unsure = [case.name for case in self.cases if case.doubt]
        if unsure:
            first = ", ".join(unsure[:3]) + (", ..." if len(unsure) > 3 else "")
            sentences.append(f"Fits of {len(unsure)} cases are not to be trusted ({first}).")
        seen = sum(case.learned for case in self.cases)
        if seen and not protocol.known:
            sentences.append(
                f"Cases that are training shapes, by their name or their file: {seen} of {len(self.cases)}. "
                "The mean is then not that of unseen shapes."
            )
        return sentences


@dataclass(frozen=True)
class Summary:
    """Mean and spread of a score over the cases in which it is finite.

    Args:
        deviation: standard deviation of a sample (n - 1); None for fewer than two cases.
    """

    count: int
    mean: float
    deviation: float | None
    least: float
    greatest: float


def summary(values: list[float]) -> Summary | None:
    """The summary of some values; None without one."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.fmean(values), deviation, min(values), max(values))


def read_scores(path: Path) -> Scores:
    """Read the file of an evaluation.

    Raises:
        InputError: it cannot be read, or is not such a file.
    """
    try:
        # An empty reconstruction has infinite distances, which Python writes as Infinity.
        content = json.loads(path.read_bytes().decode("utf-8"), parse_constant=lambda name: None)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", REMEDY) from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not valid JSON ({error})", REMEDY) from error
    return from_json(Scores, content, path, REMEDY)


def _rank(value: float | None) -> float:
    return float("-inf") if value is None else value
