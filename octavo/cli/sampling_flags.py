"""Flags made from SamplingParams: names and types from its fields, help from its docstring."""

from __future__ import annotations

import argparse
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal

from octavo.cli.config_flags import flag_of, flag_type
from octavo.sampling_params import SamplingParams

# What changes only things that a terminal does not show; a line of a batch may hold them all the same.
_NOT_FLAGS = ("logprobs", "prompt_logprobs", "detokenize")
_ENTRY = re.compile(r"^        (\w+): (.*(?:\n            .*)*)", re.MULTILINE)


def add_sampling_flags(
    parser: argparse.ArgumentParser, *, defaults: Mapping[str, Any], without: Sequence[str] = ()
) -> None:
    """Add a flag for each field that shows in the text.

    Args:
        defaults: values that this command takes instead of SamplingParams' own.
        without: fields that have no effect here.
    """
    section = parser.add_argument_group("How to choose tokens (defaults: the model's own, then these)")
    types = typing.get_type_hints(SamplingParams)
    helps = field_helps()
    for field in fields(SamplingParams):
        if field.name in (*_NOT_FLAGS, *without):
            continue
        default = defaults.get(field.name, field.default)
        help_text = helps.get(field.name, "").replace("%", "%%")
        if default not in (None, (), MISSING) and not isinstance(default, bool):
            help_text += f" (default: {default:g})"
        section.add_argument(
            flag_of(field.name),
            default=argparse.SUPPRESS,
            help=help_text,
            **_flag_keywords(types[field.name], is_on=default is True),
        )


def sampling_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that flags have set."""
    names = {field.name for field in fields(SamplingParams)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if "logit_bias" in given:
        given["logit_bias"] = dict(given["logit_bias"])
    return given


def field_helps() -> dict[str, str]:
    """Field -> what the docstring of SamplingParams says about it (nothing under `python -OO`)."""
    entries = _ENTRY.findall((SamplingParams.__doc__ or "").partition("Attributes:")[2])
    return {name: " ".join(text.replace("`", "").split()).rstrip(".") for name, text in entries}


def _flag_keywords(hint: Any, *, is_on: bool) -> dict[str, Any]:
    """What argparse needs to read a value of this type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction if is_on else "store_true"}
    for known, keywords in _KEYWORDS:
        if hint == known:
            return keywords
    return {"action": "append", "metavar": "TEXT"}


def _parse_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of token ids; write for example 2,15"
        ) from None


def _parse_early_stopping(text: str) -> bool | str:
    words: dict[str, bool | str] = {"true": True, "false": False, "never": "never"}
    if text not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of true, false, never")
    return words[text]


def _parse_bias(text: str) -> tuple[int, float]:
    token_id, _, bias = text.partition("=")
    try:
        return int(token_id), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=BIAS; write for example 15=-100") from None


_KEYWORDS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (int, {"type": flag_type(int), "metavar": "N"}),
    (int | None, {"type": flag_type(int), "metavar": "N"}),
    (float, {"type": flag_type(float), "metavar": "X"}),
    (dict[int, float], {"type": _parse_bias, "action": "append", "metavar": "ID=BIAS"}),
    (Sequence[int], {"type": _parse_ids, "metavar": "ID,ID..."}),
    (bool | Literal["never"], {"type": _parse_early_stopping, "metavar": "true|false|never"}),
)
