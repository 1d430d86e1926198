"""`octavo doctor`: what this machine has, which kernels will be used, what would fit."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from octavo.cli.config_flags import add_config_flags, add_model_positional, read_engine_config
from octavo.config import CacheConfig, ComputeConfig, ModelConfig

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from octavo.cli.findings import Findings, FitFindings

_GIB = 2**30
_LABEL_WIDTH = 19  # the same in each table, so that they stand in line


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.usage = "octavo doctor [MODEL] [flags]"
    parser.description = "Shows the machine, the kernels that will be used and why, and what would fit."
    add_model_positional(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_config_flags(parser, ModelConfig, without=("model", "tokenizer", "chat_template"))
    add_config_flags(parser, ComputeConfig, without=("repack_cache",))
    add_config_flags(parser, CacheConfig)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    config = read_engine_config(vars(arguments))
    from octavo.cli.findings import examine  # noqa: PLC0415  (loads torch)

    findings = examine(config)
    if arguments.json:
        print(json.dumps(asdict(findings), indent=2))
        return 0
    _show(findings)
    return 0


def _show(findings: Findings) -> None:
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)

    console = Console(highlight=False)
    _show_section(console, "Machine", _machine_rows(findings))
    _show_section(console, "Model", _model_rows(findings))
    if findings.fit is not None:
        _show_section(console, "What would fit", _fit_rows(findings.fit, findings.device.free_bytes))
    _show_kernels(console, findings)


def _machine_rows(findings: Findings) -> list[tuple[str, str]]:
    machine, device = findings.machine, findings.device
    return [
        ("processor", f"{machine.cpu}, {machine.num_cores} cores for this process"),
        ("instruction sets", " ".join(machine.instruction_sets) or "none that matter here"),
        ("memory", f"{machine.memory_bytes / _GIB:.1f} GiB"),
        ("system", machine.system),
        ("versions", f"octavo {machine.octavo}, Python {machine.python}, torch {machine.torch}"),
        (
            "device",
            f"{device.name}, {device.dtype}, {device.num_threads} threads, "
            f"{device.free_bytes / _GIB:.1f} GiB free",
        ),
    ]


def _model_rows(findings: Findings) -> list[tuple[str, str]]:
    starter = findings.starter_path
    starter_row = (
        "starter model",
        "installed" if starter is not None else f"not installed; install it with: {findings.starter_install}",
    )
    model = findings.model
    if model is None:
        return [starter_row]
    return [
        ("name", f"{model.name} ({model.family}, {model.num_layers} layers)"),
        ("path", model.path),
        ("parameters", f"{model.num_parameters / 1e6:,.1f} million"),
        ("weights", f"{model.weight_bytes / 2**20:,.0f} MiB in memory, computed in {findings.device.dtype}"),
        ("context", f"{model.max_positions:,} tokens"),
        starter_row,
    ]


def _fit_rows(fit: FitFindings, free_bytes: int) -> list[tuple[str, str]]:
    if not fit.fits:
        return [
            (
                "KV pool",
                f"[red]does not fit[/red]: weights and {fit.kv_bytes / 2**20:,.0f} MiB of KV need more than "
                f"the {free_bytes / _GIB:.1f} GiB that are free",
            )
        ]
    rows = [
        ("KV pool", f"{fit.kv_bytes / 2**20:,.0f} MiB, {fit.bytes_per_token:,} bytes a token"),
        ("blocks", f"{fit.num_blocks:,} of {fit.block_size} tokens: {fit.num_tokens:,} tokens"),
    ]
    rows += [
        (f"at {length:,} tokens", f"{num_sequences:,} sequences at the same time")
        for length, num_sequences in fit.num_sequences_by_tokens.items()
    ]
    return rows


def _show_section(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    table = _make_table()
    table.add_column(style="dim", width=_LABEL_WIDTH)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(title, style="bold cyan")
    console.print(table)
    console.print()


def _show_kernels(console: Console, findings: Findings) -> None:
    table = _make_table()
    table.add_column(style="dim", width=_LABEL_WIDTH)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for choice in findings.device.kernels:
        table.add_row(choice.operation, choice.implementation, choice.reason)
    console.print("Kernels", style="bold cyan")
    console.print(table)


def _make_table() -> Table:
    from rich.table import Table  # noqa: PLC0415  (only where something is drawn)

    return Table.grid(padding=(0, 2), pad_edge=True)
