"""`octavo bench sharing`: KV blocks saved by sharing, and what a step of a beam search costs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from octavo.bench.sharing_spec import METHODS, SharingSpec
from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import (
    add_config_flags,
    add_engine_flags,
    add_model_positional,
    read_config,
    read_engine_config,
)

if TYPE_CHECKING:
    from octavo.bench.sharing import SharingReport

_ALIKE = ("policy", "fair_weights", "max_queued_tokens", "queue_timeout")  # of requests that are all alike
_NO_EFFECT = ("model", "seed", "chat_template", *_ALIKE)


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "sharing",
        help="KV blocks saved by parallel sampling and beam search; cost of a beam step",
        allow_abbrev=False,
        usage="octavo bench sharing [MODEL] [flags]",
        description="Runs parallel sampling and beam search and reports the KV blocks saved by sharing, "
        "beside the vLLM paper's figure 15; then one beam step against a decode step of as many sequences.",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    add_config_flags(parser, SharingSpec)
    add_engine_flags(parser, without=_NO_EFFECT)
    parser.set_defaults(run=run_sharing_command, parser=parser)


def run_sharing_command(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    spec = read_config(SharingSpec, given)
    config = read_engine_config({name: given[name] for name in given if name != "seed"})
    check_output(arguments.output)
    from octavo.bench.sharing import run_sharing  # noqa: PLC0415  (loads half of the package)

    with progress("Measurements", len(spec.data_sets) * len(METHODS) * len(spec.widths) + 1) as advance:
        report = run_sharing(config, spec, on_done=advance)
    _show(report)
    write_output(arguments.output, report.as_json())
    return 0


def _show(report: SharingReport) -> None:
    from octavo.bench import paper  # noqa: PLC0415
    from octavo.bench.sharing import DIFFERENCES  # noqa: PLC0415

    rows = [
        [
            f"{saving.data_set}, {saving.method}, {saving.width}",
            f"{100 * saving.mean:.1f} %",
            f"{100 * min(saving.by_request):.1f} to {100 * max(saving.by_request):.1f} %",
            "" if saving.paper is None else f"{saving.paper} %",
        ]
        for saving in report.savings
    ]
    show_table(
        f"KV blocks saved by sharing, {report.engine.model_name}, {report.spec.num_requests} requests each",
        ("", "saved", "by request", "the paper"),
        rows,
        (f"The paper's column: {paper.CITATION}, figure 15 and section 6.3.", DIFFERENCES),
    )
    cost = report.beam_step
    numbers = cost.as_json()
    show_table(
        f"A step of {cost.width} beams against {cost.width} ordinary sequences",
        ("", "median"),
        [
            ["beam step", f"{numbers['median_beam_ms']:.2f} ms"],
            ["decode step", f"{numbers['median_decode_ms']:.2f} ms"],
            ["ratio of pairs", f"{cost.ratio:.3f}"],
        ],
        (f"{numbers['num_pairs']} pairs, in alternation; the goal is at most {numbers['goal']}.",),
    )
