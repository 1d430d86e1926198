"""`octavo bench report` and `octavo bench diff`: what was measured, drawn again or compared."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octavo.cli.bench_output import show_table
from octavo.errors import ConfigError

EXIT_REGRESSION = 1


def add_benchmark(benches: Any) -> None:
    report: argparse.ArgumentParser = benches.add_parser(
        "report",
        help="draw report.html again, of one experiment or of a folder of them",
        allow_abbrev=False,
        usage="octavo bench report DIR [flags]",
        description="Writes DIR/report.html of DIR/results.json, or of the results in DIR's folders.",
    )
    report.add_argument("folder", type=Path, metavar="DIR", help="folder that `octavo bench run` wrote")
    report.add_argument(
        "--figures", type=Path, metavar="DIR", help="draw every figure with matplotlib too, into this folder"
    )
    report.add_argument(
        "--figure-format", choices=("svg", "png"), help="of these files (default: svg)", default=None
    )
    report.set_defaults(run=run_report_command, parser=report)
    diff: argparse.ArgumentParser = benches.add_parser(
        "diff",
        help="compare two results; exit code 1 for a regression",
        allow_abbrev=False,
        usage="octavo bench diff BEFORE AFTER",
        description="Compares the same experiment's results block by block. A metric that got worse beyond "
        "its 95 % interval and by more than 3 % is a regression, and the exit code is 1.",
    )
    diff.add_argument("before", type=Path, metavar="BEFORE", help="folder of the older results")
    diff.add_argument("after", type=Path, metavar="AFTER", help="folder of the newer results")
    diff.set_defaults(run=run_diff_command, parser=diff)


def run_report_command(arguments: argparse.Namespace) -> int:
    if arguments.figure_format is not None and arguments.figures is None:
        raise ConfigError("--figure-format has no effect without --figures DIR")
    from octavo.bench.report.documents import read_documents  # noqa: PLC0415
    from octavo.bench.report.page import render_report  # noqa: PLC0415

    documents = read_documents(arguments.folder)
    if arguments.figures is not None:
        _draw_pictures(documents, arguments.figures, f".{arguments.figure_format or 'svg'}")
    page = render_report(documents)
    path = arguments.folder / "report.html"
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
    print(path)
    return 0


def _draw_pictures(documents: Sequence[Mapping[str, Any]], folder: Path, suffix: str) -> None:
    """A file for each figure; those of several experiments in a folder each."""
    from octavo.bench.report.pictures import draw_pictures  # noqa: PLC0415

    for document in documents:
        inside = folder / document["experiment"] if len(documents) > 1 else folder
        try:
            inside.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--figures {inside}: cannot be made: {error.strerror or error}") from None
        for path in draw_pictures(document, inside, suffix):
            print(path)


def run_diff_command(arguments: argparse.Namespace) -> int:
    from octavo.bench.report.difference import compare_documents  # noqa: PLC0415
    from octavo.bench.report.documents import read_documents  # noqa: PLC0415

    before, after = (read_documents(folder) for folder in (arguments.before, arguments.after))
    if len(before) > 1 or len(after) > 1:
        raise ConfigError("diff compares one experiment: name the folders that have a results.json")
    found = compare_documents(before[0], after[0])
    rows = []
    for one in found:
        numbers = one.found
        interval = "–" if numbers.low is None else f"{numbers.low:.3f} to {numbers.high:.3f}"
        name = f"{one.condition}, {one.target}"
        rows.append([name, one.label, f"{numbers.ratio:.3f}", interval, str(numbers.verdict)])
    show_table(
        f"{after[0]['title']}: after / before",
        ("", "metric", "ratio", "95 % interval", "verdict"),
        rows,
        (),
        wrap=True,
    )
    num_regressions = sum(one.is_regression for one in found)
    fewest = min(one.found.num_blocks for one in found)
    if fewest < 5:
        print(f"Note: {fewest} blocks; a verdict takes five to be relied on")
    print(f"{num_regressions} regressions in {len(found)} comparisons")
    return EXIT_REGRESSION if num_regressions else 0
