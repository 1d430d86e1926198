"""A report's panels as pictures by matplotlib, SVG or PNG on white: for papers and slides.

The same data and colours as the page's own drawings. Imports no matplotlib itself: see bench/figures.py.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.bench.figures import new_page, save_page
from octavo.bench.report.charts.points import frontier
from octavo.bench.report.figure_files import is_drawable
from octavo.bench.report.palette import print_colour
from octavo.bench.report.scale import is_wide, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Mapping[str, Any]

_WIDTH = 8.0
_ROW = 0.27  # inches of a bar and its gap
_DIM, _INK = "#5c5f66", "#1d1d1f"
_SMALL = 8
_LONGEST_LINE = 34  # characters
_RATIO_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_MOST_ROW_TICKS = 16
_DASHES = ("solid", (0, (6, 3)), (0, (1, 2)), (0, (6, 2, 2, 2)), (0, (1, 3)))


def draw_pictures(document: Mapping[str, Any], folder: Path, suffix: str) -> list[Path]:
    """A file for each panel that has data, named after it.

    Args:
        suffix: ".svg" or ".png".

    Raises:
        ConfigError: matplotlib is not installed, or a file cannot be written.
    """
    paths = []
    for panel in document["panels"]:
        if is_drawable(panel):
            paths.append(folder / f"{panel['name']}{suffix}")
            draw_picture(panel, paths[-1])
    return paths


def draw_picture(panel: Panel, path: Path) -> None:
    """One panel. Raises ConfigError as `draw_pictures` does, KeyError where there is no such kind."""
    height, draw = PICTURES[panel["kind"]]
    figure = new_page(_WIDTH, height(panel))
    draw(panel, figure)
    figure.suptitle(panel["title"], x=0.01, ha="left", fontsize=11, fontweight="bold", color=_INK)
    figure.supxlabel(panel["subtitle"], x=0.01, ha="left", fontsize=7, color=_DIM, wrap=True)
    save_page(figure, path)


def _plain_axes(figure: Figure) -> Axes:
    axes = figure.add_subplot()
    _clear_frame(axes)
    return axes


def _clear_frame(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=_SMALL)


def _wrapped(label: str) -> str:
    """Long names in lines: they must leave room for the plot."""
    return "\n".join(textwrap.wrap(label, _LONGEST_LINE)) or label


def _legend_beside(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=_SMALL)


# -- bars


def _bars_height(panel: Panel) -> float:
    return 1.5 + _ROW * len(panel["groups"]) * (len(panel["series"]) + (len(panel["series"]) > 1))


def _draw_bars(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    series, is_single = panel["series"], len(panel["series"]) <= 1
    names, places, place = [], [], 0.0
    for index, group in enumerate(panel["groups"]):
        if not is_single:
            axes.text(0, place, f" {group}", fontsize=_SMALL, fontweight="bold", va="center")
            place += 1
        first = place
        for one in series:
            names.append(_wrapped(group if is_single else one["label"]))
            places.append(place)
            fill = print_colour(one.get("group_colours", {}).get(group, one["colour"]))
            _draw_bar(axes, place, one["bars"][index], fill, panel["unit"])
            place += 1
        marks = [mark for mark in panel["marks"] if mark["group"] == group]
        for mark in marks:
            x = mark["value"]
            axes.vlines(x, first - 0.5, place, color=_DIM, linestyle="dashed", linewidth=1)
            axes.annotate(f" {mark['label']}", (x, place - 0.1), fontsize=7, color=_DIM, va="center")
        place += 0.6 * bool(marks)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{panel['axis']} [{panel['unit']}]" if panel["unit"] else panel["axis"], fontsize=_SMALL)


def _draw_bar(axes: Axes, place: float, bar: Mapping[str, Any] | None, fill: str, unit: str) -> None:
    if bar is None:
        axes.text(0, place, " not measured", fontsize=7, color=_DIM, va="center")
        return
    end = bar["value"]
    axes.barh(place, end, height=0.78, color=fill)
    if bar["low"] is not None:
        reach = [[end - bar["low"]], [bar["high"] - end]]
        axes.errorbar(end, place, xerr=reach, color=_INK, capsize=2.5, linewidth=1)
        end = max(end, bar["high"])
    axes.text(end, place, f"  {value_text(bar['value'])} {unit}", fontsize=7, va="center")


def _stacked_height(panel: Panel) -> float:
    return 1.9 + _ROW * len(panel["rows"])


def _draw_stacked(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    for place, row in enumerate(panel["rows"]):
        start = 0.0
        for category, share in zip(panel["categories"], row["shares"], strict=True):
            axes.barh(
                place,
                share,
                left=start,
                height=0.45 if row["is_claim"] else 0.78,
                color=print_colour(category["colour"]),
                alpha=0.55 if row["is_claim"] else 1.0,
                label=category["label"] if place == 0 else None,
            )
            start += share
        axes.text(101, place, row["note"], fontsize=7, va="center")
    axes.set_yticks(range(len(panel["rows"])), [_wrapped(row["label"]) for row in panel["rows"]])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(panel["axis"], fontsize=_SMALL)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False, fontsize=7
    )


# -- curves and points


def _curve_height(panel: Panel) -> float:
    return max(3.6, 1.6 + 0.17 * len(panel.get("curves", ())))


def _draw_ecdf(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    for curve in panel["curves"]:
        ink = print_colour(curve["colour"])
        xs = curve["x"]
        axes.fill_between(xs, curve["low"], curve["high"], step="post", color=ink, alpha=0.16, linewidth=0)
        axes.step(
            [xs[0], *xs],
            [0.0, *curve["y"]],
            where="post",
            color=ink,
            linestyle=_dash(curve),
            label=_wrapped(f"{curve['label']} (n = {curve['n']:,})"),
        )
    if is_wide([value for curve in panel["curves"] for value in curve["x"]]):
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(panel["axis"], fontsize=_SMALL)
    axes.set_ylabel("share of requests", fontsize=_SMALL)
    axes.grid(alpha=0.3)
    _legend_beside(axes)


def _draw_lines(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    for curve in panel["curves"]:
        ink, width = print_colour(curve["colour"]), 0.8 if panel.get("points") else 1.6
        axes.plot(
            curve["x"],
            curve["y"],
            marker="o",
            markersize=2.5 if len(curve["x"]) > 60 else 4,
            color=ink,
            linewidth=width,
            linestyle=_dash(curve),
            label=_wrapped(curve["label"]),
        )
        for x, low, high in zip(curve["x"], curve.get("low", ()), curve.get("high", ()), strict=False):
            if low is not None and high is not None:
                axes.vlines(x, low, high, color=ink, linewidth=1)
    for knee in panel.get("knees", ()):
        axes.axvline(knee["x"], color=print_colour(knee["colour"]), linestyle="dashed", linewidth=1)
    if panel.get("limit"):
        axes.axhline(panel["limit"]["value"], color=_DIM, linestyle="dashed", linewidth=1)
        axes.annotate(
            panel["limit"]["label"],
            (0.01, panel["limit"]["value"]),
            xycoords=("axes fraction", "data"),
            fontsize=7,
            color=_DIM,
            va="bottom",
        )
    if panel.get("may_log") and is_wide([value for curve in panel["curves"] for value in curve["y"]]):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(panel["x_axis"], fontsize=_SMALL)
    axes.set_ylabel(panel["y_axis"], fontsize=_SMALL)
    axes.grid(alpha=0.3)
    _legend_beside(axes)


def _dash(curve: Mapping[str, Any]) -> Any:
    return _DASHES[curve.get("dash", 0) % len(_DASHES)]


def _draw_points(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    points, named = panel["places"], set()
    for one in points:
        label = None if one["label"] in named else _wrapped(one["label"])
        named.add(one["label"])
        axes.scatter([one["x"]], [one["y"]], color=print_colour(one["colour"]), s=36, label=label, zorder=3)
        if one["note"]:
            axes.annotate(f"  {one['note']}", (one["x"], one["y"]), fontsize=7, color=_DIM, va="center")
    best = frontier(points)
    xs, ys = [one["x"] for one in best], [one["y"] for one in best]
    axes.step(xs, ys, where="post", color=_DIM, linestyle="dashed", linewidth=1)
    for name, values in (("x", [one["x"] for one in points]), ("y", [one["y"] for one in points])):
        if is_wide(values):
            axes.set(**{f"{name}scale": "log"})
        else:
            axes.set(**{f"{name}lim": (0, 1.12 * max(values))})
    axes.set_xlabel(panel["x_axis"], fontsize=_SMALL)
    axes.set_ylabel(panel["y_axis"], fontsize=_SMALL)
    axes.grid(alpha=0.3)
    _legend_beside(axes)


# -- over time


def _draw_area(panel: Panel, figure: Figure) -> None:
    axes, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    _clear_frame(axes)
    _clear_frame(lower)
    beneath = [0.0] * len(panel["x"])
    for layer in panel["layers"]:
        above = [low + value for low, value in zip(beneath, layer["y"], strict=True)]
        fill = print_colour(layer["colour"])
        axes.fill_between(
            panel["x"], beneath, above, step="post", color=fill, linewidth=0, label=layer["label"]
        )
        beneath = above
    for line in panel["lines"]:
        lower.step(
            panel["x"], line["y"], where="post", color=print_colour(line["colour"]), label=line["label"]
        )
    axes.set_ylabel(panel["y_axis"], fontsize=_SMALL)
    lower.set_ylabel(panel["lines_axis"], fontsize=_SMALL)
    lower.set_xlabel(panel["x_axis"], fontsize=_SMALL)
    for one in (axes, lower):
        one.set_ylim(bottom=0)
        _legend_beside(one)


def _gantt_height(panel: Panel) -> float:
    return float(1.6 + min(_ROW * panel["num_rows"], 4.0))


def _draw_gantt(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    colours = print_colour("series:0"), print_colour("series:5")
    for bar in panel["bars"]:
        useful = bar.get("useful_end", bar["end"])
        axes.barh(bar["row"], bar["end"] - useful, left=useful, height=0.85, color=print_colour("block:free"))
        fill = colours[bar["row"] % 2]
        axes.barh(bar["row"], useful - bar["start"], left=bar["start"], height=0.85, color=fill)
    end = panel.get("x_end") or max((bar["end"] for bar in panel["bars"]), default=1.0)
    axes.set_xlim(0, end)
    axes.set_ylim(panel["num_rows"] - 0.5, -0.5)
    every = -(-panel["num_rows"] // _MOST_ROW_TICKS)
    rows = range(0, panel["num_rows"], every)
    axes.set_yticks(rows, [str(row + 1) for row in rows])
    axes.set_xlabel(panel["x_axis"], fontsize=_SMALL)
    axes.set_ylabel("row of the batch", fontsize=_SMALL)


def _draw_heat_map(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    colours = [_channels(print_colour(state["colour"])) for state in panel["states"]]
    pixels = [[colours[state] for state in row] for row in panel["grid"]]
    axes.imshow(pixels, aspect="auto", interpolation="nearest", origin="lower")
    steps, blocks = panel["steps"], len(panel["grid"])
    shown = sorted({round(index * (len(steps) - 1) / 6) for index in range(7)})
    axes.set_xticks(shown, ["start" if steps[place] < 0 else str(steps[place]) for place in shown])
    axes.set_yticks(sorted({round(index * (blocks - 1) / 6) for index in range(7)}))
    axes.set_xlabel("step", fontsize=_SMALL)
    axes.set_ylabel(panel["y_axis"], fontsize=_SMALL)
    for state in panel["states"]:
        axes.scatter([], [], color=print_colour(state["colour"]), marker="s", label=state["label"])
    _legend_beside(axes)


def _channels(colour: str) -> tuple[float, float, float]:
    """ "#0072b2" -> red, green and blue from 0 to 1."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


# -- ratios


def _ratios_height(panel: Panel) -> float:
    return 1.5 + _ROW * len(panel["rows"])


def _draw_forest(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    verdicts = {"better": print_colour("verdict:better"), "worse": print_colour("verdict:worse")}
    names = []
    for place, row in enumerate(panel["rows"]):
        ink = verdicts.get(row["verdict"], _DIM)
        if row["low"] is not None:
            axes.hlines(place, row["low"], row["high"], color=_INK, linewidth=1)
        axes.scatter([row["ratio"]], [place], color=ink, marker="s", s=26, zorder=3)
        interval = "no interval" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        axes.annotate(
            f"{row['ratio']:.2f}× ({interval}), {row['verdict']}",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            fontsize=7,
            color=ink,
            va="center",
        )
        names.append(_wrapped(f"{row['label']}: {row['metric']}" if row["metric"] else row["label"]))
    _around_one(axes, names, [row[key] for row in panel["rows"] for key in ("ratio", "low", "high")])
    axes.set_xlabel("ratio", fontsize=_SMALL)


def _draw_tornado(panel: Panel, figure: Figure) -> None:
    axes = _plain_axes(figure)
    rows = sorted(
        panel["rows"], key=lambda row: -max(max(end["ratio"], 1 / end["ratio"]) for end in row["ends"])
    )
    for place, row in enumerate(rows):
        for end in row["ends"]:
            is_more = end["ratio"] >= 1
            fill = print_colour("series:0" if is_more else "series:1")
            axes.barh(place, end["ratio"] - 1, left=1, height=0.7, color=fill)
            if end["low"] is not None:
                axes.hlines(place, end["low"], end["high"], color=_INK, linewidth=1)
        notes = ", ".join(f"{end['setting']}: {end['ratio']:.2f}×" for end in row["ends"])
        axes.annotate(notes, (1.02, place), xycoords=("axes fraction", "data"), fontsize=7, va="center")
    values = [end[key] for row in rows for end in row["ends"] for key in ("ratio", "low", "high")]
    _around_one(axes, [_wrapped(row["label"]) for row in rows], values)
    axes.set_xlabel(panel["axis"], fontsize=_SMALL)


def _around_one(axes: Axes, names: Sequence[str], values: Sequence[float | None]) -> None:
    """The same factor to either side of 1, rows from the top down."""
    known = [value for value in values if value is not None and value > 0]
    reach = max(max(*known, 1 / min(known)) ** 1.1, 1.05)
    if reach > 2:
        axes.set_xscale("log")
        ticks = [tick for tick in _RATIO_TICKS if 1 / reach <= tick <= reach]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.set_xlim(1 / reach, reach)
    axes.axvline(1.0, color=_DIM, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


# Kind of panel -> its height in inches, and what draws it.
PICTURES: dict[str, tuple[Callable[[Panel], float], Callable[[Panel, Figure], None]]] = {
    "bars": (_bars_height, _draw_bars),
    "stacked": (_stacked_height, _draw_stacked),
    "ecdf": (_curve_height, _draw_ecdf),
    "lines": (_curve_height, _draw_lines),
    "points": (_curve_height, _draw_points),
    "area": (lambda panel: 4.6, _draw_area),
    "gantt": (_gantt_height, _draw_gantt),
    "heat-map": (lambda panel: 4.0, _draw_heat_map),
    "forest": (_ratios_height, _draw_forest),
    "tornado": (_ratios_height, _draw_tornado),
}
