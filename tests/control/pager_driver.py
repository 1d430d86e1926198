"""Drives an engine over the fake executor through everything that can happen, and checks it all the time.

The next token is a hash of the whole prefix as read through the block tables, and empty blocks are made
unreadable after every step: a stale, lost or wrongly shared slot is a wrong token or an error at once.
"""

from __future__ import annotations

import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from octavo.control.cache.block_manager import BlockManager
from octavo.control.decoding.beam_search import BeamSearch
from octavo.control.engine import Engine
from octavo.control.scheduler.draft import StepDraft
from octavo.control.scheduler.policy import make_policy
from octavo.control.scheduler.preemption import PreemptionCost
from octavo.control.scheduler.scheduler import Scheduler
from octavo.errors import ContextLengthError, OverloadedError, RequestError
from octavo.request import FinishReason, Request, SequenceStatus, TokenDelta, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams
from octavo.step import SampleRequest
from tests.fake_executor import FakeExecutor, fake_candidates, fake_prompt_logprob, reference_output

VOCAB_SIZE = 23
EOS_TOKEN_IDS = (0,)
MAX_MODEL_LEN = 40
_PART_STEPS = 20_000
ENDED = (FinishReason.STOP, FinishReason.LENGTH)


@dataclass(frozen=True, kw_only=True)
class DriverConfig:
    """One engine's shape; pools so small that preemption is the rule."""

    num_blocks: int = 8
    block_size: int = 3
    max_num_seqs: int = 4
    extra_budget: int = 4
    prefix_caching: bool = True
    num_host_blocks: int = 0
    policy: str = "fcfs"

    @classmethod
    def random(cls, rng: random.Random) -> DriverConfig:
        return cls(
            num_blocks=rng.randint(4, 24),
            block_size=rng.randint(1, 5),
            max_num_seqs=rng.randint(1, 8),
            extra_budget=rng.randint(0, 12),
            prefix_caching=rng.random() < 0.8,
            num_host_blocks=rng.choice([0, 0, 3, 10, 40]),
            policy=rng.choice(["fcfs", "priority", "fair"]),
        )


class Stream:
    """One choice as its client sees it, beside what it must become."""

    def __init__(self, prompt: list[int], params: SamplingParams, expected: list[int]) -> None:
        self.prompt = prompt
        self.params = params
        self.expected = expected
        self.token_ids: list[int] = []
        self.prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
        self.finish_reason: FinishReason | None = None

    def feed(self, delta: TokenDelta) -> None:
        assert self.finish_reason is None, "a delta after the last one"
        if delta.prompt_logprobs is not None:
            assert not self.token_ids
            self.prompt_logprobs = delta.prompt_logprobs
        self.token_ids += delta.token_ids
        self.finish_reason = delta.finish_reason
        assert self.token_ids == self.expected[: len(self.token_ids)]
        if delta.finish_reason in ENDED:
            assert self.token_ids == self.expected
        self._check_prompt_logprobs(delta)

    def _check_prompt_logprobs(self, delta: TokenDelta) -> None:
        is_due = self.token_ids or delta.finish_reason is FinishReason.LENGTH
        if is_due and self.params.prompt_logprobs is not None:
            expected = [
                fake_prompt_logprob(self.prompt[:end], self.prompt[end]) for end in range(1, len(self.prompt))
            ]
            assert self.prompt_logprobs is not None and list(self.prompt_logprobs) == expected


class WatchedCost(PreemptionCost):
    """Swaps whenever a coin says so, so that both ways are taken."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(block_bytes=1)
        self._rng = rng

    def prefers_swap(self, num_tokens: int, num_blocks: int) -> bool:
        return self._rng.random() < 0.7


class PagerDriver:
    """Operations on one engine. Each leaves the cache's invariants checked."""

    def __init__(self, config: DriverConfig, seed: int = 0) -> None:
        self.config = config
        self.cache = BlockManager(
            config.num_blocks,
            config.block_size,
            prefix_caching=config.prefix_caching,
            num_host_blocks=config.num_host_blocks,
        )
        self.budget = config.max_num_seqs + config.extra_budget
        self.executor = FakeExecutor(config.num_blocks, config.block_size, VOCAB_SIZE, config.num_host_blocks)
        self.scheduler = Scheduler(
            self.cache,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=self.budget,
            policy=make_policy(config.policy, {"a": 2.0}),
            preemption_cost=WatchedCost(random.Random(seed)) if config.num_host_blocks else None,
        )
        self.engine = Engine(
            self.scheduler,
            self.executor,
            eos_token_ids=EOS_TOKEN_IDS,
            vocab_size=VOCAB_SIZE,
            max_model_len=MAX_MODEL_LEN,
            max_queued_requests=6,
        )
        self.streams: dict[tuple[str, int], Stream] = {}
        self.requests: list[Request] = []
        self.pin_ids: list[int] = []
        self.num_submitted = 0
        self.num_steps = 0
        self.num_idle_steps = 0
        self.seen: set[str] = set()  # what has happened at all, for tests that want it to

    # -- operations

    def submit(self, prompt: list[int], params: SamplingParams, service: ServiceParams) -> bool:
        """Whether the engine took the request."""
        self.num_submitted += 1
        request_id = str(self.num_submitted)
        try:
            request = self.engine.submit(request_id, list(prompt), params, service=service)
        except (ContextLengthError, OverloadedError, RequestError):
            return False
        self.requests.append(request)
        for index, expected in enumerate(expected_outputs(prompt, params, request.max_tokens)):
            self.streams[request_id, index] = Stream(prompt, params, expected)
        return True

    def abort(self, pick: int, index: int | None) -> None:
        if self.requests:
            self.engine.abort(self.requests[pick % len(self.requests)].request_id, index)
            self.cache.check_invariants()

    def preempt(self, pick: int) -> None:
        """Take somebody's blocks in the middle of everything: one sequence, or a whole request."""
        running = self.scheduler.roster.running.in_order()
        if not running:
            return
        request = running[pick % len(running)]
        if pick % 2:
            # What it moves is done by the next plan, as copies made while a plan is drawn are.
            draft = StepDraft(0, 0)
            self.scheduler._preempt_request(draft, request)
            if draft.block_copies:
                self.executor.copy_now(draft.block_copies)
        else:
            alive = [one for one in request.sequences if one.status is SequenceStatus.RUNNING]
            self.scheduler.roster.preempt(alive[pick % len(alive)])
        self.cache.check_invariants()

    def pin(self, prompt: list[int], salt: str) -> None:
        try:
            self.pin_ids.append(self.engine.cache.pin(prompt, ttl_seconds=1000.0, cache_salt=salt).pin_id)
        except RequestError:
            return
        self.seen.add("pin")
        self.cache.check_invariants()

    def unpin(self, pick: int) -> None:
        if self.pin_ids:
            try:
                self.engine.cache.unpin(self.pin_ids.pop(pick % len(self.pin_ids)))
            except RequestError:
                self.seen.add("pin given up")  # it had to make room
        self.cache.check_invariants()

    def drop(self) -> None:
        self.engine.cache.drop()
        self.pin_ids.clear()
        self.cache.check_invariants()
        assert self.cache.num_kept_blocks == 0

    def step(self) -> None:
        if not self.engine.has_work:
            return
        had_requests = self.engine.num_running + self.engine.num_waiting > 0
        computed_before = self.executor.num_tokens_computed
        for delta in self.engine.step():
            assert delta.finish_reason is not FinishReason.ERROR, delta.error
            self.streams[delta.request_id, delta.index].feed(delta)
        self.num_steps += 1
        trace = self.engine.last_step
        assert trace is not None
        num_tokens = self.executor.num_tokens_computed - computed_before
        assert num_tokens <= self.budget
        assert self.engine.num_running <= self.config.max_num_seqs
        assert trace.num_tokens == num_tokens
        # Beams that come back may only be moved in one step, and go on in the next.
        self.num_idle_steps = 0 if num_tokens or not had_requests else self.num_idle_steps + 1
        assert self.num_idle_steps < 2, "steps without progress"
        self._note(trace)
        self.cache.check_invariants()
        self.executor.poison(self.cache.pool.empty_block_ids)
        if self.cache.swap_space is not None:
            self.executor.poison_host(self.cache.swap_space.pool.empty_block_ids)
        self.requests = [request for request in self.requests if not request.is_finished]

    def finish(self) -> None:
        """Step to the end: far more steps than any order of preemptions could need."""
        for _ in range(5000):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "the engine does not come to an end"
        assert all(stream.finish_reason is not None for stream in self.streams.values())
        self.drop()
        assert self.cache.num_used_blocks == self.cache.num_used_host_blocks == 0
        assert self.engine.num_running == self.engine.num_waiting == self.scheduler.roster.num_swapped == 0
        assert len(self.scheduler.roster.queued) == self.scheduler.roster.queued.num_tokens == 0
        assert not self.scheduler.roster.queued.busy_keys

    def _note(self, trace: Any) -> None:
        if trace.num_swapped:
            self.seen.add("swap")
        if trace.num_preemptions:
            self.seen.add("preemption")
        if trace.sharing > 0:
            self.seen.add("sharing")
        if any(request.num_cached_tokens for request in self.requests):
            self.seen.add("hit")
        if any(len(one.sequences) > 1 and one.params.use_beam_search for one in self.requests):
            self.seen.add("beams")

    # -- at random

    def do_something(self, rng: random.Random) -> None:
        """One operation, drawn; mostly steps."""
        draw = rng.random()
        if draw < 0.25:
            prompt, params, service = random_request(rng)
            self.submit(prompt, params, service)
        elif draw < 0.28:
            self.abort(rng.randrange(1000), rng.choice([None, None, 0, 1]))
        elif draw < 0.33:
            self.preempt(rng.randrange(1000))
        elif draw < 0.35:
            self.pin(random_prompt(rng), rng.choice(["", "s"]))
        elif draw < 0.37:
            self.unpin(rng.randrange(1000))
        elif draw < 0.375:
            self.drop()
        else:
            self.step()


def random_prompt(rng: random.Random) -> list[int]:
    """One of a few trunks, cut somewhere, and perhaps a tail of its own: prefixes meet often."""
    trunk = [(rng.choice([3, 5]) * position) % VOCAB_SIZE for position in range(24)]
    tail = [rng.randrange(VOCAB_SIZE) for _ in range(rng.choice([0, 0, 1, 3]))]
    return (trunk[: rng.randint(0, 20)] + tail) or [1]


def random_request(rng: random.Random) -> tuple[list[int], SamplingParams, ServiceParams]:
    is_beam = rng.random() < 0.2
    n = rng.choice([1, 1, 1, 2, 3])
    fields: dict[str, Any] = {
        "n": n,
        "max_tokens": rng.choice([None, 1, 2, 5, 9, 14]),
        "ignore_eos": rng.random() < 0.5,
        "stop_token_ids": [rng.randrange(VOCAB_SIZE)] if rng.random() < 0.3 else [],
    }
    if is_beam:
        fields |= {
            "use_beam_search": True,
            "best_of": n + rng.randint(0, 2),
            "length_penalty": rng.choice([0.0, 1.0, 2.0]),
            "early_stopping": rng.choice([True, False, "never"]),
        }
    else:
        fields |= {
            "seed": rng.randrange(2**40),
            "min_tokens": min(rng.choice([0, 0, 2]), fields["max_tokens"] or 2),
            "prompt_logprobs": rng.choice([None, None, None, 0, 2]),
            "presence_penalty": rng.choice([0.0, 0.0, 0.5]),
        }
        if rng.random() < 0.05:
            fields |= {"max_tokens": 0, "min_tokens": 0}
    service = ServiceParams(
        priority=rng.randint(-1, 1),
        fairness_key=rng.choice(["", "a", "b"]),
        cache_salt=rng.choice(["", "", "s"]),
    )
    return random_prompt(rng), SamplingParams(**fields), service


def expected_outputs(prompt: list[int], params: SamplingParams, max_tokens: int) -> list[list[int]]:
    """What each choice must become, computed with no engine at all."""
    if params.use_beam_search:
        return expected_beams(prompt, params, max_tokens)
    return [
        reference_output(
            prompt,
            params,
            max_tokens=max_tokens,
            index=index,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=EOS_TOKEN_IDS,
        )
        for index in range(params.num_sequences)
    ]


def expected_beams(prompt: list[int], params: SamplingParams, max_tokens: int) -> list[list[int]]:
    """The same search over lists of tokens: no blocks, no sequences."""
    eos = frozenset(EOS_TOKEN_IDS)
    ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos)
    search = BeamSearch(params, max_tokens=max_tokens, end_token_ids=ends, eos_token_ids=eos)
    beams: list[list[int]] = [list(prompt)]
    while not search.is_finished:
        sample = SampleRequest(params, 0, 0, num_candidates=search.num_candidates)
        steps = search.advance([fake_candidates(beam, VOCAB_SIZE, sample) for beam in beams])
        beams = [[*beams[step.parent], step.token_id] for step in steps]
    return [list(best.token_ids) for best in search.best()]


def run_random(seed: int, num_steps: int, steps_per_engine: int = 400) -> set[str]:
    """At least `num_steps` steps of engines of random shapes. What has happened in them."""
    seen: set[str] = set()
    num_done, number = 0, 0
    while num_done < num_steps:
        rng = random.Random(f"{seed}/{number}")
        driver = PagerDriver(DriverConfig.random(rng), seed=number)
        try:
            while driver.num_steps < min(steps_per_engine, num_steps - num_done):
                driver.do_something(rng)
            driver.finish()
        except BaseException as error:
            error.add_note(f"engine {number} of seed {seed}: {driver.config}, step {driver.num_steps}")
            raise
        seen |= driver.seen
        num_done += driver.num_steps
        number += 1
    return seen


def main() -> None:
    """`python -m tests.control.pager_driver [STEPS] [SEED]`: random steps on all cores, with progress."""
    num_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    num_parts = max(1, num_steps // _PART_STEPS)
    seen: set[str] = set()
    with ProcessPoolExecutor() as pool:
        parts = [
            pool.submit(run_random, first_seed + part, num_steps // num_parts) for part in range(num_parts)
        ]
        for number, part in enumerate(as_completed(parts), start=1):
            seen |= part.result()
            print(
                f"{number * (num_steps // num_parts):,} of {num_steps:,} steps from seed {first_seed}",
                flush=True,
            )
    print("no wrong token, no broken invariant; seen: " + ", ".join(sorted(seen)))


if __name__ == "__main__":
    main()
