"""Bodies: whatever is wrong with one is said in a line that names the field."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import RequestError
from octavo.server.bodies import decode_body
from octavo.server.openai.fields import NEUTRAL_VALUES, refuse_unsupported, unsupported_fields
from octavo.server.openai.schema import (
    ChatBody,
    CompletionBody,
    ContentPart,
    Ignored,
    Message,
    StreamOptions,
)
from octavo.server.openapi import openapi_document


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b'{"prompt": "a", "n": "2"}', "n"),
        (b'{"prompt": "a", "n": true}', "n"),
        (b'{"prompt": "a", "n": 1e30}', "n"),
        (b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", "n"),
        (b'{"prompt": {}}', "prompt"),
        (b'{"prompt": [1.5]}', "prompt"),
        (b'{"prompt": [-1]}', "prompt"),
        (b'{"prompt": [[1, "a"]]}', "prompt"),
        (b'{"prompt": "a", "no_such_field": 1}', "no_such_field"),
        (b'{"prompt": "a", "stream_options": {"x": 1}}', "stream_options"),
        (b'{"prompt": "a", "logit_bias": {"a": 1}}', "logit_bias"),
        (b'{"prompt": "a", "logit_bias": {"1": "x"}}', "logit_bias"),
        (b'{"prompt": "a", "logit_bias": {"-1": 1}}', "logit_bias"),
        (b'{"prompt": "a", "stop": [1]}', "stop"),
        (b'{"prompt": "a", "temperature": NaN}', None),
        (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
        (b"", None),
        (b"[]", None),
        (b"{", None),
        (b'{"prompt": "\xff"}', None),
        (b'{"metadata": ' + b"[" * 100_000, None),
    ],
)
def test_a_wrong_body_is_refused_by_field(data: bytes, param: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        decode_body(data, CompletionBody)
    assert caught.value.param == param
    assert "\n" not in str(caught.value)
    assert "$" not in str(caught.value)


def test_a_wrong_message_is_refused_by_field() -> None:
    for message in (
        b'{"role": "boss", "content": "a"}',
        b'{"content": "a"}',
        b'{"role": "user", "content": "a", "colour": 1}',
        b'{"role": "user", "content": [{"text": "a"}]}',
    ):
        with pytest.raises(RequestError) as caught:
            decode_body(b'{"messages": [' + message + b"]}", ChatBody)
        assert caught.value.param == "messages"
    with pytest.raises(RequestError) as caught:
        decode_body(b"{}", ChatBody)
    assert caught.value.param == "messages"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        decode_body(data, ChatBody)
    except RequestError:
        return


@pytest.mark.parametrize("body_type", [CompletionBody, ChatBody])
def test_unsupported_fields_are_refused_unless_null_or_neutral(
    body_type: type[CompletionBody | ChatBody],
) -> None:
    names = unsupported_fields(body_type)
    assert len(names) > 15
    for name in names:
        body = body_type(messages=[]) if body_type is ChatBody else body_type()
        refuse_unsupported(body)
        for neutral in NEUTRAL_VALUES.get(name, ()):
            setattr(body, name, neutral)
            refuse_unsupported(body)
        setattr(body, name, "octavo-test")
        with pytest.raises(RequestError) as caught:
            refuse_unsupported(body)
        assert caught.value.param == name


def test_the_openapi_document_knows_the_fields() -> None:
    document = openapi_document()
    schemas = document["components"]["schemas"]
    assert schemas["ChatBody"]["additionalProperties"] is False
    assert {"messages", "temperature", "user", "tools"} <= set(schemas["ChatBody"]["properties"])
    assert "Not supported" in str(schemas["ChatBody"]["properties"]["tools"])
    assert "/v1/completions" in document["paths"]


def test_the_api_page_lists_every_field_without_effect_or_support() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for body_type in (CompletionBody, ChatBody, Message, StreamOptions, ContentPart):
        for each in msgspec.structs.fields(body_type):
            if each.type == Ignored:
                assert re.search(rf"[`.]{each.name}`", page.split("### Refused")[0]), each.name
        if body_type is not ContentPart:  # of which the page says that only text is taken
            for name in unsupported_fields(body_type):
                assert f"`{name}`" in page.split("### Refused")[1], name
