"""The report: one file that needs nothing else, in which no text of the data becomes markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlas_samples import phantom_shapes, tiny_atlas, tiny_model, tiny_training
from commands import run

from implicit_atlas.card import facts, model_card
from implicit_atlas.cli.report import model_of
from implicit_atlas.errors import InputError
from implicit_atlas.io import Problem
from implicit_atlas.report import write_report
from implicit_atlas.report.markup import label
from implicit_atlas.report.scores import read_scores
from implicit_atlas.tasks.evaluate import CaseScore, Evaluation, evaluate_known
from implicit_atlas.trained_atlas import TrainedAtlas
from implicit_atlas.training.learning import train

EVIL = "</script><script>alert('x')</script><img src=http://example.org/a.png onerror=alert(1)><!--"
MOST_BYTES = 8_000_000


class Reader(HTMLParser):
    """What a browser would see: elements with attributes, text, and the contents of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif not self.inside:
            self.text += data + " "

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "organ.atlas"
    tiny_atlas().save(
        folder, model_card(tiny_atlas(), "balls", data="phantoms & more", licence="CC0 <b>1.0</b>")
    )
    return folder


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate_known(tiny_atlas(), phantom_shapes(3))


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def written(folder: Path, model: Path, evaluation: Evaluation | None = None) -> Reader:
    scores = None if evaluation is None else folder / "scores.json"
    if scores is not None and evaluation is not None:
        scores.write_text(json.dumps(evaluation.to_json()))
    write_report(tiny_atlas(), model, folder / "report.html", scores)
    return read(folder / "report.html")


def renamed(atlas: TrainedAtlas, names: list[str]) -> TrainedAtlas:
    """The same atlas of shapes with other names."""
    config = dataclasses.replace(atlas.config, names=tuple(names))
    provenance = atlas.provenance | {"content_sha256": {name: "0" * 64 for name in names}}
    return TrainedAtlas(config, atlas.network, atlas.codes, atlas.encoder, atlas.prior, provenance)


def scored(evaluation: Evaluation, *cases: tuple[str, float, float]) -> Evaluation:
    first = evaluation.cases[0]
    rows = [dataclasses.replace(first, name=name, dsc=dsc, nsd=nsd) for name, dsc, nsd in cases]
    return dataclasses.replace(evaluation, cases=tuple(rows))


def test_a_report_says_what_a_model_is(tmp_path, model):
    page = written(tmp_path, model)
    for name, value in facts(tiny_atlas()):
        assert name in page.text and value in page.text
    assert "phantoms & more" in page.text and "CC0 <b>1.0</b>" in page.text
    assert all(hashed in page.text for hashed in tiny_atlas().provenance["content_sha256"].values())
    assert "learning_rate" in page.text and "Loss is the weighted sum" in page.text
    assert "Scores" not in [*page.figures] and "Pairwise DSC" in page.text
    held = {about["data-figure"] for _, about in page.elements if "data-figure" in about}
    assert held == set(page.figures)
    examples = [name for name in held if name and name.startswith("example-")]
    assert len(examples) == min(6, len(tiny_atlas().config.names)) and "latent" in held
    assert (tmp_path / "report.html").stat().st_size < MOST_BYTES


def test_nothing_is_loaded_from_elsewhere(tmp_path, model, evaluation):
    page = written(tmp_path, model, evaluation)
    for _, about in page.elements:
        for name in ("src", "srcset", "data", "action", "poster"):
            assert name not in about
        assert (about.get("href") or "#").startswith("#")
        assert not [name for name in about if name.startswith("on")]
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "iframe", "object", "base", "form"})
    style = re.findall(r"<style>(.*?)</style>", (tmp_path / "report.html").read_text("utf-8"), re.DOTALL)[0]
    assert "url(" not in style and "@import" not in style


def test_only_the_reports_own_scripts_may_run(tmp_path, model):
    page = written(tmp_path, model)
    (policy,) = [about["content"] for _, about in page.elements if "http-equiv" in about]
    assert policy is not None and "default-src 'none'" in policy
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in page.scripts[1:]]
    assert len(digests) == 2
    (allowed,) = [part for part in policy.split("; ") if part.startswith("script-src")]
    assert allowed == "script-src " + " ".join(f"'sha256-{digest}'" for digest in digests)


def test_names_stay_text(tmp_path, model, evaluation):
    names = [f"{EVIL}{index}" for index in range(len(tiny_atlas().config.names))]
    atlas = renamed(tiny_atlas(), names)
    folder = tmp_path / "evil.atlas"
    atlas.save(folder, f"# {EVIL}\n\n**Data**: {EVIL}\n")
    problem = Problem(EVIL, Path("/masks") / "a<b>.nii.gz", f"cannot be read: {EVIL}")
    bad = scored(evaluation, (EVIL, 90, 80))
    bad = dataclasses.replace(bad, problems=(problem,))
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps(bad.to_json()))
    write_report(atlas, folder, tmp_path / "evil.html", scores)
    page, harmless = read(tmp_path / "evil.html"), written(tmp_path, model, bad)
    assert page.text.count(EVIL) > len(names)
    assert len(page.scripts) == len(harmless.scripts) == 3
    assert "img" not in {tag for tag, _ in page.elements}
    shown = [name for trace in page.figures["latent"]["data"] for name in trace["text"]]
    assert sorted(shown) == sorted(label(name) for name in names)


def test_the_worst_case_comes_first(tmp_path, model, evaluation):
    cases = (("good", 99.0, 98.0), ("worst", 93.0, 40.0), ("middle", 90.0, 60.0), ("tie", 89.0, 60.0))
    page = written(tmp_path, model, scored(evaluation, *cases))
    places = [page.text.rindex(f" {name} ") for name in ("worst", "tie", "middle", "good")]
    assert places == sorted(places)
    assert evaluation.protocol.line() in page.text
    mean, deviation = np.mean([99, 93, 90, 89]), np.std([99, 93, 90, 89], ddof=1)
    assert f"DSC (%) {mean:.2f} {deviation:.2f} 89.00 99.00 4" in " ".join(page.text.split())
    assert {"dsc", "nsd"} <= set(page.figures) and sum(page.figures["dsc"]["data"][0]["y"]) == 4


def test_infinite_distances_and_problems_are_shown(tmp_path, model, evaluation):
    empty = dataclasses.replace(
        evaluation.cases[0], hd95_mm=float("inf"), assd_mm=float("inf"), template=None
    )
    problem = Problem("broken", Path("broken.nii.gz"), "is truncated. Copy it again.")
    page = written(tmp_path, model, dataclasses.replace(evaluation, cases=(empty,), problems=(problem,)))
    assert "one of the surfaces is empty" in page.text and "Not scored: 1" in page.text
    assert problem.message in page.text
    nothing = dataclasses.replace(evaluation, cases=())
    assert "No case was scored" in written(tmp_path, model, nothing).text


def test_scores_of_another_model_are_doubted(tmp_path, model, evaluation):
    assert "another model" not in written(tmp_path, model, evaluation).text
    other = dataclasses.replace(evaluation.protocol, parameters=1, known=False)
    said = written(tmp_path, model, dataclasses.replace(evaluation, protocol=other)).text
    assert "another model: parameters 1, here" in said
    assert "Cases that are training shapes, by their name or their file: 3 of 3" in said
    first = dataclasses.replace(evaluation.cases[0], doubt="another organ")
    doubtful = dataclasses.replace(evaluation, cases=(first, *evaluation.cases[1:]))
    said = written(tmp_path, model, doubtful).text
    assert "Fits of 1 cases are not to be trusted" in said and first.name in said


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b"[]", b"{}", b'{"protocol": 1, "mean": {}, "cases": [], "problems": []}']
)
def test_bad_scores_are_refused_by_name(tmp_path, model, content):
    bad, output = tmp_path / "bad.json", tmp_path / "report.html"
    bad.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.json: .*--json FILE"):
        write_report(tiny_atlas(), model, output, bad)
    with pytest.raises(InputError, match=r"none\.json: cannot be read .*--json FILE"):
        write_report(tiny_atlas(), model, output, tmp_path / "none.json")
    assert not output.exists()


def test_a_report_is_written_whole_or_not_at_all(tmp_path, model, monkeypatch):
    output = tmp_path / "report.html"
    output.write_text("before")
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(InputError, match=r"report\.html: cannot be written"):
        write_report(tiny_atlas(), model, output)
    assert output.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_same_input_gives_the_same_bytes(tmp_path, model, evaluation):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, model, evaluation)
    first, second = ((tmp_path / name / "report.html").read_bytes() for name in ("a", "b"))
    assert first == second


def test_curves_are_the_models_own(tmp_path):
    folder = tmp_path / "organ.atlas"
    tiny_atlas().save(folder, "")
    steps = tiny_atlas().provenance["steps"]
    page = written(tmp_path, folder)
    assert "no card" in page.text
    (curve, *_) = page.figures["curves"]["data"]
    assert curve["name"] == "loss" and curve["x"][-1] == steps and all(value > 0 for value in curve["y"])
    assert "curves" not in page.text.partition("Where it comes from")[2]
    older = TrainedAtlas.load(folder)
    older.provenance.pop("curves")
    write_report(older, folder, tmp_path / "older.html")
    page = read(tmp_path / "older.html")
    assert "curves" not in page.figures and "holds no curves" in page.text


def test_axes_have_titles(tmp_path, model, evaluation):
    page = written(tmp_path, model, evaluation)
    for figure in page.figures.values():
        axes = (
            [figure["layout"]["scene"], *"xyz"] if "scene" in figure["layout"] else [figure["layout"], *"xy"]
        )
        titles = [axes[0][f"{axis}axis"]["title"]["text"] for axis in axes[1:]]
        assert all("(" in title or title == "training step" for title in titles)


def test_a_method_without_templates_has_a_report(tmp_path):
    atlas = train(phantom_shapes(2), tiny_model("conv"), tiny_training(steps=2))
    atlas.save(tmp_path / "plain.atlas", "")
    write_report(atlas, tmp_path / "plain.atlas", tmp_path / "plain.html")
    page = read(tmp_path / "plain.html")
    assert "has no templates" in page.text and "latent" in page.figures


def test_scores_are_read_as_they_were_written(tmp_path, evaluation):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(evaluation.to_json()))
    found = read_scores(path)
    assert found.protocol == evaluation.protocol
    assert [CaseScore(**dataclasses.asdict(case)) for case in found.cases] == list(evaluation.cases)


def test_the_command_writes_a_report(tmp_path, model, evaluation, capsys):
    scores, output = tmp_path / "scores.json", tmp_path / "new" / "report.html"
    scores.write_text(json.dumps(evaluation.to_json()))
    assert run("report", model, "-o", output, "--scores", scores) == 0
    assert "MB" in capsys.readouterr().out and read(output).figures
    scores.write_text("{}")
    assert run("report", model, "-o", output, "--scores", scores) == 1
    assert "scores.json" in capsys.readouterr().err


def test_a_run_is_reported_by_its_model(tmp_path, model):
    atlas, run_folder = tmp_path / "mine.atlas", tmp_path / "mine.run"
    run_folder.mkdir()
    with pytest.raises(InputError, match="has not ended"):
        model_of(run_folder)
    shutil.copytree(model, atlas)
    assert model_of(run_folder) == atlas and model_of(atlas) == atlas
    assert model_of(Path("hippocampus")) == Path("hippocampus")
