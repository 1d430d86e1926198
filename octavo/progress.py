"""A progress bar for many requests: requests done and tokens per second, on stderr.

Shows nothing where stderr is no terminal. Knows nothing of what it counts.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

# A terminal shows no more than this; redrawing at every token would cost more than the token.
_REDRAW_SECONDS = 0.1


class RequestProgress:
    """A context manager that draws while it is entered.

    Args:
        total: requests to come, or None where nobody knows.
        hidden: draw nothing, because the terminal is wanted for the answers.
    """

    def __init__(self, total: int | None, *, hidden: bool = False) -> None:
        # Imported here: who draws nothing need not wait for it.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("[bold]Generating[/bold]"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("[cyan]{task.fields[rate]:.0f} tok/s[/cyan]"),
            TimeElapsedColumn(),
            TextColumn("[dim]left[/dim]"),
            TimeRemainingColumn(),
            console=console,
            disable=hidden or not console.is_terminal,
            auto_refresh=False,
            # What the caller prints is the caller's: rich would send it to stderr.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task_id = self._bar.add_task("", total=total, rate=0.0)
        self._num_tokens = 0
        self._num_finished = 0
        self._started_seconds = time.monotonic()
        self._drawn_seconds = 0.0

    def __enter__(self) -> Self:
        self._started_seconds = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draw()
        self._bar.stop()

    def add_tokens(self, num_tokens: int) -> None:
        self._num_tokens += num_tokens
        if time.monotonic() - self._drawn_seconds > _REDRAW_SECONDS:
            self._draw()

    def finish_request(self) -> None:
        self._num_finished += 1

    def _draw(self) -> None:
        now_seconds = time.monotonic()
        rate = self._num_tokens / max(now_seconds - self._started_seconds, 1e-9)
        self._bar.update(self._task_id, completed=self._num_finished, rate=rate)
        self._bar.refresh()
        self._drawn_seconds = now_seconds
