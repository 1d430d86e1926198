"""The request bodies, as msgspec structs: the one list of fields that clients may send.

Unknown fields are refused. A field typed `Ignored` cannot change the output and is accepted without
effect; one typed `Unsupported` would change it and is refused unless it is null or says "off" (see
`fields.py`). The OpenAPI document is made from these structs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MAX_PROMPTS = 1024
MAX_MESSAGES = 4096

Ignored = Annotated[Any, Meta(description="Accepted; has no effect on the output.")]
Unsupported = Annotated[Any, Meta(description="Not supported: refused unless null or off.")]
# Bounds of what fits a 64-bit field of the engine's messages; the model's own are checked later.
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
BiasKey = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Ignored = None


class GenerationBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields that completions and chat completions share. Null means the default for all of them."""

    model: str | None = None
    n: Int64 | None = None
    best_of: Int64 | None = None
    use_beam_search: bool | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    min_tokens: Int64 | None = None
    max_tokens: Int64 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[BiasKey, float] | None = None
    allowed_token_ids: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    bad_words: list[str] | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    prompt_logprobs: Int64 | None = None
    add_special_tokens: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    request_id: str | None = None
    user: str | None = None
    priority: Int64 | None = None
    cache_salt: str | None = None
    deadline_seconds: float | None = None
    queue_timeout_seconds: float | None = None

    metadata: Ignored = None
    store: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prompt_cache_options: Ignored = None

    service_tier: Unsupported = None
    response_format: Unsupported = None
    structured_outputs: Unsupported = None
    guided_json: Unsupported = None
    guided_regex: Unsupported = None
    guided_choice: Unsupported = None
    guided_grammar: Unsupported = None
    guided_decoding_backend: Unsupported = None
    guided_whitespace_pattern: Unsupported = None
    logprob_token_ids: Unsupported = None
    truncate_prompt_tokens: Unsupported = None
    truncation_side: Unsupported = None
    session_id: Unsupported = None
    stream_interval: Unsupported = None
    kv_transfer_params: Unsupported = None
    vllm_xargs: Unsupported = None
    repetition_detection: Unsupported = None
    thinking_token_budget: Unsupported = None


class CompletionBody(GenerationBody, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/completions."""

    prompt: str | list[str | TokenId | list[TokenId]] | None = None
    echo: bool | None = None
    logprobs: Int64 | None = None
    suffix: Unsupported = None
    prompt_embeds: Unsupported = None


class ContentPart(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One part of a message's content. Only text is understood."""

    type: str
    text: str | None = None
    refusal: Unsupported = None
    image_url: Unsupported = None
    input_audio: Unsupported = None
    audio_url: Unsupported = None
    video_url: Unsupported = None
    file: Unsupported = None
    prompt_cache_breakpoint: Ignored = None


class Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One turn of a conversation. The nullable extras are what clients send back from replies."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: Unsupported = None
    annotations: Ignored = None
    audio: Unsupported = None
    function_call: Unsupported = None
    tool_calls: Unsupported = None
    tool_call_id: Unsupported = None


class ChatBody(GenerationBody, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: Int64 | None = None
    logprobs: bool | None = None
    top_logprobs: Int64 | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    parallel_tool_calls: Ignored = None

    echo: Unsupported = None
    tools: Unsupported = None
    tool_choice: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    modalities: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    reasoning: Unsupported = None
    reasoning_effort: Unsupported = None
    include_reasoning: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None
    moderation: Unsupported = None
    documents: Unsupported = None
    chat_template: Unsupported = None
    mm_processor_kwargs: Unsupported = None
    media_io_kwargs: Unsupported = None


class TokenizeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /tokenize: `prompt` or `messages`, one of the two."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    tokens: list[TokenId]
    model: str | None = None
