"""A prompt from the command line: the argument, a file, or stdin."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from octavo.errors import ConfigError


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """PROMPT and --file."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the text; default: stdin")
    parser.add_argument("--file", type=Path, metavar="FILE", help="file with the text")


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The text that was given in one of the three ways.

    Raises:
        ConfigError: in none, in two, or it cannot be read.
    """
    if prompt is not None and file is not None:
        raise ConfigError("give PROMPT or --file, not both")
    if prompt is not None:
        return prompt
    name = "stdin" if file is None else str(file)
    if file is None and sys.stdin.isatty():
        raise ConfigError("no prompt: give it as an argument, with --file, or on stdin")
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return data.decode()
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: byte {error.start} is no UTF-8 text") from None
