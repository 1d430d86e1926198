"""`octavo bench prefix`: what the prefix cache gains where prompts begin alike."""

from __future__ import annotations

import argparse
import statistics
from typing import TYPE_CHECKING, Any

from octavo.bench.prefix_spec import PrefixSpec
from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import (
    add_config_flags,
    add_engine_flags,
    add_model_positional,
    read_config,
    read_engine_config,
)

if TYPE_CHECKING:
    from octavo.bench.prefix import PrefixReport, PrefixRun
    from octavo.bench.statistics import Ratio

_ALIKE = ("policy", "fair_weights", "max_queued_tokens", "queue_timeout")  # of requests that are all alike
_NO_EFFECT = ("model", "seed", "chat_template", "max_queued_requests", "prefix_caching", *_ALIKE)


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "prefix",
        help="speed with a shared prefix, prefix caching on against off",
        allow_abbrev=False,
        usage="octavo bench prefix [MODEL] [flags]",
        description="Runs requests that begin with the same tokens on two engines in turns, with prefix "
        "caching and without (the vLLM paper's figure 16).",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    add_config_flags(parser, PrefixSpec)
    add_engine_flags(parser, without=_NO_EFFECT)
    parser.set_defaults(run=run_prefix_command, parser=parser)


def run_prefix_command(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    spec = read_config(PrefixSpec, given)
    config = read_engine_config({name: given[name] for name in given if name != "seed"})
    check_output(arguments.output)
    from octavo.bench.prefix import run_prefix  # noqa: PLC0415  (loads half of the package)

    with progress("Pairs of runs", len(spec.prefixes) * (spec.repeats + 1)) as advance:
        report = run_prefix(config, spec, on_done=advance)
    _show(report)
    write_output(arguments.output, report.as_json())
    return 0


def _show(report: PrefixReport) -> None:
    from octavo.bench import paper  # noqa: PLC0415
    from octavo.bench.prefix import DIFFERENCES  # noqa: PLC0415
    from octavo.bench.statistics import Ratio  # noqa: PLC0415

    rows: list[list[str]] = []
    for case in report.cases:
        numbers = case.as_json()
        rows.append([f"{case.num_prefix_tokens} tokens, cache on", *_cells(case.on)])
        rows.append([f"{case.num_prefix_tokens} tokens, cache off", *_cells(case.off)])
        rows.append(["  speed-up", _ratio(Ratio(**numbers["throughput_speedup"])), "", "", ""])
        rows[-1][3] = _ratio(Ratio(**numbers["median_ttft_speedup"]))
        printed = numbers["paper_speedup_over_orca_oracle"]
        if printed is not None:
            rows.append(["  the paper", f"{printed}", "", "", ""])
    show_table(
        f"Shared prefixes, {report.engine.model_name}, {report.spec.num_requests} requests, "
        f"{report.spec.repeats} pairs of runs",
        ("", "output tok/s", "total tok/s", "TTFT, median", "hit rate"),
        rows,
        (
            "Medians of the runs; speed-ups are means of pairs, with a 95 % interval.",
            f"The paper: {paper.CITATION}, figure 16, over Orca (Oracle).",
            DIFFERENCES,
        ),
    )


def _cells(runs: list[PrefixRun]) -> list[str]:
    numbers = [run.as_json() for run in runs]

    def median(name: str) -> float:
        return statistics.median([float(one[name]) for one in numbers])

    return [
        f"{median('output_tokens_per_second'):,.1f}",
        f"{median('total_tokens_per_second'):,.1f}",
        f"{median('median_ttft_ms'):,.0f} ms",
        f"{median('hit_rate'):.1%}",
    ]


def _ratio(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.mean:.2f}"
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
