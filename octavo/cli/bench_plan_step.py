"""`octavo bench plan-step`: what planning a step costs, by running sequences, mix and policy."""

from __future__ import annotations

import argparse
from typing import Any

from octavo.bench.memory_spec import parse_numbers
from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import flag_type
from octavo.errors import ConfigError

_COLUMNS = ("median_wall_ms", "p90_wall_ms", "median_cpu_ms", "min_cpu_ms")


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "plan-step",
        help="milliseconds of planning one step",
        allow_abbrev=False,
        usage="octavo bench plan-step [flags]",
        description="Times Scheduler.plan_step, and nothing else, with sequences that decode and with a mix "
        "of decodes and prompts, under each policy. Needs no model: nothing is computed.",
    )
    parser.add_argument(
        "--sizes",
        type=flag_type(parse_numbers),
        default=(256, 4096),
        metavar="N,...",
        help="running sequences (default: 256,4096)",
    )
    parser.add_argument(
        "--num-steps", type=flag_type(int), default=200, metavar="N", help="steps of each kind (default: 200)"
    )
    add_output_flag(parser)
    parser.set_defaults(run=run_plan_step_command, parser=parser)


def run_plan_step_command(arguments: argparse.Namespace) -> int:
    if arguments.num_steps < 1:
        raise ConfigError(f"--num-steps must be at least 1, not {arguments.num_steps}")
    check_output(arguments.output)
    from octavo.bench.plan_step import GOALS_MS, KINDS, run_plan_step  # noqa: PLC0415

    with progress("Kinds of steps", len(arguments.sizes) * len(KINDS)) as advance:
        report = run_plan_step(arguments.sizes, num_steps=arguments.num_steps, on_done=advance)
    rows = [
        [
            f"{cost['num_sequences']:,} sequences, {cost['mix']}, {cost['policy']}",
            *(f"{cost[name]:.3f}" for name in _COLUMNS),
        ]
        for cost in report["costs"]
    ]
    goals = ", ".join(f"{size:,} under {goal:g} ms" for size, goal in GOALS_MS.items())
    show_table(
        "Scheduler.plan_step, milliseconds",
        ("", "median", "p90", "median CPU", "min CPU"),
        rows,
        (
            f"Goals in the median: {goals}. CPU is this thread's processor time: less than the wall's where "
            f"other programs had the core (load average {report['load_average']['after'][0]:.1f}).",
        ),
    )
    write_output(arguments.output, report)
    return 0
