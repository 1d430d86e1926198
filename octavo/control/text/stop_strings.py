"""Finds stop strings in a text that comes in pieces, whatever the borders of the pieces.

Text that could still become a stop string is held back, so that no part of one is ever streamed. The
match that ends first wins (of several that end together, the longest): the result does not depend on
how the text was cut.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStringFinder:
    """Search state of one output sequence.

    Args:
        stop_strings: what to look for, none of them empty.
        include_in_output: give out the stop string itself, too.
    """

    def __init__(self, stop_strings: Sequence[str], *, include_in_output: bool = False) -> None:
        self._stop_strings = tuple(stop_strings)
        self._include_in_output = include_in_output
        self._held = ""

    def push(self, text: str, *, may_stop: bool = True) -> tuple[str, str | None]:
        """Take more text; return what may be given out now, and the stop string that has ended, if any.

        After a match the search is over; what follows the match in `text` is dropped.

        Args:
            may_stop: whether a stop string that ends within `text` counts.
        """
        if not self._stop_strings or not text:
            return text, None
        num_old = len(self._held)
        pending = self._held + text
        match = self._find(pending, num_old) if may_stop else None
        if match is not None:
            end, stop_string = match
            self._held = ""
            return pending[: end if self._include_in_output else end - len(stop_string)], stop_string
        split = len(pending) - self._count_held_back(pending)
        self._held = pending[split:]
        return pending[:split], None

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        return held

    def _find(self, pending: str, num_old: int) -> tuple[int, str] | None:
        """(end, stop string) of the first match that ends after the first `num_old` characters."""
        best: tuple[int, int, str] | None = None
        for stop_string in self._stop_strings:
            start = pending.find(stop_string, max(0, num_old - len(stop_string) + 1))
            if start >= 0:
                found = (start + len(stop_string), start, stop_string)
                best = found if best is None else min(best, found)
        return None if best is None else (best[0], best[2])

    def _count_held_back(self, pending: str) -> int:
        """Length of the longest end of `pending` that a stop string begins with."""
        longest = 0
        for stop_string in self._stop_strings:
            first = stop_string[0]
            start = pending.find(first, max(0, len(pending) - len(stop_string) + 1))
            while start >= 0 and len(pending) - start > longest:
                if stop_string.startswith(pending[start:]):
                    longest = len(pending) - start
                    break
                start = pending.find(first, start + 1)
        return longest
