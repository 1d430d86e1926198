"""`octavo bench calibrate`: our client and others against a server whose times are known."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import add_model_positional, flag_type, read_config
from octavo.config import ModelConfig
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.calibrate import Calibration


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "calibrate",
        help="our client, `vllm bench serve` and guidellm against a server whose times are known",
        allow_abbrev=False,
        usage="octavo bench calibrate [MODEL] [flags]",
        description="Starts a server that generates nothing and answers at known times, and compares what "
        "each client reads with what was sent. Exit code 1 where our own client is off by more than 2 % "
        "(1 ms for short times).",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    flags: tuple[tuple[str, type, float, str, str], ...] = (
        ("--ttft-ms", float, 200.0, "MS", "from request to first token"),
        ("--itl-ms", float, 20.0, "MS", "between tokens"),
        ("--jitter", float, 0.2, "SHARE", "gaps are drawn evenly within this share"),
        ("--tokens-per-chunk", int, 1, "N", "tokens that come as one event"),
        ("--num-prompts", int, 50, "N", "requests"),
        ("--output-len", int, 32, "TOKENS", "of every answer"),
        ("--request-rate", float, 10.0, "R", "requests a second, Poisson"),
        ("--seed", int, 0, "N", "of prompts and arrivals"),
    )
    for flag, kind, default, metavar, about in flags:
        parser.add_argument(
            flag,
            type=flag_type(kind),
            default=default,
            metavar=metavar,
            help=f"{about} (default: {default:g})",
        )
    parser.add_argument(
        "--only-ours", action="store_true", help="leave out clients that scripts/peers installed"
    )
    parser.set_defaults(run=run_calibrate_command, parser=parser)


def run_calibrate_command(arguments: argparse.Namespace) -> int:
    _check(arguments)
    check_output(arguments.output)
    from octavo.bench.calibrate import calibrate  # noqa: PLC0415
    from octavo.bench.load.external import external_clients  # noqa: PLC0415
    from octavo.bench.load.mock_server import MockTiming  # noqa: PLC0415
    from octavo.bench.load.schedule import Arrivals  # noqa: PLC0415
    from octavo.bench.load.workload_file import draw_requests  # noqa: PLC0415
    from octavo.bench.targets.exports import exported_folder  # noqa: PLC0415
    from octavo.bench.workload import WorkloadSpec  # noqa: PLC0415
    from octavo.build import build_text  # noqa: PLC0415

    text = build_text(read_config(ModelConfig, vars(arguments)))
    length = arguments.output_len
    spec = WorkloadSpec(
        num_requests=arguments.num_prompts,
        seed=arguments.seed,
        min_prompt=16,
        max_prompt=64,
        mean_prompt=32,
        min_output=length,
        max_output=length,
        mean_output=length,
    )
    timing = MockTiming(
        ttft_ms=arguments.ttft_ms,
        gap_ms=arguments.itl_ms,
        jitter=arguments.jitter,
        tokens_per_chunk=arguments.tokens_per_chunk,
    )
    clients = [] if arguments.only_ours else external_clients()
    tokenizer = str(exported_folder(text.source, dtype="float32")) if clients else ""
    with progress("Clients", 1 + len(clients)) as advance:
        found = calibrate(
            timing,
            draw_requests(spec, text),
            Arrivals(rate=arguments.request_rate),
            seed=arguments.seed,
            tokenizer=tokenizer,
            clients=clients,
            on_done=advance,
        )
    _show(found)
    write_output(
        arguments.output,
        {
            "benchmark": "calibrate",
            "timing": asdict(timing),
            "clients": [one.as_json() for one in found],
        },
    )
    return 0 if all(reading.is_honest for reading in found[0].readings) else 1


def _check(arguments: argparse.Namespace) -> None:
    for flag, low in (("ttft_ms", 0), ("itl_ms", 0), ("request_rate", 0)):
        value = getattr(arguments, flag)
        if not (math.isfinite(value) and value > low):
            raise ConfigError(f"--{flag.replace('_', '-')} must be above {low}, not {value:g}")
    if not 0 <= arguments.jitter < 1:
        raise ConfigError(f"--jitter must be from 0 to below 1, not {arguments.jitter:g}")
    if arguments.num_prompts < 1 or arguments.tokens_per_chunk < 1:
        raise ConfigError("--num-prompts and --tokens-per-chunk must be at least 1")
    if arguments.output_len <= arguments.tokens_per_chunk:
        raise ConfigError("--output-len must exceed --tokens-per-chunk: there would be no gap to read")


def _show(found: list[Calibration]) -> None:
    rows = [
        [
            f"{one.client}, {reading.metric}",
            f"{reading.read:,.2f}",
            f"{reading.truth:,.2f}",
            f"{reading.ratio:.3f}",
            "yes" if reading.is_honest else "NO",
        ]
        for one in found
        for reading in one.readings
    ]
    notes = [f"left out: {one.failure}" for one in found if one.failure is not None]
    notes.append("medians of ttft_ms and chunk_gap_ms; truth: the server's own send times")
    show_table(
        "Clients against a server whose times are known",
        ("", "read", "truth", "ratio", "within 2 %"),
        rows,
        notes,
    )
