"""`octavo bench blocks`: draws which KV block belongs to whom over time, of a run here or of snapshots."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.bench.blocks_spec import COLOUR_BY, BlocksSpec
from octavo.cli.bench_output import add_figure_flag, add_output_flag, check_output, write_text
from octavo.cli.config_flags import (
    ENGINE_GROUPS,
    add_config_flags,
    add_engine_flags,
    add_model_positional,
    read_config,
    read_engine_config,
)
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.block_history import BlockHistory

_ALIKE = ("policy", "fair_weights", "max_queued_tokens", "queue_timeout")  # of requests that are all alike
_NO_EFFECT = ("model", "seed", "chat_template", *_ALIKE)
_MAX_HEIGHT = 24


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "blocks",
        help="the block map over time, as a picture",
        allow_abbrev=False,
        usage="octavo bench blocks [MODEL] [flags]",
        description="Runs a small workload and draws which KV block is used, shared, cached or free at each "
        "step. The pool is 96 MB unless --kv-cache-memory says otherwise.",
    )
    add_model_positional(parser)
    parser.add_argument(
        "--from",
        dest="from_file",
        type=Path,
        metavar="FILE",
        help="draw these snapshots, one JSON object a line as GET /debug/blocks serves them, and run nothing",
    )
    add_output_flag(parser, "write the snapshots there, one JSON object a line")
    add_figure_flag(parser)
    parser.add_argument(
        "--colour-by",
        choices=COLOUR_BY,
        default="state",
        help="what the figure's colours mean (default: state)",
    )
    add_config_flags(parser, BlocksSpec)
    add_engine_flags(parser, without=_NO_EFFECT)
    parser.set_defaults(run=run_blocks_command, parser=parser)


def run_blocks_command(arguments: argparse.Namespace) -> int:
    from octavo.bench.figures import check_figure, draw_blocks  # noqa: PLC0415

    if arguments.figure is None and arguments.colour_by != "state":
        raise ConfigError("--colour-by has an effect only with --figure")
    check_output(arguments.output)
    check_figure(arguments.figure)
    history = _read(arguments) if arguments.from_file is not None else _run(arguments)
    _show(history)
    write_text(arguments.output, "".join(f"{line}\n" for line in history.lines()))
    if arguments.figure is not None:
        draw_blocks(history, arguments.figure, colour_by=arguments.colour_by)
    return 0


def _read(arguments: argparse.Namespace) -> BlockHistory:
    from octavo.bench.block_history import read_history  # noqa: PLC0415

    groups: tuple[type[Any], ...] = (BlocksSpec, *ENGINE_GROUPS)
    names = [field.name for group in groups for field in fields(group)]
    given = [name for name in names if name in vars(arguments)]
    if arguments.output is not None:
        given.append("output")
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} has no effect with --from: nothing is run")
    return read_history(arguments.from_file)


def _run(arguments: argparse.Namespace) -> BlockHistory:
    given = vars(arguments)
    spec = read_config(BlocksSpec, given)
    config = read_engine_config({name: given[name] for name in given if name != "seed"})
    from octavo.bench.blocks import record_blocks  # noqa: PLC0415  (loads half of the package)

    return record_blocks(config, spec)


def _show(history: BlockHistory) -> None:
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)

    from octavo.bench.block_text import legend, render_blocks  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    steps = history.step_ids
    console.print(
        f"{history.num_blocks:,} KV blocks of {history.block_size} tokens, {len(steps)} snapshots",
        style="bold",
    )
    width = max(20, (console.width if sys.stdout.isatty() else 80) - 8)
    lines = render_blocks(history, width=width, height=_MAX_HEIGHT)
    for number, line in enumerate(lines):
        label = (
            f"{history.num_shown - 1:>6}"
            if number == 0
            else f"{0:>6}"
            if number == len(lines) - 1
            else " " * 6
        )
        console.print(f"{label}  {line}", markup=False)
    console.print(f"{'':>6}  {_ruler(len(lines[0]), steps)}", style="dim", markup=False)
    console.print(f"{legend()}   (blocks upwards, steps to the right)", style="dim", markup=False)
    if history.num_untouched:
        console.print(f"{history.num_untouched:,} blocks above were never taken", style="dim")
    counts = history.counts()
    peaks = {state: max(count[state] for count in counts) for state in ("used", "shared", "cached")}
    console.print(
        "At most at once: " + ", ".join(f"{number} {state}" for state, number in peaks.items()), style="dim"
    )


def _ruler(width: int, steps: list[int]) -> str:
    """First and last step under the first and last column."""
    first, last = f"step {steps[0]}" if steps[0] >= 0 else "start", str(steps[-1])
    return first + last.rjust(width - len(first)) if len(first) + len(last) < width else last.rjust(width)
