"""Snapshots of the block map: their grids, their JSON lines and what is refused of a file."""

from __future__ import annotations

import json

import pytest

from octavo.bench.block_history import BlockHistory, read_history
from octavo.bench.block_text import GLYPHS, legend, render_blocks
from octavo.control.cache.block_map import BlockMap, BlockState
from octavo.errors import ConfigError


def make_map(step_id: int, *blocks: BlockState, num_blocks: int = 6) -> BlockMap:
    return BlockMap(step_id, num_blocks, 4, 0, list(blocks))


FIRST = make_map(0, BlockState(0, "used", ["a/0"], 4), BlockState(1, "used", ["b/0"], 2))
SECOND = make_map(
    1,
    BlockState(0, "shared", ["a/0", "b/0"], 4),
    BlockState(1, "shared", ["b/0", "b/1"], 4),
    BlockState(3, "cached", [], 3),
)
HISTORY = BlockHistory([FIRST, SECOND])


def test_states_by_block_and_time():
    assert HISTORY.num_shown == 4
    assert HISTORY.num_untouched == 2
    assert HISTORY.states() == [[2, 3], [2, 3], [0, 0], [0, 1]]


def test_owners_tell_one_request_from_several():
    grid, requests = HISTORY.owners()
    assert requests == ["a", "b"]
    # Two sequences of one request are one owner.
    assert grid == [[3, 2], [4, 4], [0, 0], [0, 1]]


def test_counts_are_of_the_whole_pool():
    assert HISTORY.counts()[0] == {"used": 2, "free": 4}
    assert HISTORY.counts()[1] == {"shared": 2, "cached": 1, "free": 3}


def test_lines_can_be_read_again(tmp_path):
    path = tmp_path / "blocks.jsonl"
    path.write_text("\n\n".join(HISTORY.lines()))
    assert read_history(path).maps == HISTORY.maps


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no snapshots"),
        ("{", "line 1 is no block map"),
        ("[]", "not an object"),
        ("{}", "num_blocks"),
        (json.dumps({"num_blocks": 2, "blocks": [{}]}), "block_id"),
        (
            '{"step_id":0,"num_blocks":1,"block_size":4,"num_host_blocks_used":0,"blocks":[{"block_id":1,'
            '"state":"used","sequences":[],"num_tokens":1}]}',
            "block 1 of 1",
        ),
        (
            '{"step_id":0,"num_blocks":1,"block_size":4,"num_host_blocks_used":0,"blocks":[{"block_id":0,'
            '"state":"lost","sequences":[],"num_tokens":1}]}',
            "unknown state",
        ),
        (next(iter(HISTORY.lines())).replace('"num_blocks":6', '"num_blocks":true'), "whole number"),
        (
            "\n".join([*HISTORY.lines(), *BlockHistory([make_map(2, num_blocks=9)]).lines()]),
            "of different pools",
        ),
    ],
)
def test_what_is_no_snapshot_is_refused_in_one_line(tmp_path, text, complaint):
    path = tmp_path / "blocks.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_history(path)
    assert "\n" not in str(caught.value)
    assert "--from" in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_history(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text"):
        read_history(tmp_path / "binary")


def test_text_has_the_highest_blocks_first():
    free, cached, used, shared = GLYPHS
    lines = render_blocks(HISTORY, width=80, height=24)
    assert lines == [free + cached, free + free, used + shared, used + shared]


def test_text_never_grows_beyond_its_bounds():
    maps = [make_map(step, BlockState(step % 90, "used", ["a/0"], 1), num_blocks=90) for step in range(300)]
    lines = render_blocks(BlockHistory(maps), width=40, height=7)
    assert len(lines) == 7
    assert {len(line) for line in lines} == {40}
    assert all(glyph in legend() for glyph in GLYPHS)
