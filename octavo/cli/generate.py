"""`octavo generate`: continues a prompt on the terminal, or a file of JSON lines."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from octavo.cli.config_flags import add_engine_flags, read_engine_config
from octavo.cli.prompt_text import add_prompt_arguments, read_prompt
from octavo.cli.sampling_flags import add_sampling_flags, sampling_given
from octavo.cli.terminal import load_llm, say_dim, write_text
from octavo.errors import ConfigError, RequestFailedError
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.llm import LLM

# SamplingParams' own 16, which clients of the API expect, would cut most sentences.
_DEFAULTS = {"max_tokens": 256}
# One seed flag is enough: the request's own. Nobody is refused for a full queue offline.
_NO_EFFECT = ("seed", "max_queued_requests", "max_queued_tokens", "queue_timeout")
_BATCH_HELP = """\
Offline batches (--jsonl): each line of IN is a JSON object with one of
  "prompt": text    "prompt_token_ids": [ids]    "messages": [{"role": ..., "content": ...}]
and, if wanted, an "id" (or "custom_id"), any field of SamplingParams, which goes before the flags, and
any of "priority", "fairness_key", "cache_salt", "deadline_seconds" and "queue_timeout_seconds".
Each line of OUT is {"line": its number in IN, "id": ..., "outputs": [...], "usage": {...}}, or has an
"error" instead of outputs. Lines are written as they finish; "line" restores the order.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.usage = "octavo generate [PROMPT] [flags]"
    parser.description = "Continues a prompt (from the argument, --file or stdin) and prints it as it comes."
    parser.epilog = _BATCH_HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_prompt_arguments(parser)
    parser.add_argument("--jsonl", metavar="IN", help="file of prompts, one JSON object a line; - is stdin")
    parser.add_argument("--output", metavar="OUT", help="where --jsonl writes; default: stdout")
    add_engine_flags(parser, without=_NO_EFFECT)
    add_sampling_flags(parser, defaults=_DEFAULTS)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    given = sampling_given(arguments)
    SamplingParams(**given)  # a wrong value is told before a model is loaded
    wanted = _DEFAULTS | given
    engine_given = {name: value for name, value in vars(arguments).items() if name not in given}
    config = read_engine_config(engine_given)
    if arguments.jsonl is not None:
        return _run_batch(arguments, config, wanted)
    if arguments.output is not None:
        raise ConfigError("--output has an effect only with --jsonl; a single answer goes to stdout")
    prompt = read_prompt(arguments.prompt, arguments.file)
    with load_llm(config) as llm:
        params = llm.make_sampling_params(wanted)
        # What is chosen at the end is not known before; several would mix on the screen.
        if params.num_sequences == 1:
            _print_stream(llm, prompt, params)
        else:
            _print_all(llm, prompt, params)
    return 0


def _run_batch(arguments: argparse.Namespace, config: Any, wanted: dict[str, Any]) -> int:
    from octavo.cli.batch import run_batch  # noqa: PLC0415  (reads half of the package)

    if arguments.prompt is not None or arguments.file is not None:
        raise ConfigError("--jsonl brings its own prompts; leave out PROMPT and --file")
    return run_batch(config, arguments.jsonl, arguments.output, defaults=wanted)


def _print_stream(llm: LLM, prompt: str, params: SamplingParams) -> None:
    started_seconds = time.monotonic()
    first_seconds: float | None = None
    num_tokens = 0
    for piece in llm.stream(prompt, params):
        for output in piece.outputs:
            if output.error is not None:
                raise RequestFailedError(output.error)
            write_text(output.text)
            num_tokens += len(output.token_ids)
            first_seconds = first_seconds or time.monotonic()
    write_text("\n")
    decode_seconds = time.monotonic() - (first_seconds or started_seconds)
    if num_tokens > 1:
        say_dim(f"{num_tokens} tokens, {(num_tokens - 1) / max(decode_seconds, 1e-9):.1f} tok/s")


def _print_all(llm: LLM, prompt: str, params: SamplingParams) -> None:
    """Whole continuations, one after another."""
    (request_output,) = llm.generate(prompt, params)
    for output in request_output.outputs:
        if output.error is not None:
            raise RequestFailedError(output.error)
        if params.n > 1:
            write_text(f"--- {output.index + 1} of {params.n} ---\n")
        write_text(output.text + "\n")
