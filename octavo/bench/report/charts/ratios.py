"""Ratios around 1 on a logarithmic axis: the forest plot, and the tornado of sensitivities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.bench.report import svg
from octavo.bench.report.charts.frame import WIDTH, Drawing, begin, draw_x_axis
from octavo.bench.report.palette import colour
from octavo.bench.report.scale import Scale, log_scale

_ROW = 21.0
_RIGHT = 235.0
_VERDICT_COLOURS = {"better": "var(--better)", "worse": "var(--worse)"}


def _around_one(values: Sequence[float], start: float, end: float) -> Scale:
    """The same factor to either side; ticks at 1, 2, 5."""
    factor = max([max(value, 1 / value) for value in values if value > 0] or [1.2])
    if factor < 1.9:  # narrower than the ticks of a logarithmic axis
        reach = max(factor, 1.05) ** 1.15
        return Scale(2 - reach, reach, start, end)
    return log_scale(1 / factor, factor, start, end)


def draw_forest(panel: Mapping[str, Any], style: str) -> str:
    """A square at each ratio, a line over its interval, the verdict in words at the right."""
    rows = panel["rows"]
    drawing = begin(panel["title"], panel["subtitle"])
    names = [f"{row['label']}: {row['metric']}" if row["metric"] else row["label"] for row in rows]
    left = min(max((svg.text_width(name, 12) for name in names), default=0) + 12, 360.0)
    ends = [one for row in rows for one in (row["ratio"], row["low"], row["high"]) if one is not None]
    scale = _around_one(ends, left, WIDTH - _RIGHT)
    top = drawing.top + 2
    bottom = top + _ROW * len(rows) + 4
    drawing.parts += draw_x_axis(scale, top, bottom, "ratio")
    one = scale(1.0)
    drawing.parts.append(svg.line(one, top, one, bottom, "one"))
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        _draw_forest_row(drawing, row, name, top + _ROW * (index + 0.5), scale, left)
    return drawing.finish(bottom + 42, panel["title"], style)


def _draw_forest_row(
    drawing: Drawing, row: Mapping[str, Any], name: str, y: float, scale: Scale, left: float
) -> None:
    ink = _VERDICT_COLOURS.get(row["verdict"], "var(--dim)")
    drawing.parts.append(svg.text(left - 8, y + 4, svg.shorten(name, 12, left - 10), anchor="end"))
    interval = "no interval"
    if row["low"] is not None:
        drawing.parts.append(svg.line(scale(row["low"]), y, scale(row["high"]), y, "whisker"))
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
    tip = f"{name}\n{row['ratio']:.3f}, {interval}, {row['n']} blocks"
    drawing.parts.append(svg.rect(scale(row["ratio"]) - 4, y - 4, 8, 8, ink, tip=tip))
    shown = f"{row['ratio']:.2f}× ({interval})"
    drawing.parts.append(svg.text(WIDTH - _RIGHT + 10, y + 4, shown, kind="small"))
    drawing.parts.append(
        svg.text(WIDTH, y + 4, row["verdict"], kind="small", anchor="end", extra=f' style="fill:{ink}"')
    )


def draw_tornado(panel: Mapping[str, Any], style: str) -> str:
    """One factor a row, widest first: from its worst to its best setting, as ratios to the baseline."""
    drawing = begin(panel["title"], panel["subtitle"])
    rows = sorted(panel["rows"], key=_reach, reverse=True)
    left = min(max((svg.text_width(row["label"], 12) for row in rows), default=0) + 12, 240.0)
    values = [end["ratio"] for row in rows for end in row["ends"]]
    scale = _around_one(values, left + 90, WIDTH - 130)
    top = drawing.top + 2
    pitch = 27.0
    bottom = top + pitch * len(rows) + 4
    drawing.parts += draw_x_axis(scale, top, bottom, panel["axis"])
    for index, row in enumerate(rows):
        y = top + pitch * index + 5
        drawing.parts.append(
            svg.text(left - 8, y + 13, svg.shorten(row["label"], 12, left - 10), anchor="end")
        )
        for end in row["ends"]:
            drawing.parts += _draw_end(end, row["label"], y, scale)
        drawing.parts += _label_ends(row["ends"], y, scale)
    one = scale(1.0)
    drawing.parts.append(svg.line(one, top, one, bottom, "one"))
    return drawing.finish(bottom + 42, panel["title"], style)


def _draw_end(end: Mapping[str, Any], label: str, y: float, scale: Scale) -> list[str]:
    one, x = scale(1.0), scale(end["ratio"])
    tip = f"{label} = {end['setting']}: {end['ratio']:.3f} of the baseline"
    fill = colour("series:0") if end["ratio"] >= 1 else colour("series:1")
    parts = [svg.rect(min(one, x), y, max(abs(x - one), 1), 17, fill, tip=tip)]
    if end["low"] is not None:
        middle = y + 8.5
        parts.append(svg.line(scale(end["low"]), middle, scale(end["high"]), middle, "whisker"))
    return parts


def _label_ends(ends: Sequence[Mapping[str, Any]], y: float, scale: Scale) -> list[str]:
    """The settings beside the bars' outer ends; two on the same side share one text."""
    parts = []
    for is_right in (False, True):
        here = [end for end in ends if (end["ratio"] >= 1) == is_right]
        if not here:
            continue
        shown = ", ".join(
            f"{end['setting']}: {end['ratio']:.2f}×" for end in sorted(here, key=lambda one: one["ratio"])
        )
        reach = [
            scale(one) for end in here for one in (end["ratio"], end["low"], end["high"]) if one is not None
        ]
        if is_right:
            parts.append(svg.text(max(*reach, scale(1.0)) + 6, y + 13, shown, kind="small"))
        else:
            parts.append(svg.text(min(*reach, scale(1.0)) - 6, y + 13, shown, kind="small", anchor="end"))
    return parts


def _reach(row: Mapping[str, Any]) -> float:
    return max(float(max(end["ratio"], 1 / end["ratio"])) for end in row["ends"])
