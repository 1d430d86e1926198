"""What the benchmarks' commands have in common: where numbers and pictures go, and how tables look."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from octavo.errors import ConfigError

# Of a table of texts: its first column, and the least that the others want.
_ITEM_WIDTH, _COLUMN_WIDTH = 20, 30


def add_output_flag(
    parser: argparse.ArgumentParser, help_text: str = "write all numbers there as JSON"
) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", help=help_text)


def add_figure_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw it there, as .svg or .png (needs octavo[bench])"
    )


def check_output(path: Path | None) -> None:
    """Fail before the work, not after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ConfigError(f"--output {path}: no file can be written there")


def write_output(path: Path | None, numbers: dict[str, Any]) -> None:
    write_text(path, json.dumps(numbers, indent=1) + "\n")


def write_text(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written: {error.strerror or error}") from None


def show_rows(title: str, subtitle: str | None, rows: list[tuple[str, str, str]]) -> None:
    """Name, number and remark, a line each."""
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(title, style="bold", markup=False)
    if subtitle is not None:
        console.print(subtitle, style="dim", markup=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    *,
    wrap: bool = False,
) -> None:
    """A table of numbers under a header; rows that begin with a space are dim. Notes come beneath it.

    Args:
        wrap: whether long cells go on in a second line, or are cut.
    """
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(title, style="bold", markup=False)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=not wrap)
    for row in rows:
        table.add_row(*row, style="dim" if row[0].startswith(" ") else None)
    console.print(table)
    for note in notes:
        console.print(note, style="dim", markup=False)


def show_wrapped_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of texts, which take several lines where they must. Columns share the width; a narrow
    terminal gets as many tables as it takes."""
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(title, style="bold", markup=False)
    num_columns = max(1, (console.width - _ITEM_WIDTH) // _COLUMN_WIDTH)
    for first in range(1, len(header), num_columns):
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column(header[0], style="dim", width=_ITEM_WIDTH - 2)
        for name in header[first : first + num_columns]:
            table.add_column(name, overflow="fold", max_width=2 * _COLUMN_WIDTH)
        for row in rows:
            table.add_row(row[0], *row[first : first + num_columns])
        console.print(table)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, where that is a terminal; what is yielded moves it on by one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task_id = bar.add_task(title, total=total)
        yield lambda: bar.advance(task_id)
