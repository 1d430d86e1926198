"""Scheduler and cache under random load: whatever happens, every output is what it would be alone."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from octavo.control.cache.block_manager import BlockManager
from octavo.control.engine import Engine
from octavo.control.scheduler.scheduler import Scheduler
from octavo.errors import ContextLengthError, OverloadedError
from octavo.request import FinishReason, Request, Sequence, SequenceStatus, TokenDelta, TokenLogprobs
from octavo.sampling_params import SamplingParams
from tests.fake_executor import FakeExecutor, fake_prompt_logprob, reference_output

VOCAB_SIZE = 23
EOS_TOKEN_IDS = (0,)
MAX_MODEL_LEN = 40


class Stream:
    """One sequence as its client sees it."""

    def __init__(self, prompt: list[int], params: SamplingParams, max_tokens: int, index: int) -> None:
        self.prompt = prompt
        self.params = params
        self.expected = reference_output(
            prompt,
            params,
            max_tokens=max_tokens,
            index=index,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=EOS_TOKEN_IDS,
        )
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
        if delta.finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
            assert self.token_ids == self.expected
        if (self.token_ids or delta.finish_reason is FinishReason.LENGTH) and (
            self.params.prompt_logprobs is not None
        ):
            expected = [
                fake_prompt_logprob(self.prompt[:end], self.prompt[end]) for end in range(1, len(self.prompt))
            ]
            assert self.prompt_logprobs is not None
            assert list(self.prompt_logprobs) == expected


class EngineMachine(RuleBasedStateMachine):
    """Submits, steps and aborts at random, with pools so small that preemption is the rule."""

    @initialize(
        num_blocks=st.integers(4, 14),
        block_size=st.integers(1, 5),
        max_num_seqs=st.integers(1, 6),
        extra_budget=st.integers(0, 12),
    )
    def build(self, num_blocks: int, block_size: int, max_num_seqs: int, extra_budget: int) -> None:
        self.cache = BlockManager(num_blocks, block_size)
        self.budget = max_num_seqs + extra_budget
        self.max_num_seqs = max_num_seqs
        self.executor = FakeExecutor(num_blocks, block_size, VOCAB_SIZE)
        self.scheduler = Scheduler(self.cache, max_num_seqs=max_num_seqs, max_num_batched_tokens=self.budget)
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
        self.num_submitted = 0

    @rule(
        prompt=st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=20),
        n=st.integers(1, 4),
        max_tokens=st.one_of(st.none(), st.integers(0, 12)),
        min_tokens=st.integers(0, 3),
        stop_token_ids=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=1),
        ignore_eos=st.booleans(),
        prompt_logprobs=st.sampled_from([None, None, 0, 2]),
        presence_penalty=st.sampled_from([0.0, 0.5]),
        seed=st.integers(0, 2**40),
    )
    def submit(self, prompt: list[int], max_tokens: int | None, min_tokens: int, **fields: object) -> None:
        if max_tokens is not None:
            min_tokens = min(min_tokens, max_tokens)
        params = SamplingParams(max_tokens=max_tokens, min_tokens=min_tokens, **fields)  # type: ignore[arg-type]
        request_id = f"r{self.num_submitted}"
        try:
            request = self.engine.submit(request_id, prompt, params)
        except (ContextLengthError, OverloadedError):
            return
        self.num_submitted += 1
        self.requests.append(request)
        for index in range(params.n):
            self.streams[request_id, index] = Stream(prompt, params, request.max_tokens, index)

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._step_once()

    @precondition(lambda self: self.engine.num_running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        """Preempt anyone, not only whom the scheduler would: between steps it must always be right."""
        running = self._running_sequences()
        self.scheduler.roster.preempt(data.draw(st.sampled_from(running)))

    @precondition(lambda self: self.num_submitted)
    @rule(choice=st.integers(0, 2**16), index=st.sampled_from([None, None, 0, 1, 2]))
    def abort(self, choice: int, index: int | None) -> None:
        request_id = f"r{choice % self.num_submitted}"
        self.engine.abort(request_id, index)
        for _ in range(2):  # the blocks are back, and the last delta is out, within two steps
            self._step_once()
        for (stream_id, stream_index), stream in self.streams.items():
            if stream_id == request_id and index in (None, stream_index):
                assert stream.finish_reason is not None

    @invariant()
    def cache_is_consistent(self) -> None:
        if hasattr(self, "cache"):
            self.cache.check_invariants()
            if not self.engine.has_work:
                assert self.cache.num_used_blocks == 0
                assert self.engine.num_running == self.engine.num_waiting == 0

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        # Far more than any order of preemptions could need; not ending means a deadlock.
        for _ in range(5000):
            if not self.engine.has_work:
                break
            self._step_once()
        assert not self.engine.has_work, "the engine does not come to an end"
        assert all(stream.finish_reason is not None for stream in self.streams.values())
        assert self.cache.num_used_blocks == 0

    def _running_sequences(self) -> list[Sequence]:
        return [
            sequence
            for request in self.requests
            for sequence in request.sequences
            if sequence.status is SequenceStatus.RUNNING
        ]

    def _step_once(self) -> None:
        had_requests = self.engine.num_running + self.engine.num_waiting > 0
        computed_before = self.executor.num_tokens_computed
        for delta in self.engine.step():
            assert delta.finish_reason is not FinishReason.ERROR, delta.error
            self.streams[delta.request_id, delta.index].feed(delta)
        trace = self.engine.last_step
        num_tokens = self.executor.num_tokens_computed - computed_before
        assert num_tokens <= self.budget
        assert self.engine.num_running <= self.max_num_seqs
        if had_requests:
            assert num_tokens > 0, "a step without progress"
            assert trace is not None and trace.num_tokens == num_tokens
        self.cache.check_invariants()
        self.executor.poison(self.cache.pool.empty_block_ids)


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(
    max_examples=300,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
