"""From a request body to SamplingParams: the request's values, then the model's, then the built-in ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.control.decoding.best_of import check_streamable
from octavo.control.decoding.model_defaults import over_model_defaults
from octavo.errors import RequestError
from octavo.sampling_params import MAX_LOGPROBS, SamplingParams
from octavo.server.openai.schema import ChatBody, CompletionBody, GenerationBody

# Fields with the same name and meaning in the body and in SamplingParams.
_SHARED_FIELDS = (
    *("n", "best_of", "use_beam_search", "length_penalty", "early_stopping"),
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "seed", "min_tokens", "stop", "stop_token_ids", "include_stop_str_in_output"),
    *("ignore_eos", "logit_bias", "allowed_token_ids", "bad_words", "skip_special_tokens"),
    *("spaces_between_special_tokens", "prompt_logprobs"),
)
DEFAULT_COMPLETION_TOKENS = 16


def completion_params(body: CompletionBody, model_defaults: Mapping[str, float]) -> SamplingParams:
    """Raises RequestError: a value is wrong, alone or beside another; names the field."""
    values = _shared_values(body, model_defaults)
    values["max_tokens"] = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    values["logprobs"] = body.logprobs
    if body.echo and body.logprobs is not None and body.prompt_logprobs is None:
        if body.use_beam_search:
            raise RequestError("echo with logprobs cannot go with beam search", param="echo")
        values["prompt_logprobs"] = body.logprobs  # OpenAI's echo reports the prompt's too
    if body.max_tokens == 0 and not body.echo and body.prompt_logprobs is None:
        raise RequestError("max_tokens may be 0 only with echo or prompt_logprobs", param="max_tokens")
    return _make(values, body)


def chat_params(body: ChatBody, model_defaults: Mapping[str, float]) -> SamplingParams:
    """Raises RequestError: a value is wrong, alone or beside another; names the field."""
    values = _shared_values(body, model_defaults)
    limits = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise RequestError(
            "max_tokens and max_completion_tokens are two names of one limit; send one of them",
            param="max_tokens",
        )
    limit = limits.pop() if limits else None
    if limit == 0 and body.prompt_logprobs is None:
        name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        raise RequestError(f"{name} must be at least 1", param=name)
    values["max_tokens"] = limit
    if body.top_logprobs is not None:
        if not body.logprobs:
            raise RequestError("top_logprobs needs logprobs=true", param="top_logprobs")
        if not 0 <= body.top_logprobs <= MAX_LOGPROBS:
            raise RequestError(
                f"top_logprobs must be between 0 and {MAX_LOGPROBS}, not {body.top_logprobs}",
                param="top_logprobs",
            )
    if body.logprobs:
        values["logprobs"] = body.top_logprobs or 0
    return _make(values, body)


def check_stream_options(body: GenerationBody) -> None:
    """Raises RequestError: options that need each other, or cannot be together."""
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options needs stream=true", param="stream_options")
    if body.stream and body.prompt_logprobs is not None:
        raise RequestError("prompt_logprobs cannot be streamed; leave stream out", param="prompt_logprobs")


def _shared_values(body: GenerationBody, model_defaults: Mapping[str, float]) -> dict[str, Any]:
    wanted = {name: value for name in _SHARED_FIELDS if (value := getattr(body, name)) is not None}
    return over_model_defaults(wanted, model_defaults)


def _make(values: dict[str, Any], body: GenerationBody) -> SamplingParams:
    params = SamplingParams(**values)  # each is checked there, by name
    if body.stream:
        check_streamable(params)
    return params
