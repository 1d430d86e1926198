"""A real engine on a real model that keeps a digest of every row of logits it samples from.

Nothing of the arithmetic is replaced: the sampler is looked at just before it chooses.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octavo.compute.executor.in_process import InProcessExecutor
from octavo.compute.executor.worker import Worker
from octavo.control.cache.block_manager import BlockManager
from octavo.control.engine import Engine
from octavo.control.scheduler.draft import StepDraft
from octavo.control.scheduler.preemption import PreemptionCost
from octavo.control.scheduler.scheduler import Scheduler
from octavo.control.step_trace import StepTrace
from octavo.request import FinishReason, Request, Sequence, TokenDelta, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams
from octavo.step import SampleRequest, StepPlan, StepResult


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that several runs make."""

    name: str
    prompt: tuple[int, ...]
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class Trail:
    """What one choice came to: two of them are equal only if every row of logits is, in every bit.

    Attributes:
        token_ids: the output.
        logprobs: one entry a token, where asked for.
        rows: digest of the logits behind each token.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    rows: tuple[bytes, ...]

    def after(self, num_tokens: int) -> Trail:
        """What a request comes to whose prompt ends with the first tokens of this output."""
        return Trail(self.token_ids[num_tokens:], self.logprobs[num_tokens:], self.rows[num_tokens:])


class RecordingSampler:
    """A sampler that takes the digest of its rows before it edits them."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._digests: list[bytes] = []

    def needs_only_largest(self, requests: list[SampleRequest]) -> bool:
        return False  # the digests are of logits

    def sample(self, logits: Tensor, requests: list[SampleRequest]) -> Any:
        rows = logits.contiguous().numpy()
        self._digests += [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]
        return self._sampler.sample(logits, requests)

    def take(self) -> list[bytes]:
        digests, self._digests = self._digests, []
        return digests


class RecordingExecutor(InProcessExecutor):
    """Keeps the plans' lengths, and which row belongs to which place of which sequence.

    Attributes:
        rows: (sequence id, position of the token that is chosen) -> digest.
        beam_rows: position -> digests of all beams there, in their order; of runs with one beam search.
        chunks: numbers of tokens of the slices of prompts.
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        assert worker._runner is not None
        self._sampler = RecordingSampler(worker._runner._sampler)
        worker._runner._sampler = self._sampler  # type: ignore[assignment]
        self.rows: dict[tuple[int, int], bytes] = {}
        self.beam_rows: dict[int, list[bytes]] = defaultdict(list)
        self.chunks: list[int] = []

    def collect(self) -> StepResult:
        plan = self._plans[0]
        result = super().collect()
        self._record(plan)
        return result

    def _record(self, plan: StepPlan) -> None:
        self.chunks += [len(piece.token_ids) for piece in plan.slices]
        sampled = [(piece.sequence_id, piece.sample) for piece in plan.slices if piece.sample is not None]
        for (sequence_id, sample), digest in zip(sampled, self._sampler.take(), strict=True):
            if sample.num_candidates:
                self.beam_rows[sample.position].append(digest)
            else:
                assert (sequence_id, sample.position) not in self.rows, "sampled twice"
                self.rows[sequence_id, sample.position] = digest


class AlwaysSwap(PreemptionCost):
    """Swaps whenever there is room."""

    def __init__(self) -> None:
        super().__init__(block_bytes=1)

    def prefers_swap(self, num_tokens: int, num_blocks: int) -> bool:
        return True


class RestlessScheduler(Scheduler):
    """Preempts a running request before every third step, each in its turn: as if blocks had run out."""

    def _plan_decodes(self, draft: StepDraft) -> list[Sequence]:
        running = self.roster.running.in_order()
        if draft.step_id % 3 == 2 and running:
            self._preempt_request(draft, running[draft.step_id % len(running)])
        return super()._plan_decodes(draft)


class RecordedEngine:
    """An engine with its parts at hand. Its cache holds NaN until it is written."""

    def __init__(
        self,
        loaded: Worker,
        *,
        num_blocks: int = 160,
        block_size: int = 16,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int = 1024,
        prefix_caching: bool = False,
        num_host_blocks: int = 0,
        make_scheduler: Callable[..., Scheduler] = Scheduler,
    ) -> None:
        worker = copy(loaded)  # the same model, with a cache of its own
        worker.allocate_kv(num_blocks, block_size, num_host_blocks=num_host_blocks)
        assert worker._runner is not None
        for keys, values in worker._runner._kv_storage.layers:
            keys.fill_(torch.nan)
            values.fill_(torch.nan)
        self.executor = RecordingExecutor(worker)
        self.cache = BlockManager(
            num_blocks, block_size, prefix_caching=prefix_caching, num_host_blocks=num_host_blocks
        )
        self.scheduler = make_scheduler(
            self.cache,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            preemption_cost=AlwaysSwap() if num_host_blocks else None,
        )
        self.engine = Engine(
            self.scheduler,
            self.executor,
            eos_token_ids=[],
            vocab_size=worker._decoder.spec.vocab_size,
            max_model_len=1024,
            max_queued_requests=1024,
        )
        self.requests: dict[str, Request] = {}
        self.deltas: dict[tuple[str, int], list[TokenDelta]] = defaultdict(list)
        self.traces: list[StepTrace] = []
        self._sequence_ids: dict[tuple[str, int], int] = {}

    def submit(self, wish: Wish, *, cache_salt: str = "") -> str:
        """The id of the request, which differs even where the wish is the same."""
        request_id = f"{wish.name}#{len(self.requests)}"
        service = ServiceParams(cache_salt=cache_salt)
        request = self.engine.submit(request_id, list(wish.prompt), wish.params, service=service)
        self.requests[request_id] = request
        for sequence in request.sequences:
            self._sequence_ids[request_id, sequence.index] = sequence.sequence_id
        return request_id

    def step(self) -> None:
        for delta in self.engine.step():
            assert delta.finish_reason in (None, FinishReason.LENGTH), (delta.finish_reason, delta.error)
            self.deltas[delta.request_id, delta.index].append(delta)
        assert self.engine.last_step is not None
        self.traces.append(self.engine.last_step)
        self.cache.check_invariants()

    def finish(self) -> None:
        while self.engine.has_work:
            self.step()

    def run(self, arrivals: Mapping[int, Iterable[Wish]]) -> list[tuple[Wish, str]]:
        """Submit wishes before the steps given, to the end of all. Each wish and its request's id."""
        made = []
        for step in range(max(arrivals) + 1):
            made += [(wish, self.submit(wish)) for wish in arrivals.get(step, ())]
            if self.engine.has_work:
                self.step()
        self.finish()
        return made

    def trail(self, request_id: str, index: int = 0) -> Trail:
        """What a choice has come to."""
        deltas = self.deltas[request_id, index]
        token_ids = tuple(token_id for delta in deltas for token_id in delta.token_ids)
        first = len(self.requests[request_id].prompt_token_ids)
        sequence_id = self._sequence_ids[request_id, index]
        return Trail(
            token_ids,
            tuple(entry for delta in deltas for entry in delta.logprobs or ()),
            tuple(self.executor.rows[sequence_id, first + place] for place in range(len(token_ids))),
        )

    def num_cached_tokens(self, request_id: str) -> int:
        return self.deltas[request_id, 0][-1].num_cached_tokens

    @property
    def num_preemptions(self) -> int:
        return sum(trace.num_preemptions for trace in self.traces)

    @property
    def max_running(self) -> int:
        return max(trace.num_running for trace in self.traces)
