"""Panels of every kind with random data of a wanted size, for tests of their drawing."""

from __future__ import annotations

import random
from typing import Any

_LONG = "static, padded to the longest of all the requests there are"


def make_panel(kind: str, size: int) -> dict[str, Any]:
    """One panel; `size` is the number of bars, points, rows or curves."""
    draw = random.Random(f"{kind}/{size}")
    names = [_LONG if index == 0 else f"case {index}" for index in range(size)]
    panel = {"kind": kind, "name": kind, "title": f"A figure of {kind}", "subtitle": "of made-up data " * 3}
    return panel | {"unit": "ms", "axis": "latency"} | _MAKERS[kind](draw, names)


def _bars(draw: random.Random, names: list[str]) -> dict[str, Any]:
    def bar() -> dict[str, Any] | None:
        value = draw.uniform(1, 1000)
        return {"value": value, "low": 0.9 * value, "high": 1.2 * value, "n": 5}

    series = [
        {"label": label, "colour": f"target:{label}", "bars": [bar() for _ in names]}
        for label in ("octavo", "vllm")
    ]
    marks = [{"group": names[0], "value": 480.0, "label": "paper: 480"}]
    return {"groups": names, "series": series, "marks": marks}


def _stacked(draw: random.Random, names: list[str]) -> dict[str, Any]:
    rows = []
    for index, name in enumerate(names):
        cuts = sorted(draw.uniform(0, 100) for _ in range(2))
        shares = [cuts[0], cuts[1] - cuts[0], 100 - cuts[1]]
        rows.append({"label": name, "shares": shares, "note": "30.4 at once", "is_claim": index % 2 == 1})
    kinds = ("states", "internal", "free")
    categories = [{"label": kind, "colour": f"category:{kind}"} for kind in kinds]
    return {"rows": rows, "categories": categories, "axis": "%"}


def _ecdf(draw: random.Random, names: list[str]) -> dict[str, Any]:
    curves = []
    for index, name in enumerate(names[:8]):
        places = sorted(draw.lognormvariate(5 + 0.3 * index, 1) for _ in range(len(names) * 5))
        shares = [(place + 1) / len(places) for place in range(len(places))]
        low, high = [max(0.0, one - 0.1) for one in shares], [min(1.0, one + 0.1) for one in shares]
        curve = {"label": name, "colour": f"series:{index}", "dash": index, "x": places, "y": shares}
        curves.append(curve | {"low": low, "high": high, "n": len(places)})
    return {"curves": curves}


def _lines(draw: random.Random, names: list[str]) -> dict[str, Any]:
    curves = []
    for index, name in enumerate(names[:8]):
        ys = [draw.uniform(5, 50) * 2**step for step in range(6)]
        curve = {"label": name, "colour": f"series:{index}", "x": [0.5 * step for step in range(6)], "y": ys}
        curves.append(curve | {"low": [0.8 * y for y in ys], "high": [1.3 * y for y in ys], "n": 60})
    knees = [{"x": 1.2, "label": "octavo: 1.20 req/s", "colour": "target:octavo"}]
    limit = {"value": 80.0, "label": "limit, 80 ms/token"}
    axes = {"x_axis": "requests/s", "y_axis": "normalised latency [ms/token]", "may_log": True}
    return {"curves": curves, "knees": knees, "limit": limit} | axes


def _points(draw: random.Random, names: list[str]) -> dict[str, Any]:
    places = [
        {"label": name, "colour": f"series:{index}", "x": draw.uniform(5, 80), "y": draw.uniform(30, 700)}
        | {"note": "" if index % 3 else "0.7"}
        for index, name in enumerate(names[:8])
    ]
    return {"places": places, "x_axis": "time per token [ms]", "y_axis": "output tokens [tok/s]"}


def _area(draw: random.Random, names: list[str]) -> dict[str, Any]:
    count = len(names) * 5
    layers = [
        {"label": state, "colour": f"block:{state}", "y": [draw.randrange(100) for _ in range(count)]}
        for state in ("used", "shared", "cached", "free")
    ]
    lines = [
        {"label": name, "colour": f"series:{index}", "y": [draw.randrange(9) for _ in range(count)]}
        for index, name in enumerate(("running", "waiting"))
    ]
    axes = {"x_axis": "seconds", "y_axis": "KV blocks", "lines_axis": "sequences"}
    return {"x": [0.1 * step for step in range(count)], "layers": layers, "lines": lines} | axes


def _gantt(draw: random.Random, names: list[str]) -> dict[str, Any]:
    bars = []
    for index, name in enumerate(names):
        start = 0.5 * (index // 4)
        end = start + draw.uniform(0.1, 0.5)
        bar = {"row": index % 4, "start": start, "end": end, "useful_end": start + 0.7 * (end - start)}
        bars.append(bar | {"label": name, "tokens": 128})
    return {"bars": bars, "num_rows": 4, "x_axis": "seconds"}


def _heat_map(draw: random.Random, names: list[str]) -> dict[str, Any]:
    grid = [[draw.randrange(4) for _ in range(len(names) * 3)] for _ in range(len(names) * 2)]
    states = [{"label": one, "colour": f"block:{one}"} for one in ("free", "cached", "used", "shared")]
    return {"grid": grid, "steps": [-1, *range(len(names) * 3 - 1)], "states": states, "y_axis": "block"}


def _forest(draw: random.Random, names: list[str]) -> dict[str, Any]:
    rows = []
    for index, name in enumerate(names):
        ratio = draw.lognormvariate(0, 0.5)
        interval = (None, None) if index % 5 == 4 else (0.8 * ratio, 1.3 * ratio)
        verdict = ("better", "worse", "no evidence", "too few blocks")[index % 4]
        row = {"label": name, "metric": "output tokens/s", "ratio": ratio, "verdict": verdict, "n": 5}
        rows.append(row | {"low": interval[0], "high": interval[1]})
    return {"rows": rows}


def _tornado(draw: random.Random, names: list[str]) -> dict[str, Any]:
    rows = []
    for name in names:
        ends = [
            {"setting": f"{factor:g} of it", "ratio": ratio, "low": 0.95 * ratio, "high": 1.05 * ratio}
            for factor, ratio in ((0.25, draw.uniform(0.4, 0.9)), (4, draw.uniform(0.9, 2.5)))
        ]
        rows.append({"label": name, "ends": ends})
    return {"rows": rows, "axis": "output tokens/s, ratio to the baseline"}


_MAKERS = {
    "bars": _bars,
    "stacked": _stacked,
    "ecdf": _ecdf,
    "lines": _lines,
    "points": _points,
    "area": _area,
    "gantt": _gantt,
    "heat-map": _heat_map,
    "forest": _forest,
    "tornado": _tornado,
}
