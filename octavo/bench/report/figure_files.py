"""Every panel of a document as an SVG: within the page, or standing alone as a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from octavo.bench.report.charts.bars import draw_bars, draw_stacked
from octavo.bench.report.charts.curves import draw_ecdf, draw_lines
from octavo.bench.report.charts.over_time import draw_area, draw_gantt, draw_heat_map
from octavo.bench.report.charts.points import draw_points
from octavo.bench.report.charts.ratios import draw_forest, draw_tornado
from octavo.bench.report.style import figure_style

CHARTS: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "bars": draw_bars,
    "stacked": draw_stacked,
    "ecdf": draw_ecdf,
    "lines": draw_lines,
    "points": draw_points,
    "area": draw_area,
    "gantt": draw_gantt,
    "heat-map": draw_heat_map,
    "forest": draw_forest,
    "tornado": draw_tornado,
}
# What of a panel holds its data: without any there is nothing to draw.
_DATA = ("series", "rows", "curves", "places", "x", "bars", "grid")


def is_drawable(panel: Mapping[str, Any]) -> bool:
    """Whether it has any data; a target that crashed may leave a panel empty."""
    return any(panel.get(name) for name in _DATA)


def draw_panel(panel: Mapping[str, Any], *, stands_alone: bool = False) -> str:
    """The SVG of one panel.

    Raises:
        KeyError: there is no such kind of panel.
    """
    return CHARTS[panel["kind"]](panel, figure_style() if stands_alone else "")


def draw_figures(document: Mapping[str, Any]) -> dict[str, str]:
    """Name -> SVG file, for every panel with data."""
    return {
        panel["name"]: draw_panel(panel, stands_alone=True)
        for panel in document["panels"]
        if is_drawable(panel)
    }
