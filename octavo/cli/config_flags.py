"""Flags made from the dataclasses of config.py, and configs made from what was given.

A flag that was not given leaves no trace in the namespace, so that nobody repeats a default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from octavo.config import (
    CacheConfig,
    ComputeConfig,
    EngineConfig,
    ModelConfig,
    SchedulerConfig,
    environment_defaults,
)
from octavo.errors import ConfigError

_Group = TypeVar("_Group")

ENGINE_GROUPS: tuple[type[Any], ...] = (ModelConfig, ComputeConfig, CacheConfig, SchedulerConfig)
_KINDS: dict[Callable[[str], Any], str] = {int: "a whole number", float: "a number"}


def add_config_flags(
    parser: argparse.ArgumentParser, group: type[Any], *, without: Collection[str] = ()
) -> None:
    """Add a flag for each field of a config dataclass.

    Args:
        without: fields that have no effect here, or come as a positional.
    """
    section = parser.add_argument_group(group_title(group))
    for field in fields(group):
        if field.name not in without:
            _add_flag(section, field)


def add_model_positional(parser: argparse.ArgumentParser) -> None:
    """The positional MODEL."""
    metadata = ModelConfig.__dataclass_fields__["model"].metadata
    parser.add_argument("model", nargs="?", default=argparse.SUPPRESS, metavar="MODEL", help=metadata["help"])


def add_engine_flags(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """Everything of EngineConfig that this command has a use for."""
    for group in ENGINE_GROUPS:
        add_config_flags(parser, group, without=without)


def read_config(group: type[_Group], given: Mapping[str, Any]) -> _Group:
    """A config of the values that were given, then of environment variables, then of defaults.

    Raises:
        ConfigError: a value is outside its range.
    """
    values: dict[str, Any] = {}
    from_environment = environment_defaults()
    for field in fields(group):  # type: ignore[arg-type]
        if field.name in given:
            values[field.name] = given[field.name]
        elif field.name in from_environment:
            try:
                values[field.name] = field.metadata["parse"](from_environment[field.name])
            except ValueError:
                raise ConfigError(
                    f"environment variable {field.metadata['env']}: "
                    f"{from_environment[field.name]!r} cannot be read"
                ) from None
    return group(**values)


def read_engine_config(given: Mapping[str, Any]) -> EngineConfig:
    """The engine's config.

    Raises:
        ConfigError: a value is outside its range.
    """
    return EngineConfig(
        model=read_config(ModelConfig, given),
        compute=read_config(ComputeConfig, given),
        cache=read_config(CacheConfig, given),
        scheduler=read_config(SchedulerConfig, given),
    )


def flag_of(field_name: str) -> str:
    """`max_num_seqs` -> `--max-num-seqs`."""
    return "--" + field_name.replace("_", "-")


def flag_words(field: Field[Any], value: Any) -> list[str]:
    """A value as one would type it for `field`: the flag, and what follows it."""
    flag = flag_of(field.name)
    if field.metadata["parse"] is bool:
        return [flag if value else flag.replace("--", "--no-", 1)] if value != field.default else []
    if isinstance(value, tuple):
        return [flag, ",".join(f"{key}={number:g}" for key, number in value)]
    return [flag, str(value)]


def group_title(group: type[Any]) -> str:
    """The first line of a config dataclass's docstring, as a heading."""
    return (group.__doc__ or group.__name__).splitlines()[0].rstrip(".")


def default_text(field: Field[Any]) -> str | None:
    """A field's default as one would type it; None where the help itself says what happens, or lists it."""
    if field.default is MISSING or field.default is None or isinstance(field.default, bool | tuple):
        return None
    if field.metadata["parse"].__name__ == "parse_bytes":
        if field.default == 0:
            return None  # off, as the help says
        return _bytes_text(field.default)
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def flag_type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser as argparse wants it: its complaint becomes argparse's, and one for a person."""

    def parse_flag(text: str) -> Any:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {_KINDS[parse]}") from None

    return parse_flag


def _add_flag(section: argparse._ArgumentGroup, field: Field[Any]) -> None:
    metadata = field.metadata
    flag, help_text = flag_of(field.name), metadata["help"]
    if metadata["parse"] is bool:
        action = argparse.BooleanOptionalAction if field.default else "store_true"
        section.add_argument(flag, action=action, default=argparse.SUPPRESS, help=help_text)
        return
    if metadata["env"] is not None:
        help_text += f" (environment: {metadata['env']})"
    if (default := default_text(field)) is not None:
        help_text += f" (default: {default})"
    section.add_argument(
        flag,
        type=flag_type(metadata["parse"]),
        choices=metadata["choices"],
        # Without a metavar argparse lists the choices.
        metavar=metadata["metavar"],
        default=argparse.SUPPRESS,
        help=help_text,
    )


def _bytes_text(num_bytes: int) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if num_bytes % size == 0:
            return f"{num_bytes // size}{unit}"
    return str(num_bytes)
