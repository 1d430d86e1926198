"""Who may import what, checked in fresh interpreters: the control plane and the front load no tensors."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import octavo

PACKAGE = Path(octavo.__file__).parent

_LIST_LOADED = "import importlib, json, sys; [importlib.import_module(name) for name in {names!r}]; "
_LIST_LOADED += "print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"


def modules_under(name: str) -> list[str]:
    """The package `name` and every module in it, or the module `name`."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    if not path.is_dir():
        return [name]
    return [name, *(module.name for module in pkgutil.walk_packages([str(path)], f"{name}."))]


def packages_loaded_by(names: list[str]) -> set[str]:
    """Top-level packages in the memory of an interpreter that has imported these modules alone."""
    code = _LIST_LOADED.format(names=names)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PACKAGE.parent
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


@pytest.mark.parametrize(
    "name",
    [
        "octavo",
        "octavo.checkpoint",
        "octavo.cli.main",
        "octavo.control",
        "octavo.engine_process",
        "octavo.families",
        "octavo.observability",
        "octavo.server",
        "octavo.step",
    ],
)
def test_deciding_and_serving_load_no_tensors(name):
    names = ["octavo"] if name == "octavo" else modules_under(name)
    assert packages_loaded_by(names).isdisjoint({"torch", "transformers"})


@pytest.mark.parametrize(
    "name",
    [
        "octavo.control.cache",
        "octavo.control.scheduler",
        "octavo.control.decoding",
        "octavo.control.engine",
    ],
)
def test_scheduler_and_cache_need_nothing_but_the_standard_library(name):
    loaded = packages_loaded_by(modules_under(name))
    assert loaded.isdisjoint({"torch", "numpy", "msgspec", "tokenizers", "jinja2"})
    assert not loaded & {"starlette", "uvicorn", "huggingface_hub", "safetensors", "prometheus_client"}


def test_the_offline_path_needs_no_server():
    names = ["octavo.llm", "octavo.build", "octavo.control.engine"]
    assert packages_loaded_by(names).isdisjoint({"msgspec", "starlette", "uvicorn", "prometheus_client"})
