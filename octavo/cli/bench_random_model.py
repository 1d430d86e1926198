"""`octavo bench random-model`: writes a model of a known shape with random weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from octavo.cli.config_flags import flag_type

SHAPES = ("opt-125m", "opt-tiny")


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "random-model",
        help="write a model of a known shape with random weights",
        allow_abbrev=False,
        usage="octavo bench random-model SHAPE DIR [flags]",
        description="Writes a Hugging Face folder in float32, for speed and memory: its words mean nothing.",
    )
    parser.add_argument("shape", metavar="SHAPE", choices=SHAPES, help=" or ".join(SHAPES))
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write, made if it is missing")
    parser.add_argument(
        "--seed", type=flag_type(int), default=0, metavar="N", help="of the weights (default: 0)"
    )
    parser.set_defaults(run=run_random_model_command, parser=parser)


def run_random_model_command(arguments: argparse.Namespace) -> int:
    from octavo.bench.random_model import write_random_model  # noqa: PLC0415  (loads numpy)

    write_random_model(arguments.shape, arguments.folder, seed=arguments.seed)
    print(f"{arguments.folder}: {arguments.shape}'s shape, random weights, float32")
    return 0
