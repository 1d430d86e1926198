"""`octavo`: reads the command line, runs one command, turns errors into one line and an exit code.

Imports nothing heavy: a command's module is imported when that command is asked for, and what it needs
to run when it runs.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from typing import Any, NoReturn

from octavo.errors import ConfigError, ModelLoadError, OctavoError, RequestError
from octavo.version import __version__

EXIT_FAILED = 1
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141

# Each is a module of this package, whose `fill` adds its flags.
_COMMANDS = {
    "serve": "serve a model over the OpenAI API",
    "generate": "continue a prompt, or a file of them",
    "chat": "talk with a model on the terminal",
    "cache": "list, pin and drop what a running server has cached",
    "doctor": "what this machine has and what would fit",
    "bench": "measure speed and memory",
}


class _Parser(argparse.ArgumentParser):
    """Complains in one line, and guesses what a misspelt flag was meant to be."""

    module_name: str | None = None  # where its flags are, until they are asked for

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message = f"unknown argument {unknown.split()[0]!r}"
            near = difflib.get_close_matches(unknown.split()[0].partition("=")[0], self._all_flags(), n=1)
            if near:
                message += f"; did you mean {near[0]}?"
        raise ConfigError(f"{message} (see {self.prog} --help)")

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """As argparse, but what is unknown to a command is that command's complaint, not the root's."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return arguments

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, with the flags of a command only once that command was named."""
        if self.module_name is not None:
            module, self.module_name = importlib.import_module(self.module_name), None
            module.fill(self)
        return super().parse_known_args(args, namespace)

    def _all_flags(self) -> list[str]:
        return list(self._option_string_actions)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="octavo",
        description="Serves large language models: paged KV cache, continuous batching, OpenAI API.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"octavo {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, short_help in _COMMANDS.items():
        command = commands.add_parser(name, help=short_help, allow_abbrev=False)
        command.module_name = f"octavo.cli.{name}"
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code: 0, 1 failed, 2 wrong input, 130 interrupted."""
    try:
        arguments = make_parser().parse_args(argv)
        exit_code: int = arguments.run(arguments)
        sys.stdout.flush()  # here, where a closed pipe is still caught
        return exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except OctavoError as error:
        print(f"octavo: error: {error}", file=sys.stderr)
        is_wrong_input = isinstance(error, ConfigError | ModelLoadError | RequestError)
        return EXIT_WRONG_INPUT if is_wrong_input else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
