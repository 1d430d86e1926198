"""Chat templates against transformers' apply_chat_template, and what a hostile template can do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from octavo.checkpoint.source import ModelSource, SourceKind
from octavo.control.text.chat_template import ChatTemplate
from octavo.control.text.tokenizer import Tokenizer
from octavo.errors import ConfigError, ModelLoadError, RequestError
from tests.control.text.conftest import WriteGguf

USER = {"role": "user", "content": "Hi there, \u00e9\U0001f600!\n"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "  Sure:  "}
CONVERSATIONS = [[USER], [SYSTEM, USER], [USER, ANSWER, USER], [SYSTEM, USER, ANSWER]]

# Takes content as text or as parts, trims, and shows tools; in the manner of the Llama 3 template.
RICH = """{{ bos_token }}
{%- if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('unknown role ' + message.role) }}
    {%- endif %}
    {{- '<|' ~ message.role ~ '|>' }}
    {%- if message.content is string %}{{ message.content | trim }}
    {%- else %}{% for part in message.content %}{{ part.text | trim }}{% endfor %}{% endif %}
    {%- if loop.last and not add_generation_prompt %}{% break %}{% endif %}
    {{- '<|end|>' }}
{% endfor %}
{%- if add_generation_prompt %}{% generation %}<|assistant|>{{ mood }}{% endgeneration %}{% endif %}
"""


def make(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, {"bos_token": "<s>"}, origin="model")


def render_reference(source: str, messages: list[dict[str, Any]], **options: Any) -> str:
    [prompt], _ = render_jinja_template([messages], chat_template=source, bos_token="<s>", **options)
    return str(prompt)


@pytest.fixture(scope="module")
def starter_template(starter_source: ModelSource, starter: Tokenizer) -> ChatTemplate:
    template = ChatTemplate.load(starter_source, starter, None)
    assert template is not None
    return template


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_starter_agrees_with_transformers(
    starter_reference: Any, starter_template: ChatTemplate, messages: list[dict[str, Any]]
) -> None:
    for options in (
        {"add_generation_prompt": True},
        {"add_generation_prompt": False},
        {"add_generation_prompt": False, "continue_final_message": True},
    ):
        expected = starter_reference.apply_chat_template(messages, tokenize=False, **options)
        assert starter_template.render(messages, **options) == expected


def test_starter_has_a_system_prompt_of_its_own(starter_template: ChatTemplate) -> None:
    assert starter_template.render([{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"add_generation_prompt": True},
        {"add_generation_prompt": False},
        {"add_generation_prompt": False, "continue_final_message": True},
        {"add_generation_prompt": True, "tools": [{"type": "function", "name": "\u00e9<&>"}]},
    ],
)
def test_rich_template_agrees_with_transformers(
    messages: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    expected = render_reference(RICH, messages, mood="!", **options)
    assert make(RICH).render(messages, template_kwargs={"mood": "!"}, **options) == expected


def test_text_parts_reach_templates_that_know_none(starter_template: ChatTemplate) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    joined = starter_template.render([{"role": "user", "content": "one\ntwo"}])
    assert starter_template.render([{"role": "user", "content": parts}]) == joined
    assert "one" + "two" in make(RICH).render([{"role": "user", "content": parts}])


def test_text_becomes_a_part_for_templates_that_know_nothing_else() -> None:
    only_parts = (
        "{% for m in messages %}{% for part in m.content %}{{ part['text'] }}{% endfor %}{% endfor %}"
    )
    assert make(only_parts).render([{"role": "user", "content": "hello"}]) == "hello"


def test_the_caller_s_messages_stay_as_they_were() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    make(RICH).render(messages, add_generation_prompt=False, continue_final_message=True)
    assert messages == [{"role": "user", "content": [{"type": "text", "text": "x"}]}]


@pytest.mark.parametrize(
    ("messages", "options", "words"),
    [
        ([{"role": "robot", "content": "x"}], {}, "unknown role robot"),
        ([{"content": "x"}], {}, "role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], {}, "'image_url'"),
        ([{"role": "user", "content": [{"type": "text"}]}], {}, "messages\\[0\\]"),
        ([USER], {"continue_final_message": True}, "exclude each other"),
        ([], {"continue_final_message": True, "add_generation_prompt": False}, "last message"),
        ([USER], {"template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(
    messages: list[dict[str, Any]], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        make(RICH).render(messages, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.param is not None


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% for i in range(90000) %}{{ '0123456789' * 1000 }}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ 1 / 0 }}",
    ],
)
def test_hostile_template_ends_soon_and_in_one_line(source: str) -> None:
    started_seconds = time.perf_counter()
    with pytest.raises(RequestError, match="the chat template refused: ") as caught:
        make(source).render([USER])
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - started_seconds < 20


def test_template_of_a_folder(tmp_path: Path, starter: Tokenizer) -> None:
    source = ModelSource("tiny", tmp_path, SourceKind.FOLDER)
    assert ChatTemplate.load(source, starter, None) is None

    def load(value: object) -> ChatTemplate:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
        template = ChatTemplate.load(source, starter, None)
        assert template is not None
        return template

    assert load("one {{ eos_token }}").render([USER]) == "one <|im_end|>"
    named = load([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}])
    assert (named.render([USER]), named.render([USER], tools=[{"name": "f"}])) == ("plain", "tools")
    (tmp_path / "chat_template.jinja").write_text("file")
    assert load("config").render([USER]) == "file"
    (tmp_path / "mine.jinja").write_text("mine")
    mine = ChatTemplate.load(source, starter, str(tmp_path / "mine.jinja"))
    assert mine is not None and mine.render([USER]) == "mine"


def test_template_of_a_gguf_file(write_gguf: WriteGguf, starter: Tokenizer) -> None:
    source = ModelSource("tiny", write_gguf("gpt2", ["a"]), SourceKind.GGUF)
    assert ChatTemplate.load(source, starter, None) is None
    source = ModelSource("tiny", write_gguf("gpt2", ["a"], chat_template="{% if %}"), SourceKind.GGUF)
    with pytest.raises(ModelLoadError, match=r"tokenizer\.gguf: the chat template is not valid: line 1"):
        ChatTemplate.load(source, starter, None)


def test_template_file_that_is_not_there(starter_source: ModelSource, starter: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="--chat-template"):
        ChatTemplate.load(starter_source, starter, "nowhere.jinja")
