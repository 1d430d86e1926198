"""`octavo serve`: flags to ServeConfig, then the server."""

from __future__ import annotations

import argparse

from octavo.cli.config_flags import (
    add_config_flags,
    add_engine_flags,
    add_model_positional,
    read_config,
    read_engine_config,
)
from octavo.config import ServeConfig, ServerConfig


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.usage = "octavo serve [MODEL] [flags]"
    parser.description = "Serves a model over the OpenAI API until Ctrl-C or SIGTERM, which drain."
    add_model_positional(parser)
    add_config_flags(parser, ServerConfig)
    add_engine_flags(parser, without=("model",))
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    config = ServeConfig(engine=read_engine_config(given), server=read_config(ServerConfig, given))
    from octavo.server import run_server  # noqa: PLC0415  (after the settings are known to be right)

    return run_server(config)
