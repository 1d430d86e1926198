"""The pager's state over time: which block belonged to whom at each snapshot, kept and read as JSON lines.

A line is one BlockMap, as `GET /debug/blocks` of the admin socket serves it. Draws nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octavo.control.cache.block_map import BlockMap, BlockState
from octavo.errors import ConfigError

STATES = ("free", "cached", "used", "shared")
_FREE, _CACHED, _USED, _SHARED = range(4)


class BlockHistory:
    """Snapshots of one pool, oldest first.

    Raises:
        ConfigError: there are none, or they are of different pools.
    """

    def __init__(self, maps: Sequence[BlockMap]) -> None:
        if not maps:
            raise ConfigError("there are no snapshots of the blocks")
        if len({(one.num_blocks, one.block_size) for one in maps}) > 1:
            raise ConfigError("the snapshots are of different pools")
        self.maps = list(maps)
        self.num_blocks = maps[0].num_blocks
        self.block_size = maps[0].block_size
        ids = [block.block_id for one in maps for block in one.blocks]
        # Blocks are taken from the lowest id up, so what lies above was never touched.
        self.num_shown = max(ids) + 1 if ids else 1

    @property
    def step_ids(self) -> list[int]:
        """The steps after which the snapshots were taken; -1 stands for before the first."""
        return [-1 if one.step_id is None else one.step_id for one in self.maps]

    @property
    def num_untouched(self) -> int:
        """Blocks above the highest that was ever taken."""
        return self.num_blocks - self.num_shown

    def states(self) -> list[list[int]]:
        """[block_id][snapshot] -> index into STATES, for the blocks shown."""
        grid = [[_FREE] * len(self.maps) for _ in range(self.num_shown)]
        for column, one in enumerate(self.maps):
            for block in one.blocks:
                grid[block.block_id][column] = STATES.index(block.state)
        return grid

    def owners(self) -> tuple[list[list[int]], list[str]]:
        """[block_id][snapshot] -> 0 free, 1 cached, 2 of several requests, 3 + index of the one request.

        Returns:
            The grid, and the requests by index, in order of appearance.
        """
        requests: dict[str, int] = {}
        grid = [[0] * len(self.maps) for _ in range(self.num_shown)]
        for column, one in enumerate(self.maps):
            for block in one.blocks:
                holders = {label.rpartition("/")[0] for label in block.sequences}
                if not holders:
                    cell = 1
                elif len(holders) > 1:
                    cell = 2
                else:
                    cell = 3 + requests.setdefault(holders.pop(), len(requests))
                grid[block.block_id][column] = cell
        return grid, list(requests)

    def counts(self) -> list[Counter[str]]:
        """Blocks by state, for each snapshot."""
        counts = []
        for one in self.maps:
            count = Counter(block.state for block in one.blocks)
            count["free"] = self.num_blocks - sum(count.values())
            counts.append(count)
        return counts

    def lines(self) -> Iterable[str]:
        """One JSON object a snapshot."""
        return (json.dumps(asdict(one), separators=(",", ":")) for one in self.maps)


def read_history(path: Path) -> BlockHistory:
    """Snapshots from a file, one a line; empty lines are skipped.

    Raises:
        ConfigError: it cannot be read, or a line is no snapshot.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"--from {path}: cannot be read: {reason}") from None
    maps = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                maps.append(parse_block_map(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise ConfigError(f"--from {path}: line {number} is no block map: {error}") from None
    try:
        return BlockHistory(maps)
    except ConfigError as error:
        raise ConfigError(f"--from {path}: {error}") from None


def parse_block_map(found: dict[str, Any]) -> BlockMap:
    """A BlockMap of its JSON.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    if not isinstance(found, dict):
        raise TypeError("it is not an object")
    num_blocks = _number(found, "num_blocks", 1)
    blocks = []
    for each in found["blocks"]:
        block_id = _number(each, "block_id", 0)
        if block_id >= num_blocks:
            raise ValueError(f"block {block_id} of {num_blocks}")
        if each["state"] not in STATES:
            raise ValueError(f"unknown state {each['state']!r}")
        sequences = [str(label) for label in each["sequences"]]
        blocks.append(BlockState(block_id, each["state"], sequences, _number(each, "num_tokens", 0)))
    return BlockMap(
        None if found["step_id"] is None else _number(found, "step_id", 0),
        num_blocks,
        _number(found, "block_size", 1),
        _number(found, "num_host_blocks_used", 0),
        blocks,
    )


def _number(found: dict[str, Any], name: str, low: int) -> int:
    value = found[name]
    if type(value) is not int or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")
    return value
