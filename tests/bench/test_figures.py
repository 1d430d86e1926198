"""Figures are drawn for any size of data, say what they show, and are the same for the same numbers."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import pytest

from octavo.bench.block_history import BlockHistory
from octavo.bench.figures import check_figure, draw_blocks, draw_memory
from octavo.bench.memory import run_memory
from octavo.bench.memory_spec import MemorySpec
from octavo.control.cache.block_map import BlockMap, BlockState
from octavo.errors import ConfigError


def make_history(num_blocks: int, num_steps: int, num_requests: int) -> BlockHistory:
    maps = []
    for step in range(num_steps):
        blocks = [
            BlockState(block_id, "used", [f"r{(block_id + step // 3) % num_requests}/0"], 16)
            for block_id in range(min(num_blocks, step + 1))
        ]
        maps.append(BlockMap(step - 1, num_blocks, 16, 0, blocks))
    return BlockHistory(maps)


def words(path) -> str:
    """All text of an SVG."""
    return " ".join(ElementTree.parse(path).getroot().itertext())


@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 60, 5), (600, 300, 40)])
@pytest.mark.parametrize("colour_by", ["state", "request"])
def test_block_maps_of_three_sizes(tmp_path, shape, colour_by):
    path = tmp_path / "blocks.svg"
    draw_blocks(make_history(*shape), path, colour_by=colour_by)
    text = words(path)
    assert f"by {colour_by}" in text
    assert "block of 16 tokens" in text
    assert "free" in text and "cached" in text
    if colour_by == "request":
        assert "r0" in text
    assert path.stat().st_size < 200_000


def test_the_memory_figure_names_its_bars_and_the_papers(tmp_path):
    report = run_memory(MemorySpec(num_requests=40, num_slots=4096, block_sizes=(16,)))
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    draw_memory(report, first)
    draw_memory(report, second)
    text = words(first)
    for label in (
        "reserve the maximum",
        "paged, blocks of 16",
        "the paper",
        "96.3",
        "internal fragmentation",
    ):
        assert label in text
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 200_000
    png = tmp_path / "memory.PNG"
    draw_memory(report, png)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_wrong_name_is_refused_before_the_work(tmp_path):
    for name in ("figure.gif", "figure", "absent/figure.svg"):
        with pytest.raises(ConfigError, match="--figure"):
            check_figure(tmp_path / name)
    check_figure(tmp_path / "figure.svg")
    check_figure(None)


def test_without_matplotlib_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'octavo\[bench\]'"):
        check_figure(tmp_path / "figure.svg")
