"""`octavo bench export-weights`: a model as a Hugging Face folder, for peers that read no GGUF."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from octavo.cli.config_flags import add_model_positional, read_config
from octavo.config import ModelConfig
from octavo.errors import ConfigError

_DTYPES = ("float32", "bfloat16", "float16")


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "export-weights",
        help="write a model as a Hugging Face folder of float weights",
        allow_abbrev=False,
        usage="octavo bench export-weights [MODEL] --folder FOLDER [--dtype DTYPE]",
        description="Writes config.json, model.safetensors and the tokenizer. float32 keeps every value of a "
        "low-bit file exactly.",
    )
    add_model_positional(parser)
    parser.add_argument("--folder", type=Path, required=True, metavar="FOLDER", help="where; made if absent")
    parser.add_argument(
        "--dtype", choices=_DTYPES, default="float32", help="number format (default: float32)"
    )
    parser.set_defaults(run=run_export_command, parser=parser)


def run_export_command(arguments: argparse.Namespace) -> int:
    config = read_config(ModelConfig, vars(arguments))
    folder: Path = arguments.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--folder {folder}: cannot be made: {error.strerror or error}") from None
    if any(folder.iterdir()):
        raise ConfigError(f"--folder {folder}: there is something in it already")
    from octavo.build import export_model  # noqa: PLC0415  (after the settings are known to be right)

    export_model(config, folder, dtype=arguments.dtype)
    print(f"{folder}: config.json, model.safetensors ({arguments.dtype}) and the tokenizer")
    return 0
