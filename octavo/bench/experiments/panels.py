"""Figures as data: what the report draws, and keeps in results.json. Draws nothing itself.

A panel is a dict with `kind`, `name` (of its file), `title`, `subtitle` and what its kind needs; each kind's
drawing is in octavo/bench/report/charts. Colours are named: "target:octavo", "series:2", "paper".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.bench.experiments.measures import METRICS
from octavo.bench.experiments.results import Results
from octavo.bench.statistics.interval import estimate_mean
from octavo.bench.statistics.resampling import ecdf_band

Panel = dict[str, Any]

# More points than these no screen shows apart.
_MOST_POINTS = 240
# Free blocks are drawn where the others take at least this share of all.
_LEAST_SHARE_TAKEN = 0.2
# Of fewer blocks Student's interval is so wide that it hides all else; their ends are shown.
_FEWEST_FOR_INTERVAL = 3


def target_colour(name: str) -> str:
    return f"target:{name}"


def series_colour(index: int) -> str:
    return f"series:{index}"


def metric_bars(
    results: Results,
    metric: str,
    *,
    name: str,
    title: str,
    conditions: Sequence[str] | None = None,
    marks: Sequence[Mapping[str, Any]] = (),
    labels: Mapping[str, str] | None = None,
    note: str = "",
) -> Panel:
    """Grouped bars: a group for each condition, a bar for each target; whiskers are 95 % intervals.

    Args:
        labels: conditions as they are to be called in the figure.
        marks: lines to stand beside a group: {"group", "value", "label"}.
    """
    about = METRICS[metric]
    groups = list(conditions if conditions is not None else results.conditions)
    series = []
    for target in results.live_targets:
        bars = [_bar(results.values(group, target, metric)) for group in groups]
        if any(bar is not None for bar in bars):
            series.append({"label": target, "colour": target_colour(target), "bars": bars})
    return {
        "kind": "bars",
        "name": name,
        "title": title,
        "subtitle": _subtitle(results, groups, note),
        "unit": about.unit,
        "axis": about.label,
        "groups": [(labels or {}).get(group, group) for group in groups],
        "series": series,
        "marks": list(marks),
    }


def plain_bars(
    *,
    name: str,
    title: str,
    subtitle: str,
    axis: str,
    unit: str,
    groups: Sequence[str],
    series: Sequence[Mapping[str, Any]],
    marks: Sequence[Mapping[str, Any]] = (),
) -> Panel:
    """Bars of numbers that are no metrics of runs."""
    return {
        "kind": "bars",
        "name": name,
        "title": title,
        "subtitle": subtitle,
        "axis": axis,
        "unit": unit,
        "groups": list(groups),
        "series": list(series),
        "marks": list(marks),
    }


def _bar(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    found = estimate_mean(values)
    low, high = found.low, found.high
    if len(values) < _FEWEST_FOR_INTERVAL:
        low, high = (min(values), max(values)) if len(values) > 1 else (None, None)
    return {"value": found.mean, "low": low, "high": high, "n": found.n}


def latency_ecdf(
    results: Results, field: str, *, name: str, title: str, conditions: Sequence[str], unit: str = "ms"
) -> Panel:
    """Distribution functions with 95 % bands; one curve a target, or one a condition of a single target."""
    targets = results.live_targets
    curves = []
    for index, condition in enumerate(conditions):
        for target in targets:
            blocks = results.request_values(condition, target, field)
            if not blocks:
                continue
            places = _places(sorted(value for block in blocks for value in block))
            low, high = ecdf_band(blocks, places)
            pooled = sorted(value for block in blocks for value in block)
            shares = [_share_up_to(pooled, place) for place in places]
            is_many = len(conditions) > 1
            label = condition if len(targets) == 1 else f"{target}, {condition}" if is_many else target
            colour = series_colour(index) if len(targets) == 1 else target_colour(target)
            curves.append(
                {
                    "label": label,
                    "colour": colour,
                    "dash": index if len(targets) > 1 else 0,
                    "x": places,
                    "y": shares,
                    "low": low,
                    "high": high,
                    "n": len(pooled),
                }
            )
    num_blocks = max(
        (len(results.of(condition, target)) for condition in conditions for target in targets), default=0
    )
    return {
        "kind": "ecdf",
        "name": name,
        "title": title,
        "curves": curves,
        "unit": unit,
        "axis": f"{field_label(field)} [{unit}]",
        "subtitle": f"share of requests; 95 % bands by resampling {num_blocks} blocks, then requests",
    }


_FIELD_LABELS = {
    "e2e_ms": "end-to-end latency",
    "ttft_ms": "time to first token",
    "tpot_ms": "time per output token",
    "norm_latency_ms_per_token": "normalised latency",
}


def field_label(field: str) -> str:
    """A field of RequestTimes for people."""
    return _FIELD_LABELS[field]


def _places(ordered: Sequence[float]) -> list[float]:
    """Where a curve is drawn: all values, or so many quantiles of them."""
    distinct = sorted(set(ordered))
    if len(distinct) <= _MOST_POINTS:
        return distinct
    last = len(distinct) - 1
    return [distinct[round(index * last / (_MOST_POINTS - 1))] for index in range(_MOST_POINTS)]


def _share_up_to(ordered: Sequence[float], place: float) -> float:
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] <= place:
            low = middle + 1
        else:
            high = middle
    return low / len(ordered)


def latency_by_arrival(
    results: Results, *, name: str, title: str, conditions: Sequence[str], field: str = "e2e_ms"
) -> Panel:
    """Every request of the first counted block in order of arrival, and how long it took."""
    curves = []
    targets = results.live_targets
    for index, condition in enumerate(conditions):
        for target in targets:
            runs = results.of(condition, target)
            if not runs or not runs[0].requests:
                continue
            latencies = [getattr(one, field) / 1e3 for one in runs[0].requests]
            points = _thin([(number + 1.0, value) for number, value in enumerate(latencies)])
            label = (
                condition
                if len(targets) == 1
                else f"{target}, {condition}"
                if len(conditions) > 1
                else target
            )
            curves.append(
                {
                    "label": label,
                    "dash": index if len(targets) > 1 else 0,
                    "colour": series_colour(index) if len(targets) == 1 else target_colour(target),
                    "x": [x for x, _ in points],
                    "y": [y for _, y in points],
                    "n": len(runs[0].requests),
                }
            )
    return {
        "kind": "lines",
        "name": name,
        "title": title,
        "curves": curves,
        "points": True,
        "subtitle": "one point a request, in order of arrival; first counted block",
        "x_axis": "request, by arrival",
        "y_axis": f"{field_label(field)} [s]",
    }


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, -(-len(points) // _MOST_POINTS))
    return list(points[::step])


def trade_off(
    results: Results,
    x_metric: tuple[str, Sequence[str]],
    y_metric: tuple[str, Sequence[str]],
    *,
    name: str,
    title: str,
    notes: Sequence[str] = ("",),
) -> Panel:
    """A point for each target and pair of conditions, means over blocks; less of x and more of y is better.

    Args:
        x_metric, y_metric: a metric's name, and the conditions that it is taken from, pair by pair.
        notes: what is written beside the points of each pair.
    """
    (x_name, x_conditions), (y_name, y_conditions) = x_metric, y_metric
    places = []
    for target in results.live_targets:
        for x_condition, y_condition, note in zip(x_conditions, y_conditions, notes, strict=True):
            xs, ys = results.values(x_condition, target, x_name), results.values(y_condition, target, y_name)
            if xs and ys:
                x, y = sum(xs) / len(xs), sum(ys) / len(ys)
                places.append(
                    {"label": target, "colour": target_colour(target), "x": x, "y": y, "note": note}
                )
    about_x, about_y = METRICS[x_name], METRICS[y_name]
    return {
        "kind": "points",
        "name": name,
        "title": title,
        "subtitle": "means over blocks; up and to the left is better; the dashed line joins what nothing "
        "else beats in both",
        "x_axis": f"{about_x.label} [{about_x.unit}]",
        "y_axis": f"{about_y.label} [{about_y.unit}]",
        "places": places,
    }


def kv_timeline(results: Results, *, name: str, title: str, condition: str, target: str) -> Panel | None:
    """Blocks used, shared, cached and free, and sequences that run and wait; None without steps."""
    runs = [run for run in results.of(condition, target) if run.steps]
    if not runs:
        return None
    steps = runs[0].steps
    every = max(1, -(-len(steps["end_ms"]) // _MOST_POINTS))
    columns = {key: values[::every] for key, values in steps.items()}
    shared = [
        min(one, used) for one, used in zip(columns["blocks_shared"], columns["blocks_used"], strict=True)
    ]
    alone = [used - both for used, both in zip(columns["blocks_used"], shared, strict=True)]
    layers = [
        {"label": "used", "colour": "block:used", "y": alone},
        {"label": "saved by sharing", "colour": "block:shared", "y": shared},
        {"label": "cached", "colour": "block:cached", "y": columns["blocks_cached"]},
        {"label": "free", "colour": "block:free", "y": columns["blocks_free"]},
    ]
    taken = [sum(places) for places in zip(*(layer["y"] for layer in layers[:-1]), strict=True)]
    num_blocks = max(both + free for both, free in zip(taken, columns["blocks_free"], strict=True))
    if max(taken) < _LEAST_SHARE_TAKEN * num_blocks:
        layers.pop()  # beside so many free blocks the others would be a line on the axis
    return {
        "kind": "area",
        "name": name,
        "title": title,
        "subtitle": f"{condition}, {target}, first counted block; {len(steps['end_ms'])} steps, "
        f"{num_blocks:,.0f} blocks in all",
        "x": [start / 1e3 for start in columns["start_ms"]],
        "x_axis": "seconds from the start",
        "y_axis": "KV blocks",
        "layers": layers,
        "lines": [
            {"label": "running", "colour": "series:0", "y": columns["num_running"]},
            {"label": "waiting", "colour": "series:1", "y": columns["num_waiting"]},
        ],
        "lines_axis": "sequences",
    }


def forest(comparisons: Sequence[Mapping[str, Any]], *, name: str, title: str, subtitle: str) -> Panel:
    """Ratios with intervals around 1; what all rows have in common is told once, above them."""
    bases = {str(one["against"]) for one in comparisons}
    labels = {str(one["label"]) for one in comparisons}
    if len(bases) == 1:
        subtitle = f"against: {next(iter(bases))}; {subtitle}"
    if len(labels) == 1:
        subtitle = f"{next(iter(labels))}; {subtitle}"
    rows = [
        {
            "label": (f"{one['of']} / {one['against']}" if len(bases) > 1 else str(one["of"]))
            + (f", {one['group']}" if one["group"] else ""),
            "metric": one["label"] if len(labels) > 1 else "",
            "ratio": one["ratio"],
            "low": one["low"],
            "high": one["high"],
            "verdict": str(one["verdict"]),
            "n": one["num_blocks"],
        }
        for one in comparisons
    ]
    return {"kind": "forest", "name": name, "title": title, "subtitle": subtitle, "rows": rows}


def gantt(
    results: Results, *, name: str, title: str, condition: str, target: str, num_rows: int
) -> Panel | None:
    """Rows of the batch over time: each request from its first token to its last, in the first free row."""
    runs = results.of(condition, target)
    if not runs or not runs[0].requests:
        return None
    spans = sorted(
        (one.first_ms / 1e3, one.end_ms / 1e3, one.request_id, one.num_output_tokens, one.last_ms / 1e3)
        for one in runs[0].requests
    )
    free_at: list[float] = []
    bars = []
    for first, end, request_id, num_tokens, last in spans:
        row = next((index for index, free in enumerate(free_at) if free <= first + 1e-9), None)
        if row is None:
            row = len(free_at)
            free_at.append(0.0)
        free_at[row] = end
        bars.append(
            {
                "row": row,
                "start": first,
                "end": end,
                "useful_end": last,
                "label": request_id,
                "tokens": num_tokens,
            }
        )
    return {
        "kind": "gantt",
        "name": name,
        "title": title,
        "bars": bars,
        "num_rows": max(len(free_at), num_rows),
        "subtitle": f"{len(bars)} requests, each from first token to end; first counted block",
        "x_axis": "seconds",
    }


def _subtitle(results: Results, conditions: Sequence[str], note: str) -> str:
    runs = [run for run in results.outcomes if run.condition in conditions]
    num_blocks = len({run.block for run in runs})
    sizes = sorted({len(run.requests) for run in runs})
    requests = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}" if sizes else "no"
    whiskers = "95 % interval" if num_blocks >= _FEWEST_FOR_INTERVAL else "smallest and largest"
    blocks = "1 block" if num_blocks == 1 else f"mean of {num_blocks} blocks"
    parts = [f"{blocks}, {requests} requests each; whiskers: {whiskers}", note]
    return "; ".join(part for part in parts if part)
