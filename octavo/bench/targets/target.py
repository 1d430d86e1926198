"""What every engine under test looks like to a benchmark. Owns the vocabulary; knows no engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from octavo.errors import OctavoError


class Ability(StrEnum):
    """What a target can do; an experiment that needs more leaves it out and says so."""

    STREAM = "stream"  # chunks arrive while the request runs
    TOKEN_IDS = "token_ids"  # takes prompts as token ids and tells those of its output
    IGNORE_EOS = "ignore_eos"  # outputs are exactly as long as asked
    CONTINUOUS = "continuous"  # a request may join while others run
    SAMPLES = "samples"  # several samples of one prompt
    BEAM = "beam"
    STEPS = "steps"  # tells what each of its steps did
    CACHE_RESET = "cache_reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """One greedy request of an exact length.

    Attributes:
        prompt_token_ids: what is sent; targets without Ability.TOKEN_IDS send `prompt_text`.
        num_output_tokens: exactly so many, EOS ignored.
        num_samples: outputs of the same prompt, drawn at temperature 1 where more than one.
        beam_width: 0 for no beam search.
    """

    request_id: str
    prompt_token_ids: Sequence[int]
    prompt_text: str
    num_output_tokens: int
    num_samples: int = 1
    beam_width: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What arrived at once.

    Attributes:
        arrival_ns: time.monotonic_ns() of the client when it came.
        num_tokens: output tokens in it, of all samples; 0 where a target does not say before the end.
        token_ids: theirs, where the target tells them.
    """

    arrival_ns: int
    num_tokens: int
    text: str = ""
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDescription:
    """One column of the fairness table. "unknown" is an honest entry.

    Attributes:
        weights: file or folder and number format, for example "SmolLM2-135M-Instruct.Q4_1.gguf, Q4_1 + Q8_0".
        compute_format: in what its products are calculated, as far as is known.
        flags: every setting that was given to it, as on a command line.
    """

    name: str
    engine: str
    version: str
    weights: str
    compute_format: str
    kv_format: str
    kv_bytes: int | None
    num_threads: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    prefix_caching: bool | None
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStep:
    """What one step of a target did; times are time.monotonic_ns() of its machine.

    Attributes:
        blocks_used, blocks_free: KV blocks after it; of the free ones, `blocks_cached` hold a known prefix.
        blocks_shared: blocks that sharing saves: what would be used more without it.
    """

    start_ns: int
    end_ns: int
    num_running: int
    num_waiting: int
    num_prefill_tokens: int
    num_decode_tokens: int
    blocks_used: int
    blocks_shared: int
    blocks_cached: int
    blocks_free: int
    num_preemptions: int


class TargetError(OctavoError):
    """A target could not be started, or broke: one line, with what to do."""


class Target(Protocol):
    """An engine under test. Used from one event loop; `start` comes first and `stop` last."""

    @property
    def name(self) -> str: ...

    @property
    def abilities(self) -> frozenset[Ability]: ...

    async def start(self) -> TargetDescription:
        """Load the model and be ready for requests. Raises TargetError."""
        ...

    def generate(self, request: BenchRequest) -> AsyncIterator[Chunk]:
        """Run one request; many may run at once. Raises TargetError, in the course of it, where it fails."""
        ...

    async def generate_batch(self, requests: Sequence[BenchRequest]) -> Sequence[Sequence[Chunk]]:
        """All at once, to the end: for each request its chunks. For throughput, and for static batching."""
        ...

    async def stats(self) -> Mapping[str, float]:
        """What it counts itself: peak_rss_bytes, prefix_hit_tokens, preemptions ...; may be empty."""
        ...

    async def take_steps(self) -> Sequence[TargetStep]:
        """Steps since the last call; empty without Ability.STEPS."""
        ...

    async def reset(self) -> None:
        """Forget cached prefixes, where the target can (Ability.CACHE_RESET)."""
        ...

    async def stop(self) -> None:
        """Give everything back; may be called after a failure, and twice."""
        ...


@runtime_checkable
class Pausable(Protocol):
    """A target in processes of its own, which can be held still while others are measured."""

    def pause(self) -> None:
        """Nothing of it runs until `resume`."""
        ...

    def resume(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """What happened to one request of a run. Times are time.monotonic_ns(); None: did not happen.

    Attributes:
        scheduled_ns: when it was due; latencies count from here, so that a slow server cannot hide its queue.
        chunk_ns, chunk_tokens: arrival of each chunk that held tokens, and how many.
        error: one line where it failed or timed out.
    """

    request_id: str
    num_prompt_tokens: int
    num_requested_tokens: int
    scheduled_ns: int
    sent_ns: int | None = None
    end_ns: int | None = None
    chunk_ns: list[int] = field(default_factory=list)
    chunk_tokens: list[int] = field(default_factory=list)
    error: str | None = None

    @property
    def num_output_tokens(self) -> int:
        return sum(self.chunk_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run of one workload against one target: the unit of replication.

    Attributes:
        block: which randomised block of the experiment it belongs to.
        stats: the target's own counts, after the run less before it.
    """

    target: str
    workload: str
    block: int
    started_ns: int
    ended_ns: int
    requests: list[RequestRecord]
    steps: list[TargetStep] = field(default_factory=list)
    stats: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
