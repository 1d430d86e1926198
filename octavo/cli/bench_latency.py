"""`octavo bench latency`: one batch over and over, in this process; flags as of `vllm bench latency`."""

from __future__ import annotations

import argparse
import asyncio
import random
from typing import TYPE_CHECKING, Any

from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import (
    add_engine_flags,
    add_model_positional,
    flag_type,
    read_engine_config,
)
from octavo.config import parse_tokens
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.targets.target import BenchRequest
    from octavo.config import EngineConfig

_ALIKE = ("policy", "fair_weights", "max_queued_requests", "max_queued_tokens", "queue_timeout")
_NO_EFFECT = ("model", "seed", "chat_template", *_ALIKE)
_METRICS = ("ttft_ms", "tpot_ms", "e2e_ms")


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "latency",
        help="time to first token, per token and in all, of one batch in this process",
        allow_abbrev=False,
        usage="octavo bench latency [MODEL] [flags]",
        description="Runs one batch of equal requests again and again, with other tokens each time.",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    for flag, parse, default, about in (
        ("--input-len", parse_tokens, 32, "tokens of each prompt"),
        ("--output-len", parse_tokens, 128, "tokens of each output"),
        ("--batch-size", int, 8, "requests at once"),
        ("--num-iters", int, 10, "batches that count"),
        ("--num-iters-warmup", int, 2, "batches before them"),
    ):
        parser.add_argument(
            flag, type=flag_type(parse), default=default, metavar="N", help=f"{about} (default: {default})"
        )
    add_engine_flags(parser, without=_NO_EFFECT)
    parser.set_defaults(run=run_latency_command, parser=parser)


def run_latency_command(arguments: argparse.Namespace) -> int:
    for name in ("input_len", "output_len", "batch_size", "num_iters"):
        if getattr(arguments, name) < 1:
            raise ConfigError(
                f"--{name.replace('_', '-')} must be at least 1, not {getattr(arguments, name)}"
            )
    if arguments.num_iters_warmup < 0:
        raise ConfigError(f"--num-iters-warmup must be 0 or more, not {arguments.num_iters_warmup}")
    config = read_engine_config(vars(arguments))
    check_output(arguments.output)
    num_batches = arguments.num_iters_warmup + arguments.num_iters
    with progress("Batches", num_batches) as advance:
        values = asyncio.run(_measure(arguments, config, advance))
    from octavo.bench.statistics.description import describe  # noqa: PLC0415

    described = {name: describe(values[name]) for name in _METRICS if values[name]}
    rows = [
        [
            name,
            *(f"{number:,.2f}" for number in (one.median, one.mean, one.smallest, one.largest)),
            str(one.n),
        ]
        for name, one in described.items()
    ]
    show_table(
        f"{arguments.batch_size} at once, {arguments.input_len} tokens in, {arguments.output_len} out",
        ("", "median", "mean", "least", "most", "n"),
        rows,
        (f"{arguments.num_iters} batches after {arguments.num_iters_warmup} to warm up; requests pooled",),
    )
    write_output(
        arguments.output,
        {
            "benchmark": "latency",
            **{
                name: getattr(arguments, name)
                for name in ("input_len", "output_len", "batch_size", "num_iters")
            },
            "metrics": {name: one.as_json() for name, one in described.items()},
            "values": values,
        },
    )
    return 0


async def _measure(
    arguments: argparse.Namespace, config: EngineConfig, advance: Any
) -> dict[str, list[float]]:
    from octavo.bench.load.client import run_batch  # noqa: PLC0415  (loads half of the package)
    from octavo.bench.load.metrics import request_metrics  # noqa: PLC0415
    from octavo.bench.prompts import ordinary_token_ids  # noqa: PLC0415
    from octavo.bench.targets.octavo_in_process import OctavoInProcess  # noqa: PLC0415
    from octavo.build import build_text  # noqa: PLC0415

    ordinary = ordinary_token_ids(build_text(config.model))
    target = OctavoInProcess(config)
    values: dict[str, list[float]] = {name: [] for name in _METRICS}
    try:
        await target.start()
        for number in range(-arguments.num_iters_warmup, arguments.num_iters):
            run = await run_batch(target, _batch(arguments, ordinary, number), workload="latency")
            for record in run.requests if number >= 0 else ():
                for name, value in request_metrics(record).items():
                    if name in values:
                        values[name].append(value)
            advance()
    finally:
        await target.stop()
    return values


def _batch(arguments: argparse.Namespace, ordinary: list[int], number: int) -> list[BenchRequest]:
    from octavo.bench.targets.target import BenchRequest  # noqa: PLC0415

    tokens = random.Random(f"latency/{number}")
    return [
        BenchRequest(
            request_id=f"{number}/{index}",
            prompt_token_ids=tokens.choices(ordinary, k=arguments.input_len),
            prompt_text="",
            num_output_tokens=arguments.output_len,
        )
        for index in range(arguments.batch_size)
    ]
