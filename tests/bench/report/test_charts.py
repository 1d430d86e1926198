"""Every kind of figure at three sizes of data: well-formed, nothing outside of its page, no text on text."""

from __future__ import annotations

import itertools
import random
import re
from xml.etree import ElementTree

import pytest

from octavo.bench.report.charts.points import frontier
from octavo.bench.report.figure_files import CHARTS, draw_panel
from octavo.bench.report.svg import text_width
from tests.bench.report.panels import make_panel

SIZES = (1, 6, 40)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("kind", "size"), list(itertools.product(CHARTS, SIZES)))
def test_a_figure_is_well_formed_and_stays_on_its_page(kind, size):
    root = ElementTree.fromstring(draw_panel(make_panel(kind, size), stands_alone=True))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.find(f"{SVG}style") is not None
    for one in root.iter(f"{SVG}text"):
        x, y = float(one.attrib["x"]), float(one.attrib["y"])
        wide = text_width(one.text or "", 10)
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[one.attrib["text-anchor"]]
        assert left >= -2 and left + wide <= width + 25, one.text
        assert 0 <= y <= height, one.text
    for one in root.iter(f"{SVG}rect"):
        left, wide = float(one.attrib["x"]), float(one.attrib["width"])
        assert left >= -0.5 and left + wide <= width + 0.5


@pytest.mark.parametrize(("kind", "size"), list(itertools.product(CHARTS, SIZES)))
def test_no_number_is_missing_or_undefined(kind, size):
    drawn = draw_panel(make_panel(kind, size))
    assert "<style>" not in drawn
    assert not re.search(r"\bnan\b|\binf\b|None", drawn)


@pytest.mark.parametrize("size", SIZES)
def test_labels_of_curves_do_not_touch_each_other(size):
    size = min(size, 8)
    for kind in ("ecdf", "lines", "points"):
        root = ElementTree.fromstring(draw_panel(make_panel(kind, size)))
        side = [one for one in root.iter(f"{SVG}text") if float(one.attrib["x"]) > 670]
        heights = sorted(float(one.attrib["y"]) for one in side)
        assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(heights))


def test_bars_begin_at_zero_and_their_lengths_are_proportional():
    panel = make_panel("bars", 6)
    panel["series"] = panel["series"][:1]
    root = ElementTree.fromstring(draw_panel(panel))
    found = [one for one in root.iter(f"{SVG}rect") if "data-tip" in one.attrib]
    values = [bar["value"] for bar in panel["series"][0]["bars"] if bar is not None]
    widths = [float(one.attrib["width"]) for one in found]
    for width, value in zip(widths, values, strict=True):
        assert width / widths[0] == pytest.approx(value / values[0], rel=0.02)


def test_what_users_write_is_escaped():
    panel = make_panel("bars", 2)
    panel["title"] = "<script>alert('1')</script>"
    drawn = draw_panel(panel)
    assert "<script>" not in drawn
    ElementTree.fromstring(drawn)


def test_a_target_has_the_same_colour_whoever_stands_beside_it():
    draw = random.Random(1)
    for beside in (["vllm"], ["llama-cpp", "vllm"], ["octavo-http"]):
        panel = make_panel("bars", 1)
        names = ["octavo", *beside]
        draw.shuffle(names)
        panel["series"] = [
            {"label": name, "colour": f"target:{name}", "bars": [{"value": 1.0, "low": None, "high": None}]}
            for name in names
        ]
        drawn = ElementTree.fromstring(draw_panel(panel))
        ours = [
            one for one in drawn.iter(f"{SVG}rect") if one.attrib.get("data-tip", "").startswith("octavo:")
        ]
        assert [one.attrib["style"] for one in ours] == ["fill:var(--s0)"]


def test_the_frontier_is_what_nothing_beats_in_both_numbers():
    points = [{"x": x, "y": y} for x, y in ((5, 100), (4, 90), (6, 100), (7, 300), (4, 80), (9, 250))]
    assert [(one["x"], one["y"]) for one in frontier(points)] == [(4, 90), (5, 100), (7, 300)]
