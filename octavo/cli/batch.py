"""`octavo generate --jsonl`: an offline batch, from JSON lines to JSON lines.

Reads no further than the engine has room for, writes each answer as it comes, and lets no bad line
disturb the others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from octavo.cli.terminal import load_llm
from octavo.config import EngineConfig
from octavo.errors import ConfigError, OctavoError, RequestError
from octavo.progress import RequestProgress
from octavo.sampling_params import FLAGS, SamplingParams
from octavo.service_params import ServiceParams

if TYPE_CHECKING:
    from octavo.live_requests import GenerationRequest
    from octavo.llm import LLM
    from octavo.outputs import RequestOutput
    from octavo.prompts import Prompt

MAX_LINE_BYTES = 16 * 2**20
_PROMPT_FIELDS = ("prompt", "prompt_token_ids", "messages")
_ID_FIELDS = ("id", "custom_id")
_SAMPLING_FIELDS = frozenset(field.name for field in fields(SamplingParams))
_SERVICE_FIELDS = frozenset(field.name for field in fields(ServiceParams))
_NUM_LINES_TOLD = 10


@dataclass(frozen=True, slots=True)
class _Line:
    """Where a request came from: `number` counts from 1, as editors do."""

    number: int
    id_field: str | None = None
    id_value: Any = None


@dataclass
class _Batch:
    """One run: what is read, what is written, what went wrong."""

    llm: LLM
    source: IO[bytes]
    target: IO[str]
    defaults: dict[str, Any]
    progress: RequestProgress
    lines: dict[int, _Line] = field(default_factory=dict)
    num_read: int = 0
    failed_line_numbers: list[int] = field(default_factory=list)

    def run(self) -> None:
        for index, output in self.llm.generate_each(self._read_requests(), progress=self.progress):
            line = self.lines.pop(index)
            if isinstance(output, RequestError):
                self._write_error(line, output)
            else:
                self._write_output(line, output)

    def _read_requests(self) -> Iterator[GenerationRequest]:
        """The good lines' requests, in order. Bad lines are answered on the way."""
        number = 0
        while raw := self.source.readline(MAX_LINE_BYTES + 1):
            number += 1
            line = _Line(number)
            try:
                if len(raw) > MAX_LINE_BYTES:
                    self._skip_rest(raw)
                    raise RequestError(f"the line is longer than {MAX_LINE_BYTES} bytes")
                if not raw.strip():
                    continue
                fields_given = _parse_object(raw)
                line = _read_id(number, fields_given)
                request = self._read_request(fields_given)
            except RequestError as error:
                self._write_error(line, error)
                continue
            self.lines[self.num_read] = line
            self.num_read += 1
            yield request

    def _skip_rest(self, raw: bytes) -> None:
        while raw and not raw.endswith(b"\n"):
            raw = self.source.readline(MAX_LINE_BYTES)

    def _read_request(self, given: dict[str, Any]) -> GenerationRequest:
        params = self.llm.make_sampling_params(self.defaults | _read_sampling(given))
        service = _read_service(given)
        return self._read_prompt(given), params, service

    def _read_prompt(self, given: dict[str, Any]) -> Prompt:
        names = [name for name in _PROMPT_FIELDS if name in given]
        if len(names) != 1:
            what = "has no prompt" if not names else f"has {' and '.join(names)}"
            raise RequestError(f"the line {what}; give one of {', '.join(_PROMPT_FIELDS)}", param="prompt")
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise RequestError(f"unknown field {unknown[0]!r}", param=unknown[0])
        value = given[names[0]]
        if names[0] == "prompt_token_ids":
            return {"prompt_token_ids": value}
        if names[0] == "messages":
            if not isinstance(value, list) or not value:
                raise RequestError("messages must be a list of at least one message", param="messages")
            return self.llm.render_chat(value)
        return {"prompt": value}

    def _write_output(self, line: _Line, output: RequestOutput) -> None:
        errors = [piece.error for piece in output.outputs if piece.error is not None]
        if errors:
            self._write_error(line, OctavoError(errors[0]))
            return
        outputs = []
        for piece in output.outputs:
            shown = asdict(piece)
            for name in ("cumulative_logprob", "logprobs"):
                if shown[name] is None:
                    del shown[name]
            del shown["error"]
            outputs.append(shown)
        answer: dict[str, Any] = {"outputs": outputs}
        if output.prompt_logprobs is not None:
            answer["prompt_logprobs"] = [
                place and {token_id: asdict(entry) for token_id, entry in place.items()}
                for place in output.prompt_logprobs
            ]
        answer["usage"] = {
            "prompt_tokens": len(output.prompt_token_ids),
            "completion_tokens": output.num_generated_tokens,
        }
        if output.num_cached_tokens:
            answer["usage"]["cached_tokens"] = output.num_cached_tokens
        if output.kv_sharing is not None:
            answer["usage"]["kv_sharing"] = round(output.kv_sharing, 4)
        self._write(line, answer)

    def _write_error(self, line: _Line, error: OctavoError) -> None:
        self.failed_line_numbers.append(line.number)
        self.progress.finish_request()
        self._write(line, {"error": {"message": str(error), "param": getattr(error, "param", None)}})

    def _write(self, line: _Line, answer: dict[str, Any]) -> None:
        place: dict[str, Any] = {"line": line.number}
        if line.id_field is not None:
            place[line.id_field] = line.id_value
        self.target.write(json.dumps(place | answer, ensure_ascii=False) + "\n")
        self.target.flush()


def run_batch(
    config: EngineConfig, source_name: str, target_name: str | None, *, defaults: dict[str, Any]
) -> int:
    """Run a whole batch.

    Args:
        source_name, target_name: paths; "-" is stdin or stdout, no target is stdout.
        defaults: sampling fields for lines that do not say otherwise.

    Returns:
        0, or 1 where a line failed: then stderr says which.

    Raises:
        ConfigError: a file cannot be opened.
    """
    with ExitStack() as stack:
        source = _open_source(source_name, stack)
        _check_target(source_name, target_name)
        llm = stack.enter_context(load_llm(config))
        target = _open_target(target_name, stack)
        llm.make_sampling_params(defaults)  # a wrong value is told once, and not for each line
        progress = stack.enter_context(RequestProgress(_count_lines(source_name), hidden=target.isatty()))
        batch = _Batch(llm, source, target, defaults, progress)
        batch.run()
    failed = sorted(batch.failed_line_numbers)
    if failed:
        told = ", ".join(map(str, failed[:_NUM_LINES_TOLD]))
        more = ", ..." if len(failed) > _NUM_LINES_TOLD else ""
        print(f"octavo: {len(failed)} lines failed (the output says why): {told}{more}", file=sys.stderr)
    return 1 if failed else 0


def _open_source(name: str, stack: ExitStack) -> IO[bytes]:
    if name == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(name).open("rb"))
    except OSError as error:
        raise ConfigError(f"--jsonl {name}: cannot be read: {error.strerror or error}") from None


def _check_target(source_name: str, target_name: str | None) -> None:
    """Fail before the model is loaded, without touching what an earlier run wrote."""
    if target_name in (None, "-"):
        return
    target = Path(str(target_name))
    if target.exists() and source_name != "-" and target.samefile(source_name):
        raise ConfigError("--output is the file that --jsonl reads; name another one")
    if target.is_dir() or not os.access(target if target.exists() else target.parent, os.W_OK):
        raise ConfigError(f"--output {target}: cannot be written there")


def _open_target(name: str | None, stack: ExitStack) -> IO[str]:
    if name in (None, "-"):
        return sys.stdout
    try:
        return stack.enter_context(Path(str(name)).open("w", encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--output {name}: cannot be written: {error.strerror or error}") from None


def _count_lines(name: str) -> int | None:
    """How many lines a file has; None for what can be read only once."""
    path = Path(name)
    if name == "-" or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in iter(lambda: file.readline(MAX_LINE_BYTES), b"") if line.strip())


def _parse_object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except RecursionError:
        raise RequestError("the line is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"the line is no UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise RequestError(f"the line is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise RequestError("the line is no JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _read_id(number: int, given: dict[str, Any]) -> _Line:
    """Take the line's own id, which is given back as it is."""
    for name in _ID_FIELDS:
        if name in given:
            return _Line(number, name, given.pop(name))
    return _Line(number)


def _take(given: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Take these fields out of a line; null means that it does not have them."""
    taken = {name: given.pop(name) for name in list(given) if name in names}
    return {name: value for name, value in taken.items() if value is not None}


def _read_service(line: dict[str, Any]) -> ServiceParams:
    """Take how a line is to be served. Raises RequestError: a value is wrong."""
    return ServiceParams(**_take(line, _SERVICE_FIELDS))


def _read_sampling(line: dict[str, Any]) -> dict[str, Any]:
    """Take a line's own sampling fields, which go before the batch's.

    Raises:
        RequestError: a value is of the wrong kind.
    """
    given = _take(line, _SAMPLING_FIELDS)
    for name in ("stop", "stop_token_ids", "allowed_token_ids", "bad_words"):
        if name in given and not isinstance(given[name], list if name != "stop" else list | str):
            raise RequestError(f"{name} must be a list", param=name)
    for name in set(FLAGS) & set(given):
        if not isinstance(given[name], bool):
            raise RequestError(f"{name} must be true or false", param=name)
    if "logit_bias" in given:
        given["logit_bias"] = _read_bias(given["logit_bias"])
    return given


def _read_bias(value: Any) -> dict[int, float]:
    """JSON's keys are text; token ids are numbers."""
    try:
        return {int(token_id): bias for token_id, bias in value.items()}
    except (AttributeError, ValueError):
        raise RequestError("logit_bias must be an object of token id: bias", param="logit_bias") from None
