"""`octavo bench memory`: what share of the KV memory holds tokens, by allocator."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from octavo.bench.memory_spec import MemorySpec
from octavo.cli.bench_output import (
    add_figure_flag,
    add_output_flag,
    check_output,
    progress,
    show_table,
    write_output,
)
from octavo.cli.config_flags import add_config_flags, read_config

if TYPE_CHECKING:
    from octavo.bench.memory import MemoryReport

_HEADER = ("", "tokens", "reserved", "internal", "external", "free", "waste", "batch")
_PAPER_ROWS = {
    "max": ("Orca (Max)", "OrcaMax"),
    "pow2": ("Orca (Pow2)", "OrcaPow2"),
    "oracle": ("Orca (Oracle)", "OrcaOracle"),
    "paged-16": ("vLLM", "vLLM"),
}

_DATA_SETS = {"sharegpt": "ShareGPT", "alpaca": "Alpaca"}


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "memory",
        help="waste of the KV memory: contiguous reservations beside paged blocks",
        allow_abbrev=False,
        usage="octavo bench memory [flags]",
        description="Runs one trace of lengths through contiguous reservations and paged blocks (the vLLM "
        "paper's figure 2). Needs no model: nothing is computed.",
    )
    add_output_flag(parser)
    add_figure_flag(parser)
    add_config_flags(parser, MemorySpec)
    parser.set_defaults(run=run_memory_command, parser=parser)


def run_memory_command(arguments: argparse.Namespace) -> int:
    from octavo.bench.contiguous import RESERVATIONS  # noqa: PLC0415
    from octavo.bench.figures import check_figure, draw_memory  # noqa: PLC0415
    from octavo.bench.memory import run_memory  # noqa: PLC0415

    spec = read_config(MemorySpec, vars(arguments))
    check_output(arguments.output)
    check_figure(arguments.figure)
    with progress("Allocators", len(RESERVATIONS) + len(spec.block_sizes)) as advance:
        report = run_memory(spec, on_done=lambda name: advance())
    _show(report)
    write_output(arguments.output, report.as_json())
    if arguments.figure is not None:
        draw_memory(report, arguments.figure)
    return 0


def _show(report: MemoryReport) -> None:
    from octavo.bench import paper  # noqa: PLC0415

    rows = []
    for use in report.uses:
        shares = (use.states, use.reserved, use.internal, use.external, use.free, use.waste)
        rows.append([use.name, *(f"{100 * share:.1f}" for share in shares), f"{use.mean_running:.1f}"])
        if use.name in _PAPER_ROWS and report.spec.trace in _DATA_SETS:
            rows.append(_paper_row(*_PAPER_ROWS[use.name], report.spec.trace))
    spec = report.spec
    notes = [
        "In % of the KV memory, mean of the steps in which requests wait for memory. waste = reserved + "
        "internal + external; free is what any request may have: the margin of admission."
    ]
    if spec.trace in _DATA_SETS:
        notes.append(
            f"The paper's rows: {paper.CITATION}, figures 2 (ShareGPT alone) and 13; Poisson arrivals."
        )
    show_table(
        f"KV memory of {spec.num_slots:,} tokens, {spec.num_requests} requests, {report.trace.about}",
        _HEADER,
        rows,
        notes,
    )


def _paper_row(system: str, batch_name: str, trace: str) -> list[str]:
    from octavo.bench import paper  # noqa: PLC0415

    name, batch = f"  paper: {system}", f"{paper.mean_batches(_DATA_SETS[trace])[batch_name]:.1f}"
    if trace != "sharegpt":
        return [name, "", "", "", "", "", "", batch]
    printed = paper.kv_usage_percent()[system]
    if "other" in printed:  # all that holds no token, in one number
        return [name, f"{printed['token_states']}", "", "", "", "", f"{printed['other']}", batch]
    parts = [printed[key] for key in ("token_states", "reservation", "internal_frag", "external_frag_other")]
    return [name, *(f"{part}" for part in parts), "", f"{sum(parts[1:]):.1f}", batch]
