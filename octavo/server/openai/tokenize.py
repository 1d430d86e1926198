"""POST /tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import RequestError
from octavo.server.bodies import read_body
from octavo.server.openai.chat import render_prompt
from octavo.server.openai.schema import DetokenizeBody, TokenizeBody
from octavo.server.parts import ServerParts, encode_text
from octavo.server.replies import json_response


async def tokenize(request: Request) -> Response:
    """Token ids of a prompt, or of a conversation as the template writes it."""
    parts: ServerParts = request.app.state.parts
    text_parts, facts = parts.admit()
    body = await read_body(request, TokenizeBody, parts.config.server.max_body_bytes)
    parts.check_model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("send prompt or messages, one of the two", param="prompt")
    if body.messages is not None:
        param = "messages"
        text = render_prompt(
            text_parts,
            body.messages,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
            template_kwargs=body.chat_template_kwargs,
        )
        add_special_tokens = bool(body.add_special_tokens)
    else:
        param, text = "prompt", body.prompt or ""
        add_special_tokens = body.add_special_tokens is not False
        for name in ("add_generation_prompt", "continue_final_message", "chat_template_kwargs"):
            if getattr(body, name) is not None:
                raise RequestError(f"{name} has no meaning beside prompt; send messages", param=name)
    token_ids = await encode_text(text_parts, facts, text, add_special_tokens=add_special_tokens, param=param)
    token_strs = None
    if body.return_token_strs:
        token_strs = await asyncio.to_thread(
            lambda: [text_parts.tokenizer.token_text(token_id) for token_id in token_ids]
        )
    return json_response(
        {
            "count": len(token_ids),
            "max_model_len": facts.max_model_len,
            "tokens": token_ids,
            "token_strs": token_strs,
        }
    )


async def detokenize(request: Request) -> Response:
    """The text of token ids, special tokens included."""
    parts: ServerParts = request.app.state.parts
    text_parts, facts = parts.admit()
    body = await read_body(request, DetokenizeBody, parts.config.server.max_body_bytes)
    parts.check_model(body.model)
    worst = max(body.tokens, default=0)
    if worst >= facts.vocab_size:
        raise RequestError(
            f"tokens has id {worst}; the model's vocabulary ends at {facts.vocab_size - 1}", param="tokens"
        )
    # Millions of tokens fit into a body: in a thread, they keep nobody else waiting.
    text = await asyncio.to_thread(text_parts.tokenizer.decode, body.tokens, skip_special_tokens=False)
    return json_response({"prompt": text})
