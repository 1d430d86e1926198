"""`octavo bench`: runs a benchmark, shows its numbers, keeps them as JSON."""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from octavo.bench.workload import WorkloadSpec
from octavo.cli import (
    bench_blocks,
    bench_calibrate,
    bench_compare,
    bench_cpu,
    bench_export,
    bench_latency,
    bench_memory,
    bench_plan_step,
    bench_prefix,
    bench_quality,
    bench_random_model,
    bench_report,
    bench_run,
    bench_serve,
    bench_sharing,
    bench_step,
    bench_workload,
)
from octavo.cli.bench_output import add_output_flag, check_output, show_rows, write_output
from octavo.cli.config_flags import (
    ENGINE_GROUPS,
    add_config_flags,
    add_engine_flags,
    add_model_positional,
    flag_type,
    flag_words,
    read_config,
    read_engine_config,
)
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.startup import StartupRun
    from octavo.bench.throughput import ThroughputReport

_FURTHER = (
    *(bench_cpu, bench_step, bench_quality, bench_memory, bench_sharing),
    *(bench_prefix, bench_blocks, bench_plan_step, bench_export, bench_compare),
    *(bench_serve, bench_calibrate, bench_workload, bench_latency),
    *(bench_run, bench_report, bench_random_model),
)
# Greedy requests, all at once and without text: these would change nothing.
_NO_EFFECT = (
    *("model", "seed", "chat_template", "policy", "fair_weights"),
    *("max_queued_requests", "max_queued_tokens", "queue_timeout"),
)


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.description = "Measures speed and memory."
    benches = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    throughput = benches.add_parser(
        "throughput",
        help="tokens per second of a mixed workload, in this process",
        allow_abbrev=False,
        usage="octavo bench throughput [MODEL] [flags]",
        description="Runs a seeded workload of greedy requests, all at once, and reports tokens per second.",
    )
    add_model_positional(throughput)
    add_output_flag(throughput)
    add_config_flags(throughput, WorkloadSpec)
    add_engine_flags(throughput, without=_NO_EFFECT)
    throughput.set_defaults(run=run_throughput_command, parser=throughput)
    startup = benches.add_parser(
        "startup",
        help="seconds from command to ready server, and its memory",
        allow_abbrev=False,
        usage="octavo bench startup [MODEL] [flags]",
        description="Starts `octavo serve` several times and reports seconds from command to ready.",
    )
    add_model_positional(startup)
    startup.add_argument(
        "--num-runs", type=flag_type(int), default=3, metavar="N", help="how often to start (default: 3)"
    )
    add_output_flag(startup)
    add_engine_flags(startup, without=("model",))
    startup.set_defaults(run=run_startup_command, parser=startup)
    for module in _FURTHER:
        module.add_benchmark(benches)


def run_throughput_command(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    spec = read_config(WorkloadSpec, given)
    engine_given = {
        name: value for name, value in given.items() if name not in WorkloadSpec.__dataclass_fields__
    }
    config = read_engine_config(engine_given)
    check_output(arguments.output)
    from octavo.bench.throughput import run_throughput  # noqa: PLC0415  (loads half of the package)

    if not sys.stderr.isatty():
        report = run_throughput(config, spec)
    else:
        from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
        from rich.progress import Progress  # noqa: PLC0415

        with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
            task_id = bar.add_task("Output tokens", total=None)
            report = run_throughput(
                config,
                spec,
                on_token=lambda made, wanted: bar.update(task_id, completed=made, total=wanted),
            )
    _show_throughput(report)
    write_output(arguments.output, report.as_json())
    return 0


def run_startup_command(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    if arguments.num_runs < 1:
        raise ConfigError(f"--num-runs must be at least 1, not {arguments.num_runs}")
    read_engine_config(given)  # told here, and not by a server that ends
    check_output(arguments.output)
    from octavo.bench.machine import describe_machine  # noqa: PLC0415
    from octavo.bench.startup import measure_startup  # noqa: PLC0415

    runs = [measure_startup(_serve_arguments(given)) for _ in range(arguments.num_runs)]
    _show_startup(runs)
    write_output(
        arguments.output,
        {
            "benchmark": "startup",
            "machine": asdict(describe_machine()),
            "runs": [asdict(run) for run in runs],
        },
    )
    return 0


def _serve_arguments(given: dict[str, Any]) -> list[str]:
    """The engine's flags as `octavo serve` takes them."""
    arguments = [given["model"]] if "model" in given else []
    for group in ENGINE_GROUPS:
        for field in fields(group):
            if field.name in given and field.name != "model":
                arguments += flag_words(field, given[field.name])
    return arguments


def _show_throughput(report: ThroughputReport) -> None:
    facts, machine = report.engine, report.machine
    rows = [
        ("output", f"{report.output_tokens_per_second:,.1f} tok/s", f"{report.num_output_tokens:,} tokens"),
        ("prompt", f"{report.prompt_tokens_per_second:,.1f} tok/s", f"{report.num_prompt_tokens:,} tokens"),
        ("total", f"{report.total_tokens_per_second:,.1f} tok/s", f"{report.workload.num_requests} requests"),
        ("time", f"{report.run_seconds:,.2f} s", f"{len(report.steps):,} steps"),
        ("ready", f"{report.ready_seconds:.2f} s", "from process start"),
        ("KV waste", f"{report.mean_waste:.2%}", f"mean of steps; at most {report.max_waste:.2%}"),
        ("KV blocks", f"{report.peak_blocks:,}", f"at the peak, of {facts.num_blocks:,}"),
        ("preemptions", f"{report.num_preemptions:,}", ""),
        (
            "memory",
            f"{report.peak_rss_bytes / 2**20:,.0f} MB",
            f"RSS peak, {facts.kv_bytes / 2**20:,.0f} MB KV",
        ),
    ]
    show_rows(
        f"{facts.model_name}, {facts.dtype} on {facts.device}, kernels: {facts.kernels}",
        f"{machine.cpu}, {machine.num_cores} cores, torch {machine.torch}, octavo {machine.octavo}",
        rows,
    )


def _show_startup(runs: list[StartupRun]) -> None:
    seconds = [run.ready_seconds for run in runs]
    rss_bytes = max(run.peak_rss_bytes for run in runs)
    rows = [
        ("ready", f"{statistics.median(seconds):.2f} s", f"median of {len(runs)}"),
        ("fastest", f"{min(seconds):.2f} s", ""),
        ("slowest", f"{max(seconds):.2f} s", ""),
        (
            "loading",
            f"{statistics.median(run.load_seconds for run in runs):.2f} s",
            "the model, in the engine",
        ),
        (
            "packing",
            f"{statistics.median(run.pack_seconds for run in runs):.2f} s",
            f"of that, to lay {runs[0].packed_mib:,} MiB of matrices out for the kernels",
        ),
        ("memory", f"{rss_bytes / 2**20:,.0f} MB", "RSS peak, front and engine together"),
    ]
    show_rows("Startup of `octavo serve`", None, rows)
