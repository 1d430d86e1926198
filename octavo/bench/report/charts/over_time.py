"""Pictures along a time axis: KV blocks in layers, rows of a batch, the map of blocks."""

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
)
from octavo.bench.report.palette import colour
from octavo.bench.report.scale import Scale, linear_scale, value_text

_LEFT, _SIDE, _HEIGHT, _LOWER = 62.0, 170.0, 230.0, 110.0


def draw_area(panel: Mapping[str, Any], style: str) -> str:
    """Layers that add up, and beneath them lines on the same axis of time."""
    drawing = begin(panel["title"], panel["subtitle"])
    right, top = WIDTH - _SIDE, drawing.top + 14
    bottom = top + _HEIGHT
    xs: Sequence[float] = panel["x"]
    x_scale = linear_scale(max(xs, default=1.0), _LEFT, right)
    totals = [sum(values) for values in zip(*(layer["y"] for layer in panel["layers"]), strict=True)]
    y_scale = linear_scale(max(totals, default=1.0), bottom, top)
    drawing.parts += draw_y_axis(y_scale, _LEFT, right, panel["y_axis"])
    beneath = [0.0] * len(xs)
    labels = []
    for layer in panel["layers"]:
        above = [low + value for low, value in zip(beneath, layer["y"], strict=True)]
        upper = _hold(xs, above, x_scale, y_scale)
        lower = _hold(xs, beneath, x_scale, y_scale)
        tip = f"{layer['label']}: at most {value_text(max(layer['y'], default=0))}"
        drawing.parts.append(svg.area([*upper, *reversed(lower)], colour(layer["colour"]), tip=tip))
        if max(layer["y"], default=0) > 0:
            wish = (upper[-1][1] + lower[-1][1]) / 2 if upper else top
            labels.append(SideLabel(wish, layer["label"], colour(layer["colour"])))
        beneath = above
    drawing.parts += draw_side_labels(labels, right + 14, top, bottom)
    lower_top = bottom + 34
    lower_bottom = lower_top + _LOWER
    most = max((max(line["y"], default=0) for line in panel["lines"]), default=1)
    second = linear_scale(max(most, 1), lower_bottom, lower_top)
    drawing.parts += draw_y_axis(second, _LEFT, right, panel["lines_axis"])
    labels = []
    for line in panel["lines"]:
        route = _hold(xs, line["y"], x_scale, second)
        drawing.parts.append(svg.path(route, colour(line["colour"])))
        labels.append(SideLabel(route[-1][1] if route else lower_top, line["label"], colour(line["colour"])))
    drawing.parts += draw_side_labels(labels, right + 14, lower_top, lower_bottom)
    drawing.parts += draw_x_axis(x_scale, lower_top, lower_bottom, panel["x_axis"], grid=False)
    return drawing.finish(lower_bottom + 42, panel["title"], style)


def _hold(
    xs: Sequence[float], ys: Sequence[float], x_scale: Scale, y_scale: Scale
) -> list[tuple[float, float]]:
    """A number holds from one step's end to the next one's."""
    route: list[tuple[float, float]] = []
    for x, y in zip(xs, ys, strict=True):
        if route:
            route.append((x_scale(x), route[-1][1]))
        route.append((x_scale(x), y_scale(y)))
    return route


def draw_gantt(panel: Mapping[str, Any], style: str) -> str:
    """Rows of the batch: a bar for each request; what is between bars stood idle."""
    drawing = begin(panel["title"], panel["subtitle"])
    num_rows = panel["num_rows"]
    pitch = 18.0 if num_rows <= 16 else max(4.0, 290.0 / num_rows)
    top = drawing.top + 4
    bottom = top + pitch * num_rows
    scale = linear_scale(
        panel.get("x_end") or max((bar["end"] for bar in panel["bars"]), default=1.0), _LEFT, WIDTH - 20
    )
    drawing.parts += draw_x_axis(scale, top, bottom, panel["x_axis"])
    for row in range(num_rows):
        if pitch >= 12 or row % 8 == 0:
            drawing.parts.append(
                svg.text(
                    _LEFT - 8, top + pitch * (row + 0.5) + 4, f"row {row + 1}", kind="tick", anchor="end"
                )
            )
    for bar in panel["bars"]:
        x, end = scale(bar["start"]), scale(bar["end"])
        useful = scale(bar.get("useful_end", bar["end"]))
        y, height = top + pitch * bar["row"] + 1, pitch - 2
        span = f"{value_text(bar['start'])} to {value_text(bar['end'])} s"
        tip = f"{bar['label']}: {bar['tokens']} tokens, {span}"
        if end > useful:
            drawing.parts.append(
                svg.rect(useful, y, end - useful, height, "var(--free)", tip=f"{tip}\npadding")
            )
        drawing.parts.append(
            svg.rect(x, y, max(useful - x, 1), height, f"var(--s{bar['row'] % 2 * 5})", tip=tip)
        )
        shown = str(bar["tokens"])
        if pitch >= 12 and svg.text_width(shown, 10.5) + 6 < useful - x:
            drawing.parts.append(
                svg.text(
                    (x + useful) / 2,
                    y + height - 4,
                    shown,
                    kind="small",
                    anchor="middle",
                    extra=' style="fill:var(--on)"',
                )
            )
    return drawing.finish(bottom + 42, panel["title"], style)


def draw_heat_map(panel: Mapping[str, Any], style: str) -> str:
    """Blocks upwards, steps to the right; equal cells beside each other are one rectangle."""
    drawing = begin(panel["title"], panel["subtitle"])
    grid: Sequence[Sequence[int]] = panel["grid"]
    steps: Sequence[int] = panel["steps"]
    right, top = WIDTH - _SIDE, drawing.top + 8
    pitch = min(8.0, max(1.5, 300.0 / max(len(grid), 1)))
    bottom = top + pitch * len(grid)
    x_scale = Scale(0.0, float(max(len(steps), 1)), _LEFT, right)
    y_scale = Scale(0.0, float(max(len(grid), 1)), bottom, top)
    drawing.parts += draw_y_axis(y_scale, _LEFT, right, panel["y_axis"])
    drawing.parts.append(svg.rect(_LEFT, top, right - _LEFT, bottom - top, "var(--free)"))
    for block, row in enumerate(grid):
        for start, end, state in _runs(row):
            if state:
                fill = colour(panel["states"][state]["colour"])
                y = y_scale(block + 1)
                tip = f"block {block}: {panel['states'][state]['label']}"
                width = x_scale(end) - x_scale(start)
                drawing.parts.append(svg.rect(x_scale(start), y, width, pitch + 0.3, fill, tip=tip))
    wanted = sorted({round(index * (len(steps) - 1) / 6) for index in range(7)})
    for place in wanted:
        shown = "start" if steps[place] < 0 else str(steps[place])
        drawing.parts.append(svg.text(x_scale(place + 0.5), bottom + 15, shown, kind="tick", anchor="middle"))
    drawing.parts.append(svg.text((_LEFT + right) / 2, bottom + 32, "step", kind="tick", anchor="middle"))
    labels = [
        SideLabel(top + index, one["label"], colour(one["colour"]))
        for index, one in enumerate(panel["states"])
    ]
    drawing.parts += draw_side_labels(labels, right + 14, top, max(bottom, top + 90))
    return drawing.finish(max(bottom, top + 90) + 42, panel["title"], style)


def _runs(row: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, end, state) of equal neighbours."""
    found: list[tuple[int, int, int]] = []
    for place, state in enumerate(row):
        if found and found[-1][2] == state:
            found[-1] = (found[-1][0], place + 1, state)
        else:
            found.append((place, place + 1, state))
    return found
