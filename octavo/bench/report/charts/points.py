"""Two numbers of each target or setting against each other, and which of them nothing else beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.bench.report import svg
from octavo.bench.report.charts.frame import (
    WIDTH,
    SideLabel,
    begin,
    draw_side_labels,
    draw_x_axis,
    draw_y_axis,
    side_height,
)
from octavo.bench.report.palette import colour
from octavo.bench.report.scale import Scale, latency_scale, value_text

_LEFT, _SIDE, _HEIGHT = 62.0, 230.0, 300.0


def frontier(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those with no other point at or left of them that lies higher: less is better in x, more in y."""
    best: list[Mapping[str, Any]] = []
    for point in sorted(points, key=lambda one: (one["x"], -one["y"])):
        if not best or point["y"] > best[-1]["y"]:
            best.append(point)
    return best


def draw_points(panel: Mapping[str, Any], style: str) -> str:
    """A dot for each point; those of the frontier are joined by steps."""
    drawing = begin(panel["title"], panel["subtitle"])
    points = panel["places"]
    right = WIDTH - _SIDE
    x_scale = latency_scale([one["x"] for one in points], _LEFT, right)
    labels = _labels(points)
    top = drawing.top + 14
    bottom = top + max(_HEIGHT, side_height(labels, right + 14))
    y_scale = latency_scale([one["y"] for one in points], bottom, top)
    drawing.parts += draw_y_axis(y_scale, _LEFT, right, panel["y_axis"])
    drawing.parts += draw_x_axis(x_scale, top, bottom, panel["x_axis"])
    route = _steps(frontier(points), x_scale, y_scale)
    if len(route) > 1:
        drawing.parts.append(svg.path(route, "var(--dim)", dash="4 3", width=1.2))
    for one in points:
        tip = (
            f"{one['label']} {one['note']}\n{panel['x_axis']}: {value_text(one['x'])}\n"
            f"{panel['y_axis']}: {value_text(one['y'])}"
        )
        drawing.parts.append(
            svg.circle(x_scale(one["x"]), y_scale(one["y"]), 5, colour(one["colour"]), tip=tip)
        )
        if one["note"]:
            place = x_scale(one["x"]) + 9
            drawing.parts.append(svg.text(place, y_scale(one["y"]) + 4, one["note"], kind="dim small"))
    drawing.parts += draw_side_labels(labels, right + 14, top, bottom)
    return drawing.finish(bottom + 42, panel["title"], style)


def _labels(points: Sequence[Mapping[str, Any]]) -> list[SideLabel]:
    """One for each name, the highest first."""
    named: dict[str, Mapping[str, Any]] = {}
    for one in sorted(points, key=lambda point: -point["y"]):
        named.setdefault(one["label"], one)
    return [SideLabel(index, one["label"], colour(one["colour"])) for index, one in enumerate(named.values())]


def _steps(points: Sequence[Mapping[str, Any]], x_scale: Scale, y_scale: Scale) -> list[tuple[float, float]]:
    """Right, then up: what lies below a step is beaten by its left end."""
    route: list[tuple[float, float]] = []
    for one in points:
        x, y = x_scale(one["x"]), y_scale(one["y"])
        if route:
            route.append((x, route[-1][1]))
        route.append((x, y))
    return route
