"""Rules that no linter checks: who samples volumes, sizes of files, no pickle, no copied code."""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "tests", "benchmarks", "experiments", "docs", ".ci")
TEXT_SUFFIXES = {
    ".py",
    ".md",
    ".toml",
    ".json",
    ".html",
    ".js",
    ".ts",
    ".css",
    ".sh",
    ".txt",
    ".cfg",
    ".ini",
    "",
}
MAX_LINES = 320
MIN_COPIED_NODES = 60

# The slashes stand apart from the words, so that this file passes its own test.
MACHINE_PATH = re.compile(r"(^|[^\w.-])/" + r"(root|home|work|tmp|Users)/[A-Za-z]")


def files_of(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (
            path
            for path in sorted((ROOT / folder).rglob("*"))
            if path.is_file() and not {"__pycache__", "node_modules"} & set(path.parts)
        )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


PYTHON = {name_of(path): path for path in files_of(*FOLDERS) if path.suffix == ".py"}
SHIPPED = {name: path for name, path in PYTHON.items() if name.startswith("src/")}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def names_used(tree: ast.AST) -> Iterator[str]:
    """Every name, attribute and imported name, without the parts that stand before a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.name.split(".")[-1] for alias in node.names)


def modules_imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Calls with the text of what is called, for example `torch.load`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_only_grid_samples_volumes() -> None:
    assert SHIPPED  # else the rules look at nothing
    users = {name for name, path in SHIPPED.items() if "grid_sample" in names_used(parsed(path))}
    assert users <= {"src/implicit_atlas/geometry/grid.py"}


@pytest.mark.parametrize("name", PYTHON)
def test_a_file_is_one_idea(name: str) -> None:
    assert len(PYTHON[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("name", PYTHON)
def test_a_file_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(parsed(PYTHON[name]))


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_is_read_or_written_by_pickle(name: str) -> None:
    tree = parsed(SHIPPED[name])
    assert not {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"} & set(modules_imported(tree))
    called = {function for function, _ in calls(tree)}
    assert not {"torch.load", "torch.save"} & called
    keywords = {
        (keyword.arg, ast.unparse(keyword.value)) for _, call in calls(tree) for keyword in call.keywords
    }
    assert not {("allow_pickle", "True"), ("weights_only", "False")} & keywords


@pytest.mark.parametrize("name", PYTHON)
def test_foreign_weights_are_read_without_running_their_code(name: str) -> None:
    for function, call in calls(parsed(PYTHON[name])):
        if function == "torch.load":
            assert ("weights_only", "True") in {(word.arg, ast.unparse(word.value)) for word in call.keywords}


def test_no_path_of_a_machine() -> None:
    top = [
        path
        for path in ROOT.iterdir()
        if path.is_file() and path.suffix in TEXT_SUFFIXES and path.name != ".git"
    ]
    found = [
        f"{name_of(path)}:{number}"
        for path in itertools.chain(top, files_of(*FOLDERS))
        if path.suffix in TEXT_SUFFIXES
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_no_function_stands_twice() -> None:
    """Two functions of the package with the same statements, whatever their names, are one piece of logic."""
    places = defaultdict(list)
    for name, path in SHIPPED.items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                if sum(1 for statement in body for _ in ast.walk(statement)) >= MIN_COPIED_NODES:
                    places[ast.dump(ast.Module(body, []))].append(f"{name}:{node.name}")
    assert [group for group in places.values() if len(group) > 1] == []


def test_tests_lie_in_the_rooms_that_they_test() -> None:
    rooms = {path.name for path in (ROOT / "src" / "implicit_atlas").iterdir()} | {"experiments"}
    assert {name.split("/")[1] for name in PYTHON if re.match("tests/.+/test_", name)} <= rooms
