"""Colours by name, for light and dark. From Okabe and Ito's set, told apart by colour-blind eyes.

A target has one colour in every figure of every report; so have the states of a block.
"""

from __future__ import annotations

import zlib

_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#B5468B", "#C98500", "#3A9BD9", "#7A6A00", "#5A5A5A")
_DARK = ("#5DB2E8", "#F28A45", "#3CCB9F", "#E59BC6", "#EFB23A", "#9AD3F7", "#CDBD5A", "#B4B4B4")

_TARGETS = {
    "octavo": 0,
    "octavo-http": 5,
    "transformers": 1,
    "transformers-continuous": 4,
    "llama-cpp": 2,
    "llama-server": 6,
    "openvino": 3,
    "vllm": 7,
}
# Name of a block's state or of a share of the KV memory -> index of its colour, or a grey of its own.
_BLOCKS = {"used": "s0", "shared": "s4", "cached": "s5", "free": "free"}
_CATEGORIES = {"states": "s0", "reserved": "s4", "internal": "s1", "external": "s3", "free": "free"}

_PLAIN = {
    "light": {
        "bg": "#ffffff", "ink": "#1d1d1f", "dim": "#5c5f66", "rule": "#d5d7db", "panel": "#f6f7f8",
        "free": "#e3e5e8", "better": "#00795a", "worse": "#b04a00", "on": "#ffffff",
    },
    "dark": {
        "bg": "#17181b", "ink": "#ececee", "dim": "#a3a6ad", "rule": "#3a3d43", "panel": "#202226",
        "free": "#33363c", "better": "#3CCB9F", "worse": "#F28A45", "on": "#101113",
    },
}  # fmt: skip


def colour(name: str) -> str:
    """A colour's CSS: "target:octavo", "series:2", "block:used", "category:states", "paper"."""
    return f"var(--{_variable(name)})"


def print_colour(name: str) -> str:
    """A colour on white paper, as "#rrggbb"."""
    variable = _variable(name)
    return _PLAIN["light"].get(variable) or _LIGHT[int(variable[1:])]


def _variable(name: str) -> str:
    kind, _, rest = name.partition(":")
    match kind:
        case "target":
            return f"s{_TARGETS.get(rest, zlib.crc32(rest.encode()) % len(_LIGHT))}"
        case "series":
            return f"s{int(rest) % len(_LIGHT)}"
        case "block":
            return _BLOCKS[rest]
        case "category":
            return _CATEGORIES[rest]
        case "verdict":
            return rest
    return "dim"


def css_variables(theme: str) -> str:
    """Declarations of one theme, "light" or "dark"."""
    series = _LIGHT if theme == "light" else _DARK
    named = {f"s{index}": value for index, value in enumerate(series)} | _PLAIN[theme]
    return "".join(f"--{name}:{value};" for name, value in named.items())
