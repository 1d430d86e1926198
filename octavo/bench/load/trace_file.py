"""Traces of real services as requests: when each came and how long it was. Texts are drawn; none are kept.

Reads Mooncake's JSON lines (timestamp in ms, input_length, output_length, hash_ids), Azure's CSV
(TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT's CSV (Timestamp in s, Request tokens, Response
tokens) and our own JSON lines with due_seconds.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from octavo.bench.load.workload_file import TimedRequest, read_requests
from octavo.bench.prompts import ordinary_token_ids
from octavo.bench.targets.target import BenchRequest
from octavo.build import TextParts
from octavo.errors import ConfigError

# Mooncake hashes prompts in blocks of so many tokens; equal ids are equal beginnings.
_MOONCAKE_BLOCK = 512


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """Attributes:
    prefix_ids: of each whole or last block of the prompt, where the trace tells what is shared.
    """

    seconds: float
    num_prompt_tokens: int
    num_output_tokens: int
    prefix_ids: tuple[int, ...] = ()


def read_trace(
    path: Path,
    text: TextParts,
    *,
    num_requests: int | None,
    speedup: float,
    longest: int,
    seed: int,
) -> list[TimedRequest]:
    """The trace's first requests, in order, made sooner by `speedup`.

    Args:
        longest: prompt and output together are cut to it; the output keeps at most half.

    Raises:
        ConfigError: the file cannot be read, or is of no known form.
    """
    try:
        first_line = path.open(encoding="utf-8").readline()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if '"prompt_token_ids"' in first_line:
        own = read_requests(path)[:num_requests]
        if any(one.due_seconds is None for one in own):
            raise ConfigError(f"{path}: requests without due_seconds have no time to be replayed at")
        return [TimedRequest(one.request, (one.due_seconds or 0.0) / speedup) for one in own]
    entries = _read_json_lines(path) if first_line.startswith("{") else _read_csv(path)
    entries = sorted(entries, key=lambda entry: entry.seconds)[:num_requests]
    if not entries:
        raise ConfigError(f"{path}: there is no request in it")
    start = entries[0].seconds
    make = _PromptMaker(text, seed)
    return [
        TimedRequest(make.request(number, _clip(entry, longest)), (entry.seconds - start) / speedup)
        for number, entry in enumerate(entries)
    ]


def _clip(entry: TraceEntry, longest: int) -> TraceEntry:
    num_output = max(1, min(entry.num_output_tokens, longest // 2))
    num_prompt = max(1, min(entry.num_prompt_tokens, longest - num_output))
    return TraceEntry(entry.seconds, num_prompt, num_output, entry.prefix_ids)


class _PromptMaker:
    """Equal block ids give equal tokens, and so the same chances to a prefix cache as the trace had."""

    def __init__(self, text: TextParts, seed: int) -> None:
        self._text, self._seed = text, seed
        self._ordinary = ordinary_token_ids(text)

    def request(self, number: int, entry: TraceEntry) -> BenchRequest:
        tokens: list[int] = []
        for block_id in entry.prefix_ids:
            if len(tokens) < entry.num_prompt_tokens:
                tokens += self._draw(f"block/{block_id}", _MOONCAKE_BLOCK)
        missing = entry.num_prompt_tokens - len(tokens)
        tokens += self._draw(f"request/{number}", max(missing, 0))
        tokens = tokens[: entry.num_prompt_tokens]
        return BenchRequest(
            request_id=f"trace/{number}",
            prompt_token_ids=tokens,
            prompt_text=self._text.tokenizer.decode(tokens, skip_special_tokens=False),
            num_output_tokens=entry.num_output_tokens,
        )

    def _draw(self, key: str, count: int) -> list[int]:
        return random.Random(f"{self._seed}/{key}").choices(self._ordinary, k=count)


def _read_json_lines(path: Path) -> list[TraceEntry]:
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            entry = TraceEntry(
                float(fields["timestamp"]) / 1e3,
                int(fields["input_length"]),
                int(fields["output_length"]),
                tuple(int(one) for one in fields.get("hash_ids", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"{path}:{number}: not a line of Mooncake's trace (timestamp, input_length, output_length)"
            ) from None
        entries.append(entry)
    return entries


def _read_csv(path: Path) -> list[TraceEntry]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        names = set(rows.fieldnames or ())
        if {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= names:
            columns = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
        elif {"Timestamp", "Request tokens", "Response tokens"} <= names:
            columns = ("Timestamp", "Request tokens", "Response tokens")
        else:
            raise ConfigError(f"{path}: no known trace: neither Mooncake's, Azure's nor BurstGPT's columns")
        return [_read_row(path, number, row, columns) for number, row in enumerate(rows, start=2)]


def _read_row(path: Path, number: int, row: Mapping[str, str], columns: tuple[str, str, str]) -> TraceEntry:
    when, num_prompt, num_output = (row[column] for column in columns)
    try:
        seconds = float(when) if columns[0] == "Timestamp" else _azure_seconds(when)
        return TraceEntry(seconds, max(1, int(num_prompt)), max(1, int(num_output)))
    except (ValueError, TypeError):
        raise ConfigError(f"{path}:{number}: not a time and two lengths") from None


def _azure_seconds(text: str) -> float:
    """Seven digits after the point, of which datetime takes six."""
    head, _, fraction = text.partition(".")
    return datetime.fromisoformat(head).timestamp() + float(f"0.{fraction.rstrip('Z+0:') or 0}")
