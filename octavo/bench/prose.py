"""Real text that every installation has: the docstrings of Python's own standard library.

English prose on many subjects, with examples in between. Read as files: nothing is imported or run.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from octavo.errors import ConfigError

# Shorter ones are labels rather than prose.
_MIN_CHARS = 300
# Tests and the idle editor are left out of many distributions' packages; the rest is not Python's own.
_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True, kw_only=True)
class Prose:
    """Text to read, and where it is from.

    Attributes:
        source: what it is, for people.
        licence: of the text; None where it is the user's own.
    """

    text: str
    source: str
    licence: str | None

    @property
    def sha256(self) -> str:
        """Tells two texts apart: other versions of Python have other docstrings."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_prose(path: Path | None, *, min_chars: int) -> Prose:
    """A file's text, or at least so many characters of docstrings (all there are, where they are fewer).

    Raises:
        ConfigError: the file cannot be read as UTF-8, or there is no text.
    """
    if path is None:
        prose = Prose(
            text=_join_docstrings(min_chars),
            source=f"docstrings of the standard library of Python {platform.python_version()}",
            licence="Python Software Foundation License Version 2",
        )
    else:
        try:
            prose = Prose(text=path.read_text(encoding="utf-8"), source=path.name, licence=None)
        except OSError as error:
            raise ConfigError(f"--text {path}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"--text {path}: it is no UTF-8 text") from None
    if not prose.text.strip():
        raise ConfigError(
            f"--text {path}: there is no text in it"
            if path is not None
            else "this Python came without the sources of its library; give a text of your own with --text"
        )
    return prose


def _join_docstrings(min_chars: int) -> str:
    parts: list[str] = []
    num_chars = 0
    for docstring in _docstrings(Path(sysconfig.get_path("stdlib"))):
        parts.append(docstring)
        num_chars += len(docstring) + 2
        if num_chars >= min_chars:
            break
    return "\n\n".join(parts)


def _docstrings(folder: Path) -> Iterator[str]:
    """Long docstrings, module after module, each text once."""
    seen: set[str] = set()
    for path in _modules(folder):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # kept that way on purpose, for tests of parsers
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            docstring = inspect.cleandoc(ast.get_docstring(node) or "")
            if len(docstring) >= _MIN_CHARS and docstring not in seen:
                seen.add(docstring)
                yield docstring


def _modules(folder: Path) -> list[Path]:
    """In the order of a hash of their names: varied from the start, and the same on every machine."""
    modules = [
        path for path in folder.rglob("*.py") if _LEFT_OUT.isdisjoint(path.relative_to(folder).parts[:-1])
    ]
    return sorted(
        modules, key=lambda path: hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest()
    )
