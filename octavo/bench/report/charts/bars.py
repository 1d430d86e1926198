"""Horizontal bars from zero, grouped or stacked, with whiskers and the marks of papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.bench.report import svg
from octavo.bench.report.charts.frame import WIDTH, Drawing, begin, draw_x_axis
from octavo.bench.report.palette import colour
from octavo.bench.report.scale import Scale, linear_scale, value_text

_BAR, _GAP, _GROUP_GAP, _HEADING = 17.0, 4.0, 12.0, 17.0
_RIGHT = 120.0
_LONGEST_LABEL = 270.0


def draw_bars(panel: Mapping[str, Any], style: str) -> str:
    """A group for each condition; within it a bar for each series, labelled where there are several."""
    series, groups = panel["series"], panel["groups"]
    drawing = begin(panel["title"], panel["subtitle"])
    is_single = len(series) <= 1
    labels = groups if is_single else [one["label"] for one in series]
    left = min(max((svg.text_width(label, 12) for label in labels), default=0) + 12, _LONGEST_LABEL)
    tops = [
        number
        for one in series
        for bar in one["bars"]
        if bar is not None
        for number in (bar["value"], bar["high"])
        if number is not None
    ]
    tops += [mark["value"] for mark in panel["marks"]]
    scale = linear_scale(max(tops, default=1.0), left, WIDTH - _RIGHT)
    plot = Drawing([], drawing.top)
    for index, group in enumerate(groups):
        _draw_group(plot, panel, index, group, scale, left, is_single=is_single)
    bottom = plot.top
    axis = f"{panel['axis']} [{panel['unit']}]" if panel["unit"] else panel["axis"]
    drawing.parts += draw_x_axis(scale, drawing.top - 4, bottom, axis) + plot.parts
    drawing.parts.append(svg.line(left, drawing.top - 4, left, bottom, "axis"))
    return drawing.finish(bottom + 42, panel["title"], style)


def _draw_group(
    plot: Drawing,
    panel: Mapping[str, Any],
    index: int,
    group: str,
    scale: Scale,
    left: float,
    *,
    is_single: bool,
) -> None:
    y = plot.top
    if not is_single:
        plot.parts.append(svg.text(0, y + 12, svg.shorten(group, 12, WIDTH), kind="group"))
        y += _HEADING
    first_y = y
    for one in panel["series"]:
        label = group if is_single else one["label"]
        shown = svg.shorten(label, 12, left - 10)
        plot.parts.append(svg.text(left - 8, y + 13, shown, anchor="end"))
        name = one.get("group_colours", {}).get(group, one["colour"])
        plot.parts += _draw_bar(one["bars"][index], y, scale, colour(name), label, panel["unit"])
        y += _BAR + _GAP
    for mark in panel["marks"]:
        if mark["group"] == group:
            x = scale(mark["value"])
            plot.parts.append(svg.line(x, first_y - 2, x, y - _GAP + 2, "mark"))
            place, anchor = (x + 5, "start") if x < WIDTH - _RIGHT - 60 else (x - 5, "end")
            plot.parts.append(svg.text(place, y + 8, mark["label"], kind="dim small", anchor=anchor))
    if any(mark["group"] == group for mark in panel["marks"]):
        y += 13
    plot.top = y + (_GROUP_GAP if not is_single or panel["marks"] else 2)


def _draw_bar(
    bar: Mapping[str, Any] | None, y: float, scale: Scale, fill: str, label: str, unit: str
) -> list[str]:
    if bar is None:
        return [svg.text(scale.start + 6, y + 13, "not measured", kind="dim small")]
    shown = value_text(bar["value"])
    tip = f"{label}: {shown} {unit}"
    parts = []
    end = scale(bar["value"])
    if bar["low"] is not None:
        tip += f"\n95 % interval {value_text(bar['low'])} to {value_text(bar['high'])}"
    if bar.get("n"):
        tip += f"\nn = {bar['n']}"
    parts.append(svg.rect(scale.start, y, end - scale.start, _BAR, fill, tip=tip))
    if bar["low"] is not None and bar["high"] > bar["low"]:
        low, high, middle = scale(bar["low"]), scale(bar["high"]), y + _BAR / 2
        parts.append(svg.line(low, middle, high, middle, "whisker"))
        parts += [svg.line(x, middle - 4, x, middle + 4, "whisker") for x in (low, high)]
        end = max(end, high)
    parts.append(svg.text(end + 6, y + 13, f"{shown} {unit}".rstrip()))
    return parts


def draw_stacked(panel: Mapping[str, Any], style: str) -> str:
    """Rows that are shares of 100; a paper's row is thinner and paler, beneath ours."""
    rows: Sequence[Mapping[str, Any]] = panel["rows"]
    drawing = begin(panel["title"], panel["subtitle"])
    left = min(max(svg.text_width(row["label"], 12) for row in rows) + 12, _LONGEST_LABEL)
    right = WIDTH - _RIGHT
    scale = Scale(0.0, 100.0, left, right)
    x = left
    for category in panel["categories"]:
        drawing.parts.append(svg.rect(x, drawing.top, 11, 11, colour(category["colour"])))
        drawing.parts.append(svg.text(x + 16, drawing.top + 10, category["label"]))
        x += svg.text_width(category["label"], 12) + 34
    y = drawing.top + 24
    top = y - 4
    bars: list[str] = []
    for row in rows:
        height = 9.0 if row["is_claim"] else _BAR
        kind = "dim small" if row["is_claim"] else "label"
        bars.append(
            svg.text(
                left - 8, y + height - 1, svg.shorten(row["label"], 12, left - 10), kind=kind, anchor="end"
            )
        )
        bars += _draw_row(row, panel["categories"], y, height, scale)
        bars.append(svg.text(right + 8, y + height - 1, row["note"], kind=kind))
        y += height + (_GAP if not row["is_claim"] and _is_followed(rows, row) else _GROUP_GAP)
    drawing.parts += draw_x_axis(scale, top, y, panel["axis"]) + bars
    return drawing.finish(y + 42, panel["title"], style)


def _is_followed(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> bool:
    """Whether a paper's row comes next."""
    index = next(place for place, one in enumerate(rows) if one is row)
    return index + 1 < len(rows) and bool(rows[index + 1]["is_claim"])


def _draw_row(
    row: Mapping[str, Any], categories: Sequence[Mapping[str, Any]], y: float, height: float, scale: Scale
) -> list[str]:
    parts, start = [], 0.0
    extra = ' opacity="0.55"' if row["is_claim"] else ""
    for category, share in zip(categories, row["shares"], strict=True):
        x, end = scale(start), scale(start + share)
        tip = f"{row['label']}: {category['label']} {share:.1f} %"
        parts.append(svg.rect(x, y, end - x, height, colour(category["colour"]), tip=tip, extra=extra))
        shown = f"{share:.1f}"
        if not row["is_claim"] and svg.text_width(shown, 11) + 6 < end - x:
            ink = "" if category["colour"].endswith("free") else ' style="fill:var(--on)"'
            parts.append(
                svg.text((x + end) / 2, y + height - 4, shown, kind="small", anchor="middle", extra=ink)
            )
        start += share
    return parts
