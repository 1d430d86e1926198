"""Every kind of figure by matplotlib, at three sizes of data, in both formats."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest

from octavo.bench.report.figure_files import CHARTS
from octavo.bench.report.palette import colour, css_variables, print_colour
from octavo.bench.report.pictures import PICTURES, draw_picture, draw_pictures
from tests.bench.report.panels import make_panel

pytest.importorskip("matplotlib")
SVG = "{http://www.w3.org/2000/svg}"


def test_every_kind_of_figure_has_a_picture():
    assert PICTURES.keys() == CHARTS.keys()


@pytest.mark.parametrize(("kind", "size"), list(itertools.product(PICTURES, (1, 6, 40))))
def test_a_picture_says_what_the_figure_says(kind, size, tmp_path):
    panel = make_panel(kind, size)
    draw_picture(panel, tmp_path / "one.svg")
    root = ElementTree.parse(tmp_path / "one.svg").getroot()
    texts = "".join("".join(one.itertext()) for one in root.iter(f"{SVG}text"))
    labels = [one["label"] for name in ("curves", "places", "rows") for one in panel.get(name, ())]
    for label in (panel["title"], *labels):  # in one line or in several
        assert "".join(label.split()) in "".join(texts.split())


def test_the_same_numbers_give_the_same_file(tmp_path):
    panel = make_panel("ecdf", 6)
    for name in ("one.svg", "two.svg"):
        draw_picture(panel, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_document_gives_a_file_for_each_figure_with_data(tmp_path):
    panels = [make_panel("bars", 2), make_panel("forest", 2), make_panel("forest", 2) | {"rows": []}]
    paths = draw_pictures({"panels": panels}, tmp_path, ".png")
    assert [path.name for path in paths] == ["bars.png", "forest.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_colours_on_paper_are_those_of_the_light_page():
    declared = dict(one.split(":") for one in css_variables("light").strip(";").split(";"))
    for name in (
        "target:octavo",
        "target:openvino",
        "series:3",
        "block:used",
        "category:free",
        "verdict:better",
        "paper",
    ):
        variable = colour(name).removeprefix("var(--").removesuffix(")")
        assert declared[f"--{variable}"] == print_colour(name)
