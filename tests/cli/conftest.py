"""A tiny model with a tokenizer and a chat template, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from octavo.cli.main import main
from tests.tiny_models import make_tiny_model, write_byte_tokenizer

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return write_byte_tokenizer(make_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def chat_model(tiny_model) -> list[str]:
    """MODEL and flags of a tiny model that can chat."""
    template = tiny_model.parent / "template.jinja"
    template.write_text(TEMPLATE)
    return [str(tiny_model), "--chat-template", str(template), "--kv-cache-memory", "1MB"]


@pytest.fixture
def run(capsys) -> Run:
    """Run `octavo ARGUMENTS...` here: exit code, stdout, stderr."""

    def run_main(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            exit_code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # --help and --version, as argparse has it
            exit_code = int(leaving.code or 0)
        output = capsys.readouterr()
        return exit_code, output.out, output.err

    return run_main
