"""The model's own chat template: turns messages into the prompt that the model was trained on.

Owns where templates are found and how messages are shaped for them. Renders in a sandbox.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateSyntaxError

from octavo.checkpoint.gguf import GgufFile
from octavo.checkpoint.json_file import read_json_object
from octavo.checkpoint.source import ModelSource, SourceKind
from octavo.control.text.template_sandbox import (
    BUDGET_KEY,
    MAX_RENDERED_CHARS,
    StepBudget,
    TemplateSandbox,
)
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import CheckpointError, ConfigError, ModelLoadError, RequestError

_DEFAULT, _TOOL_USE = "default", "tool_use"
_RESERVED_NAMES = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
_PROBE = "octavo probe"
# Marks where the last message ends, so that all that the template puts after it can be cut off. The
# space at its end shows whether the template trims messages (transformers, chat_template_utils.py).
_CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class ChatTemplate:
    """One model's templates: the usual one and, in some models, another for requests with tools."""

    def __init__(
        self, sources: Mapping[str, str], named_tokens: Mapping[str, str], *, origin: object
    ) -> None:
        """Compile the templates.

        Args:
            sources: Jinja text by name: "default", perhaps "tool_use".
            named_tokens: what templates know as bos_token, eos_token...
            origin: the file, for messages.

        Raises:
            ModelLoadError: a template is not valid Jinja.
        """
        self._named_tokens = dict(named_tokens)
        self._templates: dict[str, Template] = {}
        sandbox = TemplateSandbox()
        for name, source in sources.items():
            try:
                self._templates[name] = sandbox.from_string(source)
            except TemplateSyntaxError as error:
                reason = f"line {error.lineno}: {_first_line(error)}"
                raise ModelLoadError(f"{origin}: the chat template is not valid: {reason}") from None
        self._takes_parts = self._shows_probe([{"type": "text", "text": _PROBE}])
        self._takes_text = self._shows_probe(_PROBE) or not self._takes_parts

    @classmethod
    def load(cls, source: ModelSource, tokenizer: Tokenizer, path: str | None) -> ChatTemplate | None:
        """The template in the file at `path`, or else the model's own; None where there is none.

        Raises:
            ConfigError: there is no file at `path`.
            ModelLoadError: the template is not valid Jinja, or the file that should hold it is damaged.
        """
        if path is not None:
            try:
                sources = {_DEFAULT: Path(path).read_text(encoding="utf-8")}
            except (OSError, ValueError) as error:
                raise ConfigError(f"--chat-template {path}: cannot be read: {error}") from None
            return cls(sources, tokenizer.named_tokens, origin=path)
        is_gguf = source.kind is SourceKind.GGUF
        sources = _read_gguf_sources(source.path) if is_gguf else _read_folder_sources(source.path)
        if _DEFAULT not in sources:
            return None
        return cls(sources, tokenizer.named_tokens, origin=source.path)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for a conversation, special tokens and all: encode it without adding more.

        Args:
            messages: role, content (text, or a list of text parts) and whatever else the template reads.
            add_generation_prompt: end with what opens the assistant's answer.
            continue_final_message: end inside the last message, for the model to go on with it.
            tools: JSON schemas of functions that the model may call.
            template_kwargs: further variables for the template.

        Raises:
            RequestError: the messages are not what the template takes; its own words are passed on.
        """
        reserved = _RESERVED_NAMES.intersection(template_kwargs or {})
        if reserved:
            raise RequestError(
                f"chat_template_kwargs must not hold {sorted(reserved)[0]!r}", param="chat_template_kwargs"
            )
        try:
            extra_variables = copy.deepcopy(dict(template_kwargs or {}))
        except RecursionError:
            raise RequestError(
                "chat_template_kwargs is nested too deeply", param="chat_template_kwargs"
            ) from None
        shaped = [self._shape(message, index) for index, message in enumerate(messages)]
        final_text = ""
        if continue_final_message:
            if add_generation_prompt:
                raise RequestError(
                    "continue_final_message and add_generation_prompt exclude each other",
                    param="continue_final_message",
                )
            final_text = _tag_final_message(shaped)
        name = _TOOL_USE if tools and _TOOL_USE in self._templates else _DEFAULT
        variables = {
            **self._named_tokens,
            **extra_variables,
            "messages": shaped,
            "tools": copy.deepcopy(list(tools)) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            prompt = _render_bounded(self._templates[name], variables)
        # A template is a program: what can go wrong in it is anything.
        except Exception as error:
            raise RequestError(f"the chat template refused: {_first_line(error)}", param="messages") from None
        return _cut_at_tag(prompt, final_text) if continue_final_message else prompt

    def _shape(self, message: Mapping[str, Any], index: int) -> dict[str, Any]:
        """A copy of the message, its content in the form that the template takes."""
        shaped = copy.deepcopy(dict(message))
        content = shaped.get("content")
        if isinstance(content, list):
            texts = [_text_of_part(part, index) for part in content]
            # vLLM joins parts by line ends for templates that know nothing of parts.
            if not self._takes_parts:
                shaped["content"] = "\n".join(texts)
        elif isinstance(content, str) and not self._takes_text:
            shaped["content"] = [{"type": "text", "text": content}]
        return shaped

    def _shows_probe(self, content: object) -> bool:
        """Whether a message of this form comes out as its text, rather than as a dump of the form."""
        variables = {
            **self._named_tokens,
            "messages": [{"role": "user", "content": content}],
            "tools": None,
            "documents": None,
            "add_generation_prompt": False,
        }
        try:
            prompt = _render_bounded(self._templates[_DEFAULT], variables)
        # Any failure means the same: not this form.
        except Exception:
            return False
        return _PROBE in prompt and "'text'" not in prompt and '"text"' not in prompt


def _read_gguf_sources(path: Path) -> dict[str, str]:
    with GgufFile(path) as file:
        keys = {_DEFAULT: "tokenizer.chat_template", _TOOL_USE: f"tokenizer.chat_template.{_TOOL_USE}"}
        values = {name: file.metadata.get(key) for name, key in keys.items()}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _read_folder_sources(folder: Path) -> dict[str, str]:
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return {_DEFAULT: path.read_text(encoding="utf-8")}
        except (OSError, ValueError) as error:
            raise CheckpointError(path, f"cannot be read: {error}") from None
    path = folder / "tokenizer_config.json"
    value = read_json_object(path).get("chat_template") if path.is_file() else None
    if value is None:
        return {}
    if isinstance(value, str):
        return {_DEFAULT: value}
    entries = value if isinstance(value, list) else [value]
    sources: dict[str, str] = {}
    for entry in entries:
        match entry:
            case {"name": str(name), "template": str(template)}:
                sources[name] = template
            case _:
                raise CheckpointError(path, "chat_template is neither a text nor a list of named templates")
    return sources


def _render_bounded(template: Template, variables: dict[str, Any]) -> str:
    pieces: list[str] = []
    num_chars = 0
    for piece in template.generate({**variables, BUDGET_KEY: StepBudget()}):
        num_chars += len(piece)
        if num_chars > MAX_RENDERED_CHARS:
            raise ValueError(f"the prompt would be longer than {MAX_RENDERED_CHARS} characters")
        pieces.append(piece)
    return "".join(pieces)


def _text_of_part(part: object, message_index: int) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case str():
            return part
        case {"type": kind} if kind != "text":
            raise RequestError(
                f"messages[{message_index}] holds a part of the type {kind!r}; this model takes text only",
                param=f"messages[{message_index}].content",
            )
    raise RequestError(
        f"messages[{message_index}] holds a part that is not {{'type': 'text', 'text': ...}}",
        param=f"messages[{message_index}].content",
    )


def _tag_final_message(messages: list[dict[str, Any]]) -> str:
    """Put the tag at the end of the last message's text; return that text without it."""
    content = messages[-1].get("content") if messages else None
    if isinstance(content, str):
        messages[-1]["content"] = content + _CONTINUE_TAG
        return content
    if isinstance(content, list) and content and isinstance(content[-1], dict):
        text: str = content[-1]["text"]
        content[-1]["text"] = text + _CONTINUE_TAG
        return text
    raise RequestError("continue_final_message needs a last message with text", param="messages")


def _cut_at_tag(prompt: str, final_text: str) -> str:
    """All of the prompt before the tag, and no space there that the template would have trimmed."""
    start = prompt.rfind(_CONTINUE_TAG.strip())
    if start < 0 or final_text.strip() not in prompt:
        raise RequestError(
            "continue_final_message: the chat template leaves the last message out", param="messages"
        )
    is_trimmed = prompt[start : start + len(_CONTINUE_TAG)] != _CONTINUE_TAG
    return prompt[:start].rstrip() if is_trimmed else prompt[:start]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
