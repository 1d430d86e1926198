"""What travels between the front process and the engine process: msgspec structs, never pickle.

Each frame on the Unix socket is a 4-byte little-endian length and a MessagePack body. Both sides
decode into these closed types; a frame that does not fit is a fault of the peer, not of a client.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from octavo.config import EngineConfig
from octavo.request import TokenDelta
from octavo.sampling_params import SamplingParams
from octavo.service_params import DEFAULT_SERVICE, ServiceParams

MAX_FRAME_BYTES = 256 * 2**20
_LENGTH = struct.Struct("<I")


class StartEngine(msgspec.Struct, tag="start"):
    """First message to the engine process: load this model."""

    config: EngineConfig


class SubmitRequest(msgspec.Struct, tag="submit"):
    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    service: ServiceParams = DEFAULT_SERVICE


class PinPrefix(msgspec.Struct, tag="pin_prefix"):
    """Keep what is cached of these tokens for `ttl_seconds`. Answered with CacheAnswer."""

    query_id: int
    token_ids: list[int]
    ttl_seconds: float
    cache_salt: str = ""


class UnpinPrefix(msgspec.Struct, tag="unpin_prefix"):
    """Give up a pin. Answered with CacheAnswer."""

    query_id: int
    pin_id: int


class ListPrefixes(msgspec.Struct, tag="list_prefixes"):
    """What is cached and pinned. Answered with CacheAnswer."""

    query_id: int


class DropPrefixes(msgspec.Struct, tag="drop_prefixes"):
    """Forget all cached prefixes, pins included; what runs is not disturbed. Answered with CacheAnswer."""

    query_id: int


class MapBlocks(msgspec.Struct, tag="map_blocks"):
    """Which block belongs to whom. Answered with CacheAnswer."""

    query_id: int


class CacheAnswer(msgspec.Struct, tag="cache_answer"):
    """The answer to one of the questions about the cache; exactly one of `found` and `error` is set.

    `found` has builtin types only: the fields of `PrefixPin`, `CacheListing`, `BlockMap` (see
    control/cache) by name; `num_blocks` of DropPrefixes; nothing of UnpinPrefix. `is_fault`: the error is
    not what was asked but the engine's own.
    """

    query_id: int
    found: dict[str, Any] | None = None
    error: str | None = None
    is_fault: bool = False


class AbortRequest(msgspec.Struct, tag="abort"):
    """Stop a request, or one of its sequences (`index`) whose stop string has come."""

    request_id: str
    index: int | None = None


class StopEngine(msgspec.Struct, tag="stop"):
    """Abort what still runs, free everything and exit with code 0."""


class EngineReady(msgspec.Struct, tag="ready"):
    """The model is loaded. All numbers are facts of this engine, for admission, doctor and metrics."""

    max_model_len: int
    vocab_size: int
    num_blocks: int
    block_size: int
    kv_bytes: int
    weight_bytes: int
    device: str
    dtype: str
    kernels: str
    load_seconds: float
    pack_seconds: float
    packed_bytes: int


class EngineFailed(msgspec.Struct, tag="failed"):
    """The engine could not start or cannot go on. `exit_code` is what the front should exit with."""

    message: str
    exit_code: int


class RequestRefused(msgspec.Struct, tag="refused"):
    """The engine would not take a request.

    `reason`: `invalid`, a field is wrong (`param`); `too_long`, it can never fit; `queue_full`, come back
    after `retry_after_seconds`; `fault`, the engine broke on it.
    """

    request_id: str
    message: str
    reason: Literal["invalid", "too_long", "queue_full", "fault"]
    param: str | None = None
    retry_after_seconds: float = 0.0


class StepStarted(msgspec.Struct, tag="step_started"):
    """Heartbeat: a step began; a live engine finishes it in about `expected_seconds`."""

    step_id: int
    num_tokens: int
    expected_seconds: float


class StepFinished(msgspec.Struct, tag="step_finished"):
    """A step ended: the tokens it brought and the engine's state after it.

    `started_request_ids` left the queue in this step: their prompts began to be computed.
    """

    step_id: int
    deltas: list[TokenDelta]
    stats: StepStats
    started_request_ids: list[str] = []


class EngineIdle(msgspec.Struct, tag="idle"):
    """Nothing is left to do; no further message comes until the front sends one."""

    stats: StepStats


class StepStats(msgspec.Struct):
    """State of scheduler and cache after a step.

    `waste` is reserved but empty slots over used slots; `blocks_cached` are free blocks that still hold a
    known prefix; `sharing` is blocks saved by sharing over those needed without it; `num_swapped` are
    sequences whose blocks are in the host pool. Time spans are in seconds.
    """

    num_running: int
    num_waiting: int
    blocks_used: int
    blocks_free: int
    waste: float
    num_tokens: int
    num_preemptions: int
    step_seconds: float
    blocks_cached: int = 0
    sharing: float = 0.0
    num_swapped: int = 0
    host_blocks_used: int = 0


CacheQuestion = PinPrefix | UnpinPrefix | ListPrefixes | DropPrefixes | MapBlocks
ToEngine = StartEngine | SubmitRequest | AbortRequest | StopEngine | CacheQuestion
ToFront = EngineReady | EngineFailed | RequestRefused | StepStarted | StepFinished | EngineIdle | CacheAnswer


def encode_frame(message: ToEngine | ToFront) -> bytes:
    """A message as it goes over the socket: length, then MessagePack body."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Cuts a stream of bytes into messages of the given union of types.

    Raises:
        msgspec.MsgspecError, ValueError: from `feed`, when the peer sent something that is no message.
    """

    def __init__(self, message_type: object) -> None:
        self._decoder = msgspec.msgpack.Decoder(message_type)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[object]:
        """Take bytes as they came; yield the messages that are whole by now."""
        self._buffer += data
        start, end = 0, len(self._buffer)
        try:
            while end - start >= _LENGTH.size:
                (num_bytes,) = _LENGTH.unpack_from(self._buffer, start)
                if num_bytes > MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {num_bytes} bytes exceeds {MAX_FRAME_BYTES}")
                body_start = start + _LENGTH.size
                if end - body_start < num_bytes:
                    break
                body = bytes(memoryview(self._buffer)[body_start : body_start + num_bytes])
                start = body_start + num_bytes
                yield self._decoder.decode(body)
        finally:
            del self._buffer[:start]
