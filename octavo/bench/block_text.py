"""The block map as lines of text: a coarse heat map for a terminal. Knows no terminal."""

from __future__ import annotations

import itertools
from collections import Counter

from octavo.bench.block_history import STATES, BlockHistory

# In the order of STATES.
GLYPHS = ("·", "░", "█", "▓")


def render_blocks(history: BlockHistory, *, width: int, height: int) -> list[str]:
    """Steps to the right, blocks upwards; each character is the commonest state of its blocks and steps.

    Returns:
        At most `height` lines of at most `width` characters, the highest blocks first.
    """
    grid = history.states()
    columns = _cuts(len(history.maps), width)
    lines = []
    for low, high in reversed(_cuts(len(grid), height)):
        cells = []
        for left, right in columns:
            seen = Counter(state for row in grid[low:high] for state in row[left:right])
            # Of equals the one that tells more: shared before used before cached before free.
            cells.append(GLYPHS[max(seen, key=lambda state: (seen[state], state))])
        lines.append("".join(cells))
    return lines


def legend() -> str:
    return "   ".join(f"{glyph} {state}" for glyph, state in zip(GLYPHS, STATES, strict=True))


def _cuts(length: int, num_parts: int) -> list[tuple[int, int]]:
    """[0, length) in at most so many parts of nearly the same size, none of them empty."""
    num_parts = max(1, min(length, num_parts))
    edges = [index * length // num_parts for index in range(num_parts + 1)]
    return list(itertools.pairwise(edges))
