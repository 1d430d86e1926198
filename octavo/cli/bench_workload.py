"""`octavo bench workload make|show|export`: requests as files, for us and for other load generators."""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

from octavo.bench.workload import WorkloadSpec
from octavo.cli.bench_output import check_output, show_table, write_text
from octavo.cli.config_flags import add_config_flags, add_model_positional, flag_type, read_config
from octavo.config import ModelConfig

_NUM_BINS = 12
_BAR_WIDTH = 40
_EXPORTS = ("vllm", "guidellm")


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "workload", help="make, show or export the requests of a benchmark", allow_abbrev=False
    )
    acts = parser.add_subparsers(title="acts", metavar="ACT", required=True)
    make = acts.add_parser("make", help="draw requests from a seed", allow_abbrev=False)
    add_model_positional(make)
    make.add_argument("--output", type=Path, required=True, metavar="FILE", help="where, as JSON lines")
    make.add_argument(
        "--request-rate", type=flag_type(float), default=math.inf, metavar="R", help="requests a second"
    )
    make.add_argument(
        "--burstiness", type=flag_type(float), default=1.0, metavar="SHAPE", help="of the gaps; 1 is Poisson"
    )
    add_config_flags(make, WorkloadSpec)
    make.set_defaults(run=run_make_command, parser=make)
    show = acts.add_parser("show", help="lengths and arrivals of a file", allow_abbrev=False)
    show.add_argument("file", type=Path, metavar="FILE")
    show.set_defaults(run=run_show_command, parser=show)
    export = acts.add_parser(
        "export", help="the same requests for vllm bench serve or guidellm", allow_abbrev=False
    )
    export.add_argument("file", type=Path, metavar="FILE")
    export.add_argument("--format", choices=_EXPORTS, required=True, help="who will read it")
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="where, as JSON lines")
    export.set_defaults(run=run_export_command, parser=export)


def run_make_command(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    spec = read_config(WorkloadSpec, given)
    check_output(arguments.output)
    from octavo.bench.load.schedule import Arrivals  # noqa: PLC0415
    from octavo.bench.load.workload_file import TimedRequest, draw_requests, write_requests  # noqa: PLC0415
    from octavo.build import build_text  # noqa: PLC0415

    arrivals = Arrivals(rate=arguments.request_rate, burstiness=arguments.burstiness)
    requests = draw_requests(spec, build_text(read_config(ModelConfig, given)))
    due = arrivals.due_seconds(len(requests), seed=spec.seed)
    timed = [TimedRequest(*pair) for pair in zip(requests, due, strict=True)]
    write_text(arguments.output, write_requests(timed, "octavo"))
    print(f"{arguments.output}: {len(timed)} requests, {arrivals.about}")
    return 0


def run_show_command(arguments: argparse.Namespace) -> int:
    from octavo.bench.load.workload_file import due_of, read_requests  # noqa: PLC0415
    from octavo.bench.statistics.description import describe  # noqa: PLC0415

    timed = read_requests(arguments.file)
    series = {
        "prompt tokens": [float(len(one.request.prompt_token_ids)) for one in timed],
        "output tokens": [float(one.request.num_output_tokens) for one in timed],
    }
    due = due_of(timed)
    if due is not None and max(due) > 0:
        series["gaps, ms"] = [1e3 * (b - a) for a, b in itertools.pairwise(due)]
    rows = []
    for name, values in series.items():
        said = describe(values)
        cv = 0.0 if said.sd is None or not said.mean else said.sd / said.mean
        rows.append(
            [name, *(f"{n:,.1f}" for n in (said.mean, said.median, said.smallest, said.largest)), f"{cv:.2f}"]
        )
    show_table(
        f"{arguments.file.name}: {len(timed)} requests",
        ("", "mean", "median", "least", "most", "sd / mean"),
        rows,
        (),
    )
    for name, values in series.items():
        show_table(name, ("from", "", "n"), _histogram(values), ())
    return 0


def run_export_command(arguments: argparse.Namespace) -> int:
    check_output(arguments.output)
    from octavo.bench.load.workload_file import read_requests, write_requests  # noqa: PLC0415

    timed = read_requests(arguments.file)
    write_text(arguments.output, write_requests(timed, arguments.format))
    print(f"{arguments.output}: {len(timed)} requests as {arguments.format} reads them")
    return 0


def _histogram(values: list[float]) -> list[list[str]]:
    """Bins of equal width; the bar's length is the count."""
    low, high = min(values), max(values)
    width = (high - low) / _NUM_BINS or 1.0
    counts = [0] * _NUM_BINS
    for value in values:
        counts[min(int((value - low) / width), _NUM_BINS - 1)] += 1
    longest = max(counts)
    return [
        [
            f"{low + index * width:,.0f}",
            ("█" * round(_BAR_WIDTH * count / longest)).ljust(_BAR_WIDTH),
            str(count),
        ]
        for index, count in enumerate(counts)
    ]
