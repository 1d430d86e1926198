"""Distribution functions with bands, and lines: latency by arrival, latency against rate."""

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
from octavo.bench.report.scale import Scale, latency_scale, linear_scale, value_text

_LEFT, _SIDE, _HEIGHT = 52.0, 210.0, 300.0
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 4")


def _dash(curve: Mapping[str, Any]) -> str:
    return _DASHES[curve.get("dash", 0) % len(_DASHES)]


def draw_ecdf(panel: Mapping[str, Any], style: str) -> str:
    """Steps, as the data have them; the band beneath; labels in the order of the medians."""
    drawing = begin(panel["title"], panel["subtitle"])
    curves = panel["curves"]
    right = WIDTH - _SIDE
    labels = [
        SideLabel(index, curve["label"], colour(curve["colour"]), f"n = {curve['n']:,}", _dash(curve))
        for index, curve in enumerate(sorted(curves, key=_median))
    ]
    top = drawing.top + 14
    bottom = top + max(_HEIGHT, side_height(labels, right + 14))
    values = [value for curve in curves for value in curve["x"]]
    x_scale = latency_scale(values, _LEFT, right)
    y_scale = Scale(0.0, 1.0, bottom, top)
    drawing.parts += draw_y_axis(y_scale, _LEFT, right, "share of requests")
    drawing.parts += draw_x_axis(x_scale, top, bottom, panel["axis"])
    for curve in curves:
        places = [x_scale(value) for value in curve["x"]]
        low = _steps(places, [y_scale(one) for one in curve["low"]], x_scale.start, bottom)
        high = _steps(places, [y_scale(one) for one in curve["high"]], x_scale.start, bottom)
        drawing.parts.append(svg.area([*low, *reversed(high)], colour(curve["colour"]), opacity=0.16))
    for curve in curves:
        places = [x_scale(value) for value in curve["x"]]
        route = _steps(places, [y_scale(one) for one in curve["y"]], x_scale.start, bottom)
        drawing.parts.append(svg.path(route, colour(curve["colour"]), dash=_dash(curve)))
        drawing.parts += [
            svg.circle(x, y_scale(share), 5, "transparent", tip=_ecdf_tip(curve, value, share, panel["unit"]))
            for x, value, share in zip(places, curve["x"], curve["y"], strict=True)
        ]
    drawing.parts += draw_side_labels(labels, right + 14, top, bottom)
    return drawing.finish(bottom + 42, panel["title"], style)


def _ecdf_tip(curve: Mapping[str, Any], value: float, share: float, unit: str) -> str:
    return f"{curve['label']}\n{100 * share:.1f} % within {value_text(value)} {unit}"


def _median(curve: Mapping[str, Any]) -> float:
    found = (x for x, y in zip(curve["x"], curve["y"], strict=True) if y >= 0.5)
    return float(next(found, 0.0))


def _steps(
    xs: Sequence[float], ys: Sequence[float], start: float, bottom: float
) -> list[tuple[float, float]]:
    """Right-continuous steps from zero."""
    route = [(xs[0] if xs else start, bottom)]
    for x, y in zip(xs, ys, strict=True):
        route += [(x, route[-1][1]), (x, y)]
    return route


def draw_lines(panel: Mapping[str, Any], style: str) -> str:
    """Lines or dots over a number; horizontal limits and vertical knees where the panel has them."""
    drawing = begin(panel["title"], panel["subtitle"])
    curves = panel["curves"]
    right = WIDTH - _SIDE
    xs = [x for curve in curves for x in curve["x"]]
    ys = [
        y
        for curve in curves
        for y in (*curve["y"], *(one for one in curve.get("high", ()) if one is not None))
    ]
    limit = panel.get("limit")
    has_n = [f"n = {curve['n']:,}" if curve.get("n") else "" for curve in curves]
    probe = [SideLabel(0, curve["label"], "", note) for curve, note in zip(curves, has_n, strict=True)]
    top = drawing.top + 14
    bottom = top + max(_HEIGHT, side_height(probe, right + 14))
    x_scale = linear_scale(max(xs, default=1.0), _LEFT, right)
    y_values = [*ys, *([limit["value"]] if limit else [])]
    y_scale = (
        latency_scale(y_values, bottom, top)
        if panel.get("may_log")
        else linear_scale(max(y_values, default=1.0), bottom, top)
    )
    drawing.parts += draw_y_axis(y_scale, _LEFT, right, panel["y_axis"])
    drawing.parts += draw_x_axis(x_scale, top, bottom, panel["x_axis"])
    if limit:
        y = y_scale(limit["value"])
        drawing.parts.append(svg.line(_LEFT, y, right, y, "mark"))
        drawing.parts.append(svg.text(_LEFT + 6, y - 5, limit["label"], kind="dim small"))
    labels = []
    for curve, note in zip(curves, has_n, strict=True):
        drawing.parts += _draw_curve(panel, curve, x_scale, y_scale)
        end = y_scale(curve["y"][-1]) if curve["y"] else bottom
        labels.append(SideLabel(end, curve["label"], colour(curve["colour"]), note, _dash(curve)))
    drawing.parts += _draw_knees(panel, x_scale, bottom, top)
    drawing.parts += draw_side_labels(labels, right + 14, top, bottom)
    return drawing.finish(bottom + 42, panel["title"], style)


def _draw_knees(panel: Mapping[str, Any], x_scale: Scale, bottom: float, top: float) -> list[str]:
    parts = []
    for number, knee in enumerate(panel.get("knees", ())):
        x = x_scale(knee["x"])
        stroke = f' style="stroke:{colour(knee["colour"])}"'
        parts.append(svg.line(x, top, x, bottom, "mark", extra=stroke))
        place, anchor = (x + 5, "start") if x < (x_scale.start + x_scale.end) / 2 else (x - 5, "end")
        parts.append(svg.text(place, top + 11 + 14 * number, knee["label"], kind="small", anchor=anchor))
    return parts


def _draw_curve(
    panel: Mapping[str, Any], curve: Mapping[str, Any], x_scale: Scale, y_scale: Scale
) -> list[str]:
    ink = colour(curve["colour"])
    places = [(x_scale(x), y_scale(y)) for x, y in zip(curve["x"], curve["y"], strict=True)]
    parts = []
    if len(places) > 1:
        width = 1.2 if panel.get("points") else 2
        parts.append(svg.path(places, ink, dash=_dash(curve), width=width))
    for index, (x, low, high) in enumerate(
        zip(curve["x"], curve.get("low", ()), curve.get("high", ()), strict=False)
    ):
        if low is not None and high is not None:
            place = x_scale(x)
            parts.append(
                svg.line(
                    place,
                    y_scale(max(low, y_scale.low)),
                    place,
                    y_scale(high),
                    "whisker",
                    extra=f' data-i="{index}"',
                )
            )
    radius = 2.4 if len(places) > 60 else 3.5
    for (x, y), x_value, y_value in zip(places, curve["x"], curve["y"], strict=True):
        places_text = f"{panel['x_axis']}: {value_text(x_value)}\n{panel['y_axis']}: {value_text(y_value)}"
        tip = f"{curve['label']}\n{places_text}"
        parts.append(svg.circle(x, y, radius, ink, tip=tip))
    return parts
