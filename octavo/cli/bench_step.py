"""`octavo bench step`: where the time of one step goes, kernel by kernel."""

from __future__ import annotations

import argparse
from typing import Any

from octavo.bench.step_spec import StepSpec
from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import add_config_flags, add_model_positional, read_config
from octavo.config import CacheConfig, ComputeConfig, EngineConfig, ModelConfig

_MODEL_NO_EFFECT = ("model", "chat_template", "max_model_len")
_CACHE_NO_EFFECT = ("kv_cache_memory", "prefix_caching", "swap_space")


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "step",
        help="where the time of one step goes, kernel by kernel",
        allow_abbrev=False,
        usage="octavo bench step [MODEL] [flags]",
        description="Runs single steps, decoding and prefill, and tells what each kind of kernel took.",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    add_config_flags(parser, StepSpec)
    add_config_flags(parser, ModelConfig, without=_MODEL_NO_EFFECT)
    add_config_flags(parser, ComputeConfig)
    add_config_flags(parser, CacheConfig, without=_CACHE_NO_EFFECT)
    parser.set_defaults(run=run_step_command, parser=parser)


def run_step_command(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    spec = read_config(StepSpec, given)
    config = EngineConfig(
        model=read_config(ModelConfig, given),
        compute=read_config(ComputeConfig, given),
        cache=read_config(CacheConfig, given),
    )
    check_output(arguments.output)
    from octavo.bench.step import run_step  # noqa: PLC0415  (loads half of the package)

    with progress("Steps", len(spec.streams) + 1) as advance:
        report = run_step(config, spec, on_done=advance)
    for step in report["steps"]:
        _show(report, step)
    write_output(arguments.output, report)
    return 0


def _show(report: dict[str, Any], step: dict[str, Any]) -> None:
    whole = step["milliseconds"]
    rows = [
        [
            _name(kernel),
            str(kernel["num_calls"]),
            f"{kernel['milliseconds']:,.3f}",
            f"{kernel['milliseconds'] / whole:.1%}",
            "" if kernel["gmacs_per_second"] is None else f"{kernel['gmacs_per_second']:,.1f}",
        ]
        for kernel in step["kernels"]
    ]
    rest = step["rest_milliseconds"]
    rows.append(["head, choice, inputs", "", f"{rest:,.3f}", f"{rest / whole:.1%}", ""])
    rows.append(["whole step", "", f"{whole:,.3f}", "", ""])
    show_table(
        f"{step['name']}: {report['weights']}, kernels: {report['kernels']}",
        ("", "calls", "ms", "share", "GMAC/s"),
        rows,
        (f"Kernels: mean of {report['spec']['repeats']} runs; whole step: their median.",),
    )


def _name(kernel: dict[str, Any]) -> str:
    if kernel["operation"] == "linear":
        return f"product {kernel['in_size']:,} x {kernel['out_size']:,}"
    return str(kernel["operation"]).replace("_", " ")
