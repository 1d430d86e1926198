"""Frames: what goes in at one end comes out at the other, however the bytes are cut."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.config import CacheConfig, EngineConfig
from octavo.messages import (
    AbortRequest,
    FrameDecoder,
    StartEngine,
    StepFinished,
    StepStats,
    StopEngine,
    SubmitRequest,
    ToEngine,
    ToFront,
    encode_frame,
)
from octavo.request import FinishReason, TokenDelta, TokenLogprobs
from octavo.sampling_params import SamplingParams

PARAMS = SamplingParams(n=2, stop=["x"], logit_bias={7: -1.5}, seed=-(2**63), max_tokens=None)
TO_ENGINE = [
    StartEngine(EngineConfig(cache=CacheConfig(block_size=8))),
    SubmitRequest("1", [1, 2, 3], PARAMS, ((4, 5), (6,))),
    AbortRequest("1", 0),
    AbortRequest("1"),
    StopEngine(),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_messages_survive_any_cutting_of_their_bytes(cuts: list[int]) -> None:
    data = b"".join(map(encode_frame, TO_ENGINE))
    decoder = FrameDecoder(ToEngine)
    received: list[object] = []
    start = 0
    for size in cuts:
        received.extend(decoder.feed(data[start : start + size]))
        start += size
    received.extend(decoder.feed(data[start:]))
    assert received == TO_ENGINE


def test_deltas_keep_every_field() -> None:
    logprobs = (TokenLogprobs(5, -0.5, 1, (5, 6), (-0.5, float("-inf"))),)
    delta = TokenDelta("1", 1, (5,), logprobs, logprobs, FinishReason.STOP, 5, "why", 16)
    stats = StepStats(1, 2, 3, 4, 0.5, 6, 7, 0.25)
    message = StepFinished(9, [delta], stats, ["1"])
    (received,) = FrameDecoder(ToFront).feed(encode_frame(message))
    assert received == message


def test_params_are_checked_again_on_arrival() -> None:
    bad = msgspec.msgpack.encode(
        {"type": "submit", "request_id": "1", "prompt_token_ids": [1], "params": {"n": 0}}
    )
    with pytest.raises(msgspec.ValidationError):
        list(FrameDecoder(ToEngine).feed(len(bad).to_bytes(4, "little") + bad))


@pytest.mark.parametrize("data", [b"\x01\x00\x00\x00\xc1", b"\x02\x00\x00\x00\x91\x01", b"\xff\xff\xff\xff"])
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        list(FrameDecoder(ToEngine).feed(data))
