"""What travels between the front process and the engine process: msgspec structs, never pickle.

Each frame on the Unix socket is a 4-byte little-endian length and a MessagePack body. Both sides
decode into these closed types; a frame that does not fit is a fault of the peer, not of a client.
"""

from __future__ import annotations

import msgspec

from octavo.config import EngineConfig
from octavo.request import TokenDelta
from octavo.sampling_params import SamplingParams

MAX_FRAME_BYTES = 256 * 2**20


class StartEngine(msgspec.Struct, tag="start"):
    """First message to the engine process: load this model."""

    config: EngineConfig


class SubmitRequest(msgspec.Struct, tag="submit"):
    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()


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


class EngineFailed(msgspec.Struct, tag="failed"):
    """The engine could not start or cannot go on. `exit_code` is what the front should exit with."""

    message: str
    exit_code: int


class RequestRefused(msgspec.Struct, tag="refused"):
    """The engine would not take a request (it can never fit)."""

    request_id: str
    message: str
    param: str | None = None


class StepStarted(msgspec.Struct, tag="step_started"):
    """Heartbeat: a step began; a live engine finishes it in about `expected_seconds`."""

    step_id: int
    num_tokens: int
    expected_seconds: float


class StepFinished(msgspec.Struct, tag="step_finished"):
    """A step ended: the tokens it brought and the engine's state after it."""

    step_id: int
    deltas: list[TokenDelta]
    stats: StepStats


class StepStats(msgspec.Struct):
    """State of scheduler and cache after a step.

    `waste` is reserved but empty slots over used slots; time spans are in seconds.
    """

    num_running: int
    num_waiting: int
    blocks_used: int
    blocks_free: int
    waste: float
    num_tokens: int
    num_preemptions: int
    step_seconds: float


ToEngine = StartEngine | SubmitRequest | AbortRequest | StopEngine
ToFront = EngineReady | EngineFailed | RequestRefused | StepStarted | StepFinished
