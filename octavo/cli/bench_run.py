"""`octavo bench run`: one of the suite's experiments, from workload to report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.bench.experiments.size import SIZES
from octavo.cli.bench_output import show_table
from octavo.cli.config_flags import add_engine_flags, flag_type, read_engine_config

if TYPE_CHECKING:
    from octavo.bench.experiments.runner import Progress

_ALIKE = ("policy", "fair_weights", "max_queued_requests", "max_queued_tokens", "queue_timeout")
_NO_EFFECT = ("chat_template", "seed", *_ALIKE)
NAMES = (
    *("length-variance", "latency-cdf", "rate-curve", "memory-waste", "sharing", "batching"),
    *("table", "single-user", "scaling", "sensitivity", "ablation", "trace"),
)


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "run",
        help="an experiment of the suite: JSON, CSV, figures and report.html",
        allow_abbrev=False,
        usage="octavo bench run EXPERIMENT --out DIR [flags]",
        description="Runs one experiment in randomised blocks and writes results.json, requests.jsonl, "
        "timeline.jsonl, measures.csv, figures and report.html. One that was stopped goes on with --resume.",
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--size", choices=SIZES, default="smoke", help="how much to run (default: smoke)")
    parser.add_argument(
        "--target",
        action="append",
        default=None,
        metavar="NAME",
        help="what to measure; may be given several times (default: octavo)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    parser.add_argument(
        "--seed", type=flag_type(int), default=0, metavar="N", help="of lengths, tokens and arrivals"
    )
    add_engine_flags(parser, without=_NO_EFFECT)
    parser.set_defaults(run=run_run_command, parser=parser)


def run_run_command(arguments: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(arguments).items() if name != "seed"}
    config = read_engine_config(given)
    from octavo.bench.experiments.suite import SuiteSettings, run_suite  # noqa: PLC0415  (loads much)

    settings = SuiteSettings(
        experiment=arguments.experiment,
        size=arguments.size,
        targets=tuple(arguments.target or ("octavo",)),
        seed=arguments.seed,
        out=arguments.out,
        resume=arguments.resume,
        config=config,
    )
    try:
        with _progress() as on_progress:
            document = run_suite(settings, on_progress=on_progress)
    except KeyboardInterrupt:
        print(f"octavo: stopped; --resume goes on with what is in {arguments.out}", file=sys.stderr)
        raise
    show_document(document)
    print(f"Report: {arguments.out / 'report.html'}")
    return 1 if document["failures"] and not document["measures"] else 0


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with what runs now, on stderr where that is a terminal; else nothing."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task_id = bar.add_task("loading", total=None)
        yield lambda progress: bar.update(
            task_id, completed=progress.num_done, total=progress.num_all, description=_describe(progress)
        )


def _describe(progress: Progress) -> str:
    if progress.minutes_left is None:
        return progress.line
    return f"about {max(1, round(progress.minutes_left))} min more; {progress.line}"


def show_document(document: dict[str, Any]) -> None:
    """The end of a run in the terminal: tables, verdicts, who did the same work, warnings."""
    from octavo.bench.load.fairness import (  # noqa: PLC0415  (not before a run: --help stays quick)
        CONFORMANCE_HEADER,
        CONFORMANCE_NOTE,
        conformance_rows,
    )

    for table in document["tables"]:
        show_table(table["title"], table["header"], table["rows"], table["notes"], wrap=True)
    if document["predictions"]:
        rows = [[one["quantity"], one["predicted"], one["measured"]] for one in document["predictions"]]
        note = ("What papers and posts claimed of it stands in the report.",)
        show_table("Predicted and measured", ("", "predicted", "measured"), rows, note, wrap=True)
    if document["comparisons"]:
        rows = [comparison_cells(one) for one in document["comparisons"]]
        header = ("", "metric", "ratio", "95 % interval", "verdict")
        show_table("Comparisons", header, rows, (), wrap=True)
    same_work = conformance_rows(document["conformance"], document["failures"])
    if same_work:
        show_table("The same work?", CONFORMANCE_HEADER, same_work, (CONFORMANCE_NOTE,), wrap=True)
    for line in document["warnings"]:
        print(f"Note: {line}")


def comparison_cells(one: dict[str, Any]) -> list[str]:
    """A comparison as a row of a table."""
    group = f", {one['group']}" if one["group"] else ""
    interval = "–" if one["low"] is None else f"{one['low']:.3f} to {one['high']:.3f}"
    return [
        f"{one['of']} / {one['against']}{group}",
        one["label"],
        f"{one['ratio']:.3f}",
        interval,
        str(one["verdict"]),
    ]
