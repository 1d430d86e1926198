"""Pictures of what the benchmarks found, as SVG or PNG. The only file that imports matplotlib.

Colours are those of Okabe and Ito, told apart by colour-blind eyes; the background is white.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.bench import paper
from octavo.bench.block_history import STATES, BlockHistory
from octavo.bench.memory import MemoryReport
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png")

_BLUE, _ORANGE, _VERMILLION, _PURPLE, _GREY = "#0072B2", "#E69F00", "#D55E00", "#CC79A7", "#D0D0D0"
_SKY, _GREEN, _YELLOW = "#56B4E9", "#009E73", "#F0E442"
_CATEGORIES = (
    ("states", "token states", _BLUE),
    ("reserved", "reserved for later tokens", _ORANGE),
    ("internal", "internal fragmentation", _VERMILLION),
    ("external", "external fragmentation, others", _PURPLE),
    ("free", "free", _GREY),
)
_PAPER_NAMES = {"max": "Orca (Max)", "pow2": "Orca (Pow2)", "oracle": "Orca (Oracle)", "paged-16": "vLLM"}
_PAPER_KEYS = {
    "states": "token_states",
    "reserved": "reservation",
    "internal": "internal_frag",
    "external": "external_frag_other",
}
_TITLES = {
    "max": "reserve the maximum",
    "pow2": "reserve a power of two",
    "oracle": "reserve the exact length",
}
_STATE_COLOURS = ("#FFFFFF", _SKY, _BLUE, _ORANGE)  # in the order of STATES
_REQUEST_COLOURS = (_BLUE, _ORANGE, _GREEN, _PURPLE, _SKY, _VERMILLION, _YELLOW, "#000000")
_DPI = 150


def check_figure(path: Path | None) -> None:
    """Fail before the work, not after it.

    Raises:
        ConfigError: no picture can be written there, or matplotlib is not installed.
    """
    if path is None:
        return
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--figure {path}: the name must end in {' or '.join(FORMATS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"--figure {path}: no file can be written there")
    _new_figure(1.0, 1.0)


def draw_memory(report: MemoryReport, path: Path) -> None:
    """Stacked bars, one for each allocator, with the paper's as a thinner one beneath."""
    figure, axes = _new_figure(8.6, 1.7 + 0.62 * len(report.uses))
    usage = paper.kv_usage_percent() if report.spec.trace == "sharegpt" else {}
    for row, use in enumerate(report.uses):
        shares = [(100 * getattr(use, name), colour) for name, _, colour in _CATEGORIES]
        _stack(axes, row, shares, height=0.46, label_size=8.5)
        printed = usage.get(_PAPER_NAMES.get(use.name, ""))
        if printed is not None:
            shares = [
                (printed.get(_PAPER_KEYS.get(name, ""), 0.0), colour) for name, _, colour in _CATEGORIES
            ]
            shares.append((printed.get("other", 0.0), _GREY))
            _stack(axes, row + 0.36, shares, height=0.2, label_size=6.5, alpha=0.5)
            axes.text(101, row + 0.36, "the paper", va="center", fontsize=7, color="#444444")
        axes.text(101, row, f"{use.mean_running:.1f} at once", va="center", fontsize=8)
    titles = [_TITLES.get(use.name) or f"paged, blocks of {use.name.split('-')[1]}" for use in report.uses]
    axes.set_yticks(range(len(titles)), titles, fontsize=9)
    axes.set_ylim(len(titles) - 0.3, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the KV memory, mean of the steps with requests waiting for it")
    axes.set_title(f"Where the KV memory goes ({report.spec.trace} lengths)", fontsize=11, loc="left")
    _add_legend(figure, [(label, colour) for _, label, colour in _CATEGORIES], ncols=3)
    save_page(figure, path)


def _stack(
    axes: Axes,
    row: float,
    shares: Sequence[tuple[float, str]],
    *,
    height: float,
    label_size: float,
    alpha: float = 1.0,
) -> None:
    left = 0.0
    for share, colour in shares:
        axes.barh(row, share, left=left, height=height, color=colour, alpha=alpha, edgecolor="white", lw=0.6)
        if share >= 4.5:
            ink = "white" if colour in (_BLUE, _VERMILLION) and alpha == 1.0 else "black"
            axes.text(
                left + share / 2,
                row,
                f"{share:.1f}",
                ha="center",
                va="center",
                fontsize=label_size,
                color=ink,
            )
        left += share


def draw_blocks(history: BlockHistory, path: Path, *, colour_by: str) -> None:
    """A heat map: steps to the right, block ids upwards, coloured by state or by request."""
    figure, axes = _new_figure(9.0, 5.4)
    if colour_by == "state":
        grid, labels, colours = history.states(), list(STATES), list(_STATE_COLOURS)
    else:
        grid, labels, colours = _by_request(history)
    _paint(axes, history, grid, colours)
    untouched = f" ({history.num_untouched:,} above never taken)" if history.num_untouched else ""
    axes.set_ylabel(f"block of {history.block_size} tokens{untouched}")
    axes.set_xlabel("step")
    axes.set_title(f"Which block belongs to whom, by {colour_by}", fontsize=11, loc="left")
    _add_legend(figure, list(zip(labels, colours, strict=True)), ncols=6)
    save_page(figure, path)


def _by_request(history: BlockHistory) -> tuple[list[list[int]], list[str], list[str]]:
    """The grid, and the legend: free, cached, several requests, then colours that repeat."""
    grid, requests = history.owners()
    num_colours = min(len(requests), len(_REQUEST_COLOURS))
    folded = [[cell if cell < 3 else 3 + (cell - 3) % len(_REQUEST_COLOURS) for cell in row] for row in grid]
    labels = ["free", "cached", "several requests"]
    if len(requests) <= len(_REQUEST_COLOURS):
        labels += [f"request {name}" for name in requests]
    else:
        every = len(_REQUEST_COLOURS)
        twice = zip(requests[:every], requests[every:], strict=False)
        labels += [f"{first}, {second}, …" for first, second in twice]
        labels += requests[len(labels) - 3 : every]
    colours = ["#FFFFFF", "#E4E4E4", "#8A8A8A", *_REQUEST_COLOURS[:num_colours]]
    return folded, labels, colours


def _paint(axes: Axes, history: BlockHistory, grid: list[list[int]], colours: list[str]) -> None:
    from matplotlib.colors import ListedColormap  # noqa: PLC0415  (see _new_figure)
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.imshow(
        grid,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(colours) - 0.5,
    )
    steps = history.step_ids
    places = sorted({round(index * (len(steps) - 1) / 8) for index in range(9)})
    names = ["start" if steps[place] < 0 else str(steps[place]) for place in places]
    axes.set_xticks(places, names)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _add_legend(figure: Figure, entries: Sequence[tuple[str, str]], *, ncols: int) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415  (see _new_figure)

    handles = [Patch(facecolor=colour, edgecolor="#888888", lw=0.5, label=label) for label, colour in entries]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), ncols),
        fontsize=8,
        frameon=False,
    )


def new_page(width: float, height: float) -> Figure:
    """A white page of inches, without any window system.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (optional, and slow to import)
    except ImportError:
        raise ConfigError("figures need matplotlib; install it with: pip install 'octavo[bench]'") from None
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A page with one plot. Raises ConfigError as `new_page` does."""
    figure = new_page(width, height)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def save_page(figure: Figure, path: Path) -> None:
    """Write a picture in its name's format.

    Raises:
        ConfigError: it cannot be written.
    """
    from matplotlib import rc_context  # noqa: PLC0415  (see new_page)

    # Text stays text; a fixed salt and no date, so that the same numbers give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "octavo"}):
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        try:
            figure.savefig(path, dpi=_DPI, metadata=metadata)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
