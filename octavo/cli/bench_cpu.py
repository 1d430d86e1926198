"""`octavo bench cpu`: mixed work, prefill, decoding by number of streams and start-up, in one run."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from octavo.bench.cpu_spec import CpuSpec
from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import (
    ENGINE_GROUPS,
    add_config_flags,
    add_engine_flags,
    add_model_positional,
    flag_words,
    read_config,
    read_engine_config,
)

_ALIKE = ("policy", "fair_weights", "max_queued_requests", "max_queued_tokens", "queue_timeout")
_NO_EFFECT = ("model", "seed", "chat_template", *_ALIKE)


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "cpu",
        help="mixed work, prefill, decoding of 1 to 64 streams and start-up in one run",
        allow_abbrev=False,
        usage="octavo bench cpu [MODEL] [flags]",
        description="Measures the engine in this process, kinds of work in turn, and the start of a server.",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    add_config_flags(parser, CpuSpec)
    add_engine_flags(parser, without=_NO_EFFECT)
    parser.set_defaults(run=run_cpu_command, parser=parser)


def run_cpu_command(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    spec = read_config(CpuSpec, given)
    engine_given = {name: given[name] for name in given if name != "seed"}
    config = read_engine_config(engine_given)
    check_output(arguments.output)
    from octavo.bench.cpu import num_measurements, run_cpu  # noqa: PLC0415  (loads half of the package)

    serve_arguments = [engine_given["model"]] if "model" in engine_given else []
    for group in ENGINE_GROUPS:
        for field in fields(group):
            if field.name in engine_given and field.name != "model":
                serve_arguments += flag_words(field, engine_given[field.name])
    with progress("Measurements", num_measurements(spec)) as advance:
        report = run_cpu(config, spec, serve_arguments, on_done=advance)
    _show(report)
    write_output(arguments.output, report)
    return 0


def _show(report: dict[str, Any]) -> None:
    rows = [
        [work["name"], *(f"{work[name]:,.2f}" for name in ("median", "min", "max")), work["unit"]]
        for work in report["works"]
    ]
    engine, load = report["engine"], report["load_average"]
    show_table(
        f"{engine['model_name']}, {engine['dtype']} on {engine['device']}, kernels: {engine['kernels']}",
        ("", "median", "min", "max", "unit"),
        rows,
        (
            f"{report['spec']['repeats']} repeats after a warm-up; load average {load['before'][0]:.1f} "
            f"before and {load['after'][0]:.1f} after, this run's own included.",
        ),
    )
