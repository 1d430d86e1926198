"""Requests of a benchmark: drawn from a seed, and kept as JSON lines that other tools can read, too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.bench.prompts import ordinary_token_ids
from octavo.bench.targets.target import BenchRequest
from octavo.bench.workload import WorkloadSpec, make_workload
from octavo.build import TextParts
from octavo.errors import ConfigError

FORMATS = ("octavo", "vllm", "guidellm")


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """A request, and when it is due after the start; None where the load's schedule says it."""

    request: BenchRequest
    due_seconds: float | None = None


def draw_requests(spec: WorkloadSpec, text: TextParts, *, prefix: str = "") -> list[BenchRequest]:
    """The seeded mixed work as requests.

    Args:
        prefix: of the request ids, so that runs do not share them.
    """
    return [
        BenchRequest(
            request_id=f"{prefix}{number}",
            prompt_token_ids=one.prompt_token_ids,
            prompt_text=text.tokenizer.decode(one.prompt_token_ids, skip_special_tokens=False),
            num_output_tokens=one.params.max_tokens or 1,
        )
        for number, one in enumerate(make_workload(spec, ordinary_token_ids(text)))
    ]


def write_requests(requests: Iterable[TimedRequest], kind: str) -> str:
    """JSON lines: `octavo` keeps everything; `vllm` is `vllm bench serve --dataset-name custom` (text and
    output length); `guidellm` has text with both lengths."""
    lines = []
    for one in requests:
        request = one.request
        if kind == "octavo":
            fields: dict[str, Any] = {
                "request_id": request.request_id,
                "prompt_token_ids": list(request.prompt_token_ids),
                "prompt": request.prompt_text,
                "output_tokens": request.num_output_tokens,
            }
            if one.due_seconds is not None:
                fields["due_seconds"] = round(one.due_seconds, 6)
        elif kind == "vllm":
            fields = {"prompt": request.prompt_text, "output_tokens": request.num_output_tokens}
        else:
            fields = {
                "prompt": request.prompt_text,
                "prompt_tokens_count": len(request.prompt_token_ids),
                "output_tokens_count": request.num_output_tokens,
            }
        lines.append(json.dumps(fields, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def read_requests(path: Path) -> list[TimedRequest]:
    """A file that `write_requests` made in the form `octavo`.

    Raises:
        ConfigError: it cannot be read; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    found = [_read_line(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise ConfigError(f"{path}: there is no request in it")
    return found


def due_of(requests: Sequence[TimedRequest]) -> list[float] | None:
    """The file's own schedule, where every request has its time."""
    due = [one.due_seconds for one in requests if one.due_seconds is not None]
    return due if len(due) == len(requests) else None


def _read_line(path: Path, number: int, line: str) -> TimedRequest:
    try:
        fields = json.loads(line)
        token_ids = [int(token_id) for token_id in fields["prompt_token_ids"]]
        num_output = int(fields["output_tokens"])
        due = fields.get("due_seconds")
        due_seconds = None if due is None else float(due)
        if not token_ids or num_output < 1 or (due_seconds or 0.0) < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{path}:{number}: not a request (prompt_token_ids, prompt, output_tokens, perhaps due_seconds)"
        ) from None
    request = BenchRequest(
        request_id=str(fields.get("request_id", number)),
        prompt_token_ids=token_ids,
        prompt_text=str(fields.get("prompt", "")),
        num_output_tokens=num_output,
    )
    return TimedRequest(request, due_seconds)
