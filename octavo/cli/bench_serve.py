"""`octavo bench serve`, `replay` and `sweep`: load on a server that runs, by a schedule fixed beforehand."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.bench.serve_spec import ServeSpec
from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import add_config_flags, add_model_positional, flag_type, read_config
from octavo.config import ModelConfig
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.load.metrics import Limit
    from octavo.bench.load.workload_file import TimedRequest
    from octavo.bench.serve import RatePoint
    from octavo.bench.targets.target import RunRecord

_WORDS = ("ttft", "tpot", "itl", "e2el")


def add_benchmark(benches: Any) -> None:
    _add_serve(benches)
    _add_replay(benches)
    _add_sweep(benches)


def _add_serve(benches: Any) -> None:
    parser = _new_parser(benches, "serve", "load a running server, and see what its users would")
    _add_arrival_flags(parser)
    parser.add_argument(
        "--dataset-path", type=Path, metavar="FILE", help="requests of `octavo bench workload make`"
    )
    add_config_flags(parser, ServeSpec)
    parser.set_defaults(run=run_serve_command, parser=parser)


def _add_replay(benches: Any) -> None:
    parser = _new_parser(benches, "replay", "load a running server with a trace, as it came or faster")
    parser.add_argument(
        "--trace",
        type=Path,
        required=True,
        metavar="FILE",
        help="Mooncake's JSON lines, Azure's or BurstGPT's CSV, or our own with due_seconds",
    )
    parser.add_argument(
        "--speedup", type=flag_type(float), default=1.0, metavar="X", help="time goes X times as fast"
    )
    parser.add_argument(
        "--clip-len",
        type=flag_type(int),
        metavar="TOKENS",
        help="cut prompt and output together to it (default: the model's context)",
    )
    add_config_flags(parser, ServeSpec, without=("random_input_len", "random_output_len"))
    parser.set_defaults(run=run_replay_command, parser=parser)


def _add_sweep(benches: Any) -> None:
    parser = _new_parser(benches, "sweep", "find the highest request rate within limits", has_limits=False)
    parser.add_argument("--find", choices=("max-rate",), default="max-rate", help="what is looked for")
    parser.add_argument(
        "--slo", required=True, metavar="LIMITS", help="for example ttft_p99=2000ms,tpot_p99=100ms"
    )
    parser.add_argument(
        "--first-rate", type=flag_type(float), default=1.0, metavar="R", help="requests/s to begin with"
    )
    add_config_flags(parser, ServeSpec)
    parser.set_defaults(run=run_sweep_command, parser=parser)


def run_serve_command(arguments: argparse.Namespace) -> int:
    from octavo.bench.load.workload_file import TimedRequest, due_of, read_requests  # noqa: PLC0415
    from octavo.bench.serve import arrivals_of, make_requests  # noqa: PLC0415
    from octavo.build import build_text  # noqa: PLC0415

    given = vars(arguments)
    spec = read_config(ServeSpec, given)
    arrivals = arrivals_of(
        arguments.request_rate, arguments.burstiness, is_rescaled=arguments.rescale_arrivals
    )
    about, due = arrivals.about, None
    if arguments.dataset_path is None:
        text = build_text(read_config(ModelConfig, given))
        timed = [TimedRequest(one) for one in make_requests(spec, text)]
    else:
        for name in ("random_input_len", "random_output_len"):
            if name in given:
                raise ConfigError(f"--{name.replace('_', '-')} has no effect with --dataset-path")
        timed = read_requests(arguments.dataset_path)
        timed = timed[: spec.num_prompts] if "num_prompts" in given else timed
        if math.isinf(arrivals.rate) and (due := due_of(timed)) is not None:
            about = "as the file says"
    due = due or arrivals.due_seconds(len(timed), seed=spec.seed)
    return _load_and_show(arguments, spec, timed, due, about)


def run_replay_command(arguments: argparse.Namespace) -> int:
    from octavo.bench.load.trace_file import read_trace  # noqa: PLC0415
    from octavo.build import build_text  # noqa: PLC0415

    given = vars(arguments)
    spec = read_config(ServeSpec, given)
    if not (math.isfinite(arguments.speedup) and arguments.speedup > 0):
        raise ConfigError(f"--speedup must be above 0, not {arguments.speedup:g}")
    text = build_text(read_config(ModelConfig, given))
    longest = text.description.spec.max_positions
    if arguments.clip_len is not None and not 2 <= arguments.clip_len <= longest:
        raise ConfigError(f"--clip-len must be from 2 to {longest}, not {arguments.clip_len}")
    timed = read_trace(
        arguments.trace,
        text,
        num_requests=spec.num_prompts,
        speedup=arguments.speedup,
        longest=arguments.clip_len or longest,
        seed=spec.seed,
    )
    due = [one.due_seconds or 0.0 for one in timed]
    return _load_and_show(
        arguments, spec, timed, due, f"{arguments.trace.name}, {arguments.speedup:g} times as fast"
    )


def run_sweep_command(arguments: argparse.Namespace) -> int:
    from octavo.bench.serve import (  # noqa: PLC0415
        arrivals_of,
        fewest_requests,
        find_max_rate,
        judge_rate,
        make_requests,
        parse_objectives,
        run_serve,
    )
    from octavo.build import build_text  # noqa: PLC0415

    given = vars(arguments)
    spec, objectives = read_config(ServeSpec, given), parse_objectives(arguments.slo)
    arrivals_of(arguments.first_rate, 1.0)
    check_output(arguments.output)
    text = build_text(read_config(ModelConfig, given))
    num_tried = 0

    async def try_rate(rate: float) -> RatePoint:
        nonlocal num_tried
        num_tried += 1
        requests = make_requests(spec, text, seed=spec.seed + num_tried)
        due = arrivals_of(rate, 1.0).due_seconds(len(requests), seed=spec.seed + num_tried)
        _, run = await run_serve(_target(arguments), requests, due, spec, workload=f"{rate:g} requests/s")
        advance()
        return judge_rate(run, rate, objectives)

    with progress("Rates tried", 12) as advance:
        best, points = asyncio.run(find_max_rate(try_rate, first_rate=arguments.first_rate))
    names = [f"{one.metric} p{100 * one.level:g}" for one in objectives]
    rows = [
        [
            f"{point.rate:.3g} requests/s",
            *(f"{read:,.1f}" for read in point.readings),
            "yes" if point.is_within else "no",
        ]
        for point in sorted(points, key=lambda point: point.rate)
    ]
    notes = [
        f"highest rate within {arguments.slo}: " + ("none" if best is None else f"{best:.3g} requests/s")
    ]
    if spec.num_prompts < fewest_requests(objectives):
        notes.append(
            f"{spec.num_prompts} requests are few for these percentiles; "
            f"{fewest_requests(objectives)} bound them with 95 %"
        )
    if any(point.is_client_bound for point in points):
        notes.append("at some rates the client itself was late: see the output file")
    show_table("Rates, in ms", ("", *names, "within"), rows, notes)
    write_output(
        arguments.output,
        {
            "benchmark": "sweep",
            "slo": arguments.slo,
            "spec": asdict(spec),
            "max_rate": best,
            "points": [asdict(point) for point in points],
        },
    )
    return 0


def _load_and_show(
    arguments: argparse.Namespace,
    spec: ServeSpec,
    timed: Sequence[TimedRequest],
    due: Sequence[float],
    about: str,
) -> int:
    from octavo.bench.load.metrics import parse_limits  # noqa: PLC0415
    from octavo.bench.serve import run_serve, serve_report  # noqa: PLC0415

    limits = parse_limits(arguments.goodput)
    words = _read_words(arguments.percentile_metrics)
    levels = _read_levels(arguments.metric_percentiles)
    check_output(arguments.output)
    requests = [one.request for one in timed]
    with progress("Requests", len(requests)) as advance:
        description, run = asyncio.run(
            run_serve(_target(arguments), requests, due, spec, workload=about, on_end=advance)
        )
    report = serve_report(description, run, about, spec, limits)
    _show(report["metrics"], run, about, limits, words, levels)
    write_output(arguments.output, report)
    return 0 if report["metrics"]["num_errors"] < len(requests) else 1


def _show(
    numbers: dict[str, Any],
    run: RunRecord,
    about: str,
    limits: Sequence[Limit],
    words: Sequence[str],
    levels: Sequence[float],
) -> None:
    from octavo.bench.load.metrics import METRIC_WORDS, pools  # noqa: PLC0415

    rows = [["requests", f"{numbers['num_requests']}", f"{numbers['num_errors']} failed"]]
    if "tok_out_s" in numbers:
        steady = numbers["tok_out_steady_s"]
        rows += [
            ["tok_out_s", f"{numbers['tok_out_s']:,.1f}", f"{numbers['num_output_tokens']:,} output tokens"],
            ["tok_out_steady_s", "–" if steady is None else f"{steady:,.1f}", "ramp and drain left out"],
            ["tok_total_s", f"{numbers['tok_total_s']:,.1f}", "with the prompts' tokens"],
            ["req_s", f"{numbers['req_s']:,.3f}", f"in {numbers['run_s']:,.2f} s"],
        ]
        if limits:
            rows.append(["goodput_req_s", f"{numbers['goodput_req_s']:,.3f}", "within every limit"])
    notes = [f"failed: {line}" for line in numbers["errors"]]
    if numbers.get("is_client_bound"):
        notes.append("CLIENT-BOUND: sends lag by more than 5 % of the median ttft_ms")
    show_table(f"{run.target}, {about}", ("", "", ""), rows, notes)
    values = pools(run)
    latencies: list[list[str]] = []
    for name in (METRIC_WORDS[word] for word in words):
        if name in values:
            latencies += _latency_rows(name, values[name], levels)
    if latencies:
        show_table(
            "Milliseconds from the scheduled arrival",
            ("", "ms", "95 % interval", "n", "called elsewhere"),
            latencies,
            (),
        )


def _latency_rows(name: str, values: list[float], levels: Sequence[float]) -> list[list[str]]:
    """The mean, then the percentiles that n can bear, with intervals of order statistics."""
    from octavo.bench.load.metrics import ALIASES  # noqa: PLC0415
    from octavo.bench.statistics.order import percentile  # noqa: PLC0415

    mean = sum(values) / len(values)
    rows = [[f"{name}, mean", f"{mean:,.1f}", "", str(len(values)), ALIASES[name]]]
    for level in levels:
        one = percentile(values, level / 100)
        if one.value is None:
            rows.append([f"{name}, p{level:g}", "–", f"n below {one.needs}", "", ""])
        else:
            rows.append(
                [f"{name}, p{level:g}", f"{one.value:,.1f}", f"[{one.low:,.1f}, {one.high:,.1f}]", "", ""]
            )
    return rows


def _target(arguments: argparse.Namespace) -> Any:
    from octavo.bench.targets.openai_url import OpenAiUrl  # noqa: PLC0415

    return OpenAiUrl(
        "server",
        arguments.base_url,
        model=arguments.served_model_name,
        sends_token_ids=not arguments.send_text,
    )


def _new_parser(benches: Any, name: str, about: str, *, has_limits: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = benches.add_parser(
        name,
        help=about,
        allow_abbrev=False,
        usage=f"octavo bench {name} [MODEL] [flags]",
        description=f"{about[0].upper()}{about[1:]}. MODEL is whose vocabulary prompts are made of: "
        "the model that the server runs (default: the starter).",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8000", metavar="URL", help="(default: http://127.0.0.1:8000)"
    )
    parser.add_argument(
        "--served-model-name", metavar="NAME", help="as the server calls it; default: it is asked"
    )
    parser.add_argument("--send-text", action="store_true", help="prompts as text instead of token ids")
    if has_limits:
        parser.add_argument(
            "--goodput",
            nargs="+",
            default=[],
            metavar="METRIC:MS",
            help="count the requests within these limits, for example ttft:2000 tpot:100",
        )
        parser.add_argument(
            "--percentile-metrics",
            default="ttft,tpot,itl,e2el",
            metavar="NAMES",
            help="latencies to show (default: ttft,tpot,itl,e2el)",
        )
        parser.add_argument(
            "--metric-percentiles",
            default="50,90,95,99",
            metavar="NUMBERS",
            help="percentiles to show (default: 50,90,95,99)",
        )
    return parser


def _add_arrival_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--request-rate",
        type=flag_type(float),
        default=math.inf,
        metavar="R",
        help="requests a second (default: inf, all at once)",
    )
    parser.add_argument(
        "--burstiness",
        type=flag_type(float),
        default=1.0,
        metavar="SHAPE",
        help="of the gamma-distributed gaps: 1 Poisson, below burstier, inf constant (default: 1)",
    )
    parser.add_argument(
        "--rescale-arrivals",
        action="store_true",
        help="let the last request fall at exactly n / rate, as `vllm bench serve` does",
    )


def _read_words(text: str) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in _WORDS:
            raise ConfigError(f"--percentile-metrics: {word!r} is none of {', '.join(_WORDS)}")
    return words


def _read_levels(text: str) -> list[float]:
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = [0.0]
    if not all(0 < level < 100 for level in levels):
        raise ConfigError(f"--metric-percentiles {text}: write numbers between 0 and 100, as 50,99")
    return levels
