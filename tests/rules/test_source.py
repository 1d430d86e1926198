"""Rules that hold in every source file of the package, read from its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import octavo

PACKAGE = Path(octavo.__file__).parent
SOURCES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}

# One home per dependency: the folders and files that may import it.
HOMES = {
    "msgspec": ("messages.py", "server/", "engine_process.py", "bench/targets/"),
    "starlette": ("server/",),
    "uvicorn": ("server/",),
    "tokenizers": ("control/text/",),
    "jinja2": ("control/text/",),
    "safetensors": ("checkpoint/", "compute/models/", "bench/random_model.py"),
    "prometheus_client": ("observability/", "server/"),
    "torch": ("compute/", "build.py", "llm.py", "engine_process.py", "cli/doctor", "bench/targets/workers/"),
    "matplotlib": ("bench/figures.py", "bench/report/pictures.py"),
    "pickle": (),
    "dill": (),
    "marshal": (),
    "shelve": (),
    "transformers": ("bench/targets/workers/",),  # in an environment of its own
}


def imported_packages(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Top-level package and line of every import, the lazy ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


@pytest.mark.parametrize("package", HOMES)
def test_each_dependency_has_its_home(package):
    strangers = [
        f"{name}:{line}"
        for name, tree in SOURCES.items()
        for imported, line in imported_packages(tree)
        if imported == package and not name.startswith(HOMES[package])
    ]
    assert strangers == []


def test_nothing_is_validated_by_assert():
    """`python -O` strips asserts, so product code has none."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_no_code_is_made_from_data():
    forbidden = {"eval", "exec", "compile", "torch.load", "os.system"}
    found = [
        f"{name}:{node.lineno} {ast.unparse(node.func)}"
        for name, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden
    ]
    assert found == []


def test_the_environment_is_read_in_one_place():
    found = [
        f"{name}:{node.lineno}"
        for name, tree in SOURCES.items()
        if name != "config.py" and "/workers/" not in name  # which run where there is no config
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    ]
    assert found == []


def test_every_file_says_what_it_is():
    assert [name for name, tree in SOURCES.items() if not ast.get_docstring(tree)] == []


def test_file_names_say_what_is_inside():
    vague = {"utils", "util", "common", "helpers", "helper", "base", "types", "misc"}
    assert [name for name in SOURCES if Path(name).stem in vague] == []
