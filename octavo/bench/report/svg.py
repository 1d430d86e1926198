"""The few SVG elements that the charts are made of, as text; and how wide text will be. Knows no chart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

# Width of a character in ems: sans-serif fonts differ, so these are of a wide one.
_NARROW, _WIDE = "iljtfrI.,:;'|()[]! ", "mwMW%@"
_EM = {**dict.fromkeys(_NARROW, 0.36), **dict.fromkeys(_WIDE, 0.95)}
_AVERAGE_EM = 0.6


def number(value: float) -> str:
    """A coordinate: two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def text_width(text: str, size: float) -> float:
    """Pixels that a text may take."""
    return size * sum(_EM.get(letter, _AVERAGE_EM) for letter in text)


def shorten(text: str, size: float, width: float) -> str:
    """The text, cut with an ellipsis where it would be wider."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrap(text: str, size: float, width: float) -> list[str]:
    """Lines of whole words; a word that is too wide is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(shorten(word, size, width))
    return lines or [""]


def rect(
    x: float, y: float, width: float, height: float, fill: str, *, tip: str = "", extra: str = ""
) -> str:
    """A filled rectangle; `tip` is shown where the pointer rests."""
    place = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}" height="{number(height)}"'
    return f'<rect {place} style="fill:{fill}"{_tip(tip)}{extra}/>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str, *, extra: str = "") -> str:
    """A line of a class: "axis", "grid", "whisker", "mark"."""
    place = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {place} class="{kind}"{extra}/>'


def text(
    x: float, y: float, content: str, *, kind: str = "label", anchor: str = "start", extra: str = ""
) -> str:
    """Text of a class, its baseline at y."""
    place = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
    return f'<text {place} class="{kind}"{extra}>{escape(content)}</text>'


def circle(x: float, y: float, radius: float, fill: str, *, tip: str = "") -> str:
    """A dot."""
    place = f'cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"'
    return f'<circle {place} style="fill:{fill}"{_tip(tip)}/>'


def path(points: Iterable[tuple[float, float]], stroke: str, *, dash: str = "", width: float = 2) -> str:
    """A polyline."""
    route = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
    dashes = f";stroke-dasharray:{dash}" if dash else ""
    return f'<path d="{route}" style="fill:none;stroke:{stroke};stroke-width:{number(width)}{dashes}"/>'


def area(points: Sequence[tuple[float, float]], fill: str, *, opacity: float = 1.0, tip: str = "") -> str:
    """A filled polygon."""
    route = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "Z"
    return f'<path d="{route}" style="fill:{fill};fill-opacity:{opacity:g};stroke:none"{_tip(tip)}/>'


def document(width: float, height: float, title: str, parts: Iterable[str], *, style: str = "") -> str:
    """A whole drawing; `style` makes it stand alone, without a page around it."""
    size = f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" height="{number(height)}"'
    named = f'class="chart" role="img" aria-label="{escape(title)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {named}>'
    inside = f"<style>{style}</style>" if style else ""
    return f"{head}{inside}{''.join(parts)}</svg>"


def _tip(content: str) -> str:
    return f' data-tip="{escape(content)}"' if content else ""
