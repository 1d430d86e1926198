"""What all charts have: title lines, axes with ticks, and a column of labels at the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.bench.report import svg
from octavo.bench.report.scale import Scale, tick_text

WIDTH = 860.0
_TITLE_TOP, _TITLE_STEP = 20.0, 15.0
LABEL_SIZE = 12.0
ROW_HEIGHT = 17.0


@dataclass(slots=True)
class Drawing:
    """Parts of an SVG, and how far down they reach."""

    parts: list[str]
    top: float

    def finish(self, height: float, title: str, style: str) -> str:
        return svg.document(WIDTH, height, title, self.parts, style=style)


def begin(title: str, subtitle: str) -> Drawing:
    """Title and subtitle; what follows begins at `top`."""
    parts = [svg.text(0, _TITLE_TOP, svg.shorten(title, 15, WIDTH), kind="heading")]
    y = _TITLE_TOP
    for line in svg.wrap(subtitle, 11, WIDTH):
        y += _TITLE_STEP
        parts.append(svg.text(0, y, line, kind="subheading"))
    return Drawing(parts, y + 14)


def draw_x_axis(scale: Scale, top: float, bottom: float, label: str, *, grid: bool = True) -> list[str]:
    """Ticks, gridlines and the label beneath; ticks that would touch are left out."""
    parts = []
    previous_end = -1e9
    for tick in scale.ticks():
        x, shown = scale(tick), tick_text(tick)
        if grid:
            parts.append(svg.line(x, top, x, bottom, "grid"))
        half = svg.text_width(shown, 11) / 2
        if x - half > previous_end + 6:
            parts.append(svg.text(x, bottom + 15, shown, kind="tick", anchor="middle"))
            previous_end = x + half
    parts.append(svg.line(scale.start, bottom, scale.end, bottom, "axis"))
    named = f"{label} (log scale)" if scale.is_log else label
    parts.append(svg.text((scale.start + scale.end) / 2, bottom + 32, named, kind="tick", anchor="middle"))
    return parts


def draw_y_axis(scale: Scale, left: float, right: float, label: str) -> list[str]:
    """Ticks and gridlines at the left, the label above them."""
    parts = []
    previous_y = 1e9
    for tick in scale.ticks():
        y = scale(tick)
        if previous_y - y < 13:
            continue
        previous_y = y
        parts.append(svg.line(left, y, right, y, "grid"))
        parts.append(svg.text(left - 6, y + 4, tick_text(tick), kind="tick", anchor="end"))
    named = f"{label} (log scale)" if scale.is_log else label
    parts.append(svg.text(left - 44 if left > 44 else 0, scale.end - 8, named, kind="tick"))
    return parts


@dataclass(frozen=True, slots=True)
class SideLabel:
    """Attributes:
    y: where the label would like to be.
    note: a second, dim line.
    """

    y: float
    label: str
    colour: str
    note: str = ""
    dash: str = ""


def draw_side_labels(labels: Sequence[SideLabel], x: float, top: float, bottom: float) -> list[str]:
    """Labels with a swatch, in the order of their wishes and pushed apart."""
    height = ROW_HEIGHT
    ordered = sorted(labels, key=lambda one: one.y)
    lines = [svg.wrap(one.label, LABEL_SIZE, WIDTH - x - 24) for one in ordered]
    heights = [height * (len(found) + bool(one.note)) + 3 for found, one in zip(lines, ordered, strict=True)]
    places: list[float] = []
    for one, size in zip(ordered, heights, strict=True):
        earliest = places[-1] + heights[len(places) - 1] if places else top
        places.append(max(one.y - size / 2, earliest))
    overflow = (places[-1] + heights[-1] - bottom) if places else 0
    for index in reversed(range(len(places))):  # what was pushed below the end goes back up
        if overflow <= 0:
            break
        limit = bottom - sum(heights[index:])
        places[index] = max(min(places[index], limit), top + sum(heights[:index]))
    parts = []
    for one, found, place in zip(ordered, lines, places, strict=True):
        parts.append(svg.path([(x, place + 9), (x + 16, place + 9)], one.colour, dash=one.dash, width=3))
        for index, shown in enumerate(found):
            parts.append(svg.text(x + 22, place + 13 + index * height, shown))
        if one.note:
            parts.append(svg.text(x + 22, place + 13 + len(found) * height - 2, one.note, kind="dim small"))
    return parts


def side_height(labels: Sequence[SideLabel], x: float) -> float:
    """Pixels that such a column needs."""
    return sum(
        ROW_HEIGHT * (len(svg.wrap(one.label, LABEL_SIZE, WIDTH - x - 24)) + bool(one.note)) + 3
        for one in labels
    )
