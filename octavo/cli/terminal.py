"""What a terminal shows while a model loads, and text made safe for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from octavo.config import EngineConfig

if TYPE_CHECKING:
    from octavo.llm import LLM

# C0 and C1 controls but newline and tab: a model's output must not move the cursor or set titles.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
del _CONTROLS[ord("\n")], _CONTROLS[ord("\t")]


def write_text(text: str, stream: TextIO | None = None) -> None:
    """Write a model's text at once: to a terminal without control characters, to a file as it is."""
    stream = sys.stdout if stream is None else stream
    stream.write(text.translate(_CONTROLS) if stream.isatty() else text)
    stream.flush()


def say_dim(text: str) -> None:
    """A side remark on stderr, only where a person may be reading."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\x1b[2m{text}\x1b[0m\n")


def load_llm(config: EngineConfig) -> LLM:
    """Load a model, with a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        return _import_llm().from_config(config)
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415

    columns = (TextColumn("[bold]Loading[/bold]"), BarColumn(bar_width=32), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task_id = bar.add_task("", total=None)
        return _import_llm().from_config(
            config, on_progress=lambda loaded, total: bar.update(task_id, completed=loaded, total=total)
        )


def _import_llm() -> type[LLM]:
    # Loads torch; by now the command line is known to be right and the bar is on the screen.
    from octavo.llm import LLM  # noqa: PLC0415

    return LLM
