"""Which sequences run in the next step, and with how many tokens. Owns the queues and `Sequence.status`.

Iteration-level scheduling (Orca, OSDI 2022) with chunked prefill (Sarathi-Serve, arXiv:2403.02310).
May not touch tensors, text or clocks, and never appends tokens: that is the engine's.
"""

from __future__ import annotations

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.cache_size import blocks_for_tokens
from octavo.control.scheduler.draft import StepDraft, prompt_logprobs_border, slice_for
from octavo.control.scheduler.queues import PromptFollowers, WaitingQueue
from octavo.errors import ConfigError
from octavo.request import FinishReason, Request, Sequence, SequenceStatus


class Scheduler:
    """First come, first served, within a token budget, a sequence limit and the KV pool.

    A step holds, in this order: one token of every decoding sequence, chunks of prompts under way,
    and chunks of prompts that are admitted. When blocks run out, the sequence that came last loses
    its blocks and is recomputed later.

    Why it cannot deadlock: the oldest running sequence is preempted only when it runs alone, and alone
    it fits (the engine refuses what does not). While it decodes, it is planned first and takes blocks
    from all others; while it prefills, younger decodes can delay it only until they end or, finding
    no free block, give up their own, for nothing is admitted past it. With nothing running every
    block is free, so the first of the queue is admitted.

    The `n` continuations of a prompt: the first computes it; then the others fork its block table up
    to the last prompt token, which each computes itself to sample its own next token.

    Raises:
        ConfigError: more sequences may run than a step has tokens; decodes would not fit the step.
    """

    def __init__(
        self, block_manager: BlockManager, *, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        if not 1 <= max_num_seqs <= max_num_batched_tokens:
            raise ConfigError(
                f"max_num_seqs ({max_num_seqs}) must be from 1 to max_num_batched_tokens "
                f"({max_num_batched_tokens}): each running sequence needs a token a step"
            )
        self.block_manager = block_manager
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._running: dict[int, Sequence] = {}
        self._waiting = WaitingQueue()
        self._followers = PromptFollowers()
        self._unstarted_request_ids: set[str] = set()
        self._next_step_id = 0

    @property
    def num_running(self) -> int:
        """Sequences that hold a place in the steps."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait: new, preempted, or for the first of their request."""
        return len(self._waiting) + len(self._followers)

    @property
    def num_queued_requests(self) -> int:
        """Requests of which nothing has run yet."""
        return len(self._unstarted_request_ids)

    def add(self, request: Request) -> None:
        """Queue a request; it may join the next step. Its other sequences follow the first."""
        leader, *followers = request.sequences
        self._waiting.push(leader)
        self._followers.hold(leader, followers)
        self._unstarted_request_ids.add(request.request_id)

    def plan_step(self) -> StepDraft:
        """Choose the next step's slices and give them their slots. The plan may be empty."""
        draft = StepDraft(self._next_step_id, self._max_num_batched_tokens)
        self._next_step_id += 1
        prefills = self._plan_decodes(draft)
        self._plan_prefills(draft, prefills)
        self._admit_waiting(draft)
        return draft

    def advance(self, sequence: Sequence, num_tokens: int) -> None:
        """Record that the sequence's next `num_tokens` tokens are in the cache."""
        sequence.num_computed_tokens += num_tokens
        if sequence.num_computed_tokens >= sequence.num_prompt_tokens:
            for follower in self._followers.release(sequence):
                self._waiting.push(follower)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a live sequence, wherever it stands, and free what only it holds."""
        is_running = self._running.pop(sequence.sequence_id, None) is not None
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        elif not is_running:
            self._followers.remove(sequence)
        orphans = self._followers.release(sequence)
        if orphans:
            self._waiting.push(orphans[0])
            self._followers.hold(orphans[0], orphans[1:])
        if is_running:
            # A sequence that broke may have left anything in its blocks; nobody inherits those.
            if reason is not FinishReason.ERROR:
                self._hand_over(sequence)
            self._release(sequence)
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        if sequence.request.is_finished:
            self._unstarted_request_ids.discard(sequence.request.request_id)

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's blocks away; it waits at its place by arrival to be recomputed."""
        del self._running[sequence.sequence_id]
        self._release(sequence)
        sequence.num_computed_tokens = 0
        sequence.num_preemptions += 1
        sequence.status = SequenceStatus.PREEMPTED
        self._waiting.push(sequence)

    # -- planning

    def _plan_decodes(self, draft: StepDraft) -> list[Sequence]:
        """Plan a token for each decoding sequence, oldest first; return those that prefill."""
        prefills: list[Sequence] = []
        for sequence_id in sorted(self._running):
            sequence = self._running.get(sequence_id)
            if sequence is None:  # preempted for an older one
                continue
            if sequence.num_uncomputed_tokens != 1:
                prefills.append(sequence)
                continue
            while not self.block_manager.can_append(sequence_id, 1):
                # Ids grow with arrival and the loop goes upwards, so the youngest is not planned yet.
                youngest = self._running[max(self._running)]
                self._preempt_for_room(draft, youngest)
                if youngest is sequence:
                    break
            else:
                self._place(draft, sequence, 1)
        return [sequence for sequence in prefills if sequence.status is SequenceStatus.RUNNING]

    def _plan_prefills(self, draft: StepDraft, prefills: list[Sequence]) -> None:
        """Plan chunks of the prompts under way, oldest first, as far as budget and blocks go."""
        pending = list(prefills)
        while pending and draft.token_budget:
            sequence = pending.pop(0)
            while pending and self.block_manager.max_appendable(sequence.sequence_id) == 0:
                self._preempt_for_room(draft, pending.pop())
            room = self.block_manager.max_appendable(sequence.sequence_id)
            if room:
                self._place(draft, sequence, min(room, self._chunk_size(draft, sequence)))

    def _admit_waiting(self, draft: StepDraft) -> None:
        """Let waiting sequences join, in order of arrival, while they fit with a margin.

        The margin is one block for each running sequence: what all of them together can grow by in
        the next `block_size` steps. An admission is therefore never followed by a preemption within
        `block_size` steps, in which every running sequence gains that many tokens: admitting and
        preempting in turn cannot eat up the progress. A sequence that runs alone needs no margin.
        """
        joined: set[int] = set()
        reserved_blocks = sum(map(self._missing_blocks, self._running.values()))
        while draft.token_budget and len(self._running) < self._max_num_seqs:
            sequence = self._waiting.peek()
            if sequence is None:
                return
            donor = self._find_donor(sequence, joined)
            needed_blocks = blocks_for_tokens(sequence.num_tokens, self.block_manager.block_size)
            if donor is not None:
                needed_blocks -= (sequence.num_prompt_tokens - 1) // self.block_manager.block_size
            margin = len(self._running) + 1 if self._running else 0
            if needed_blocks + reserved_blocks + margin > self.block_manager.num_free_blocks:
                return
            self._waiting.remove(sequence)
            self._start(sequence, donor)
            joined.add(sequence.sequence_id)
            self._place(draft, sequence, self._chunk_size(draft, sequence))
            # More than 0 only where something else than the budget cut the chunk.
            reserved_blocks += self._missing_blocks(sequence)

    def _chunk_size(self, draft: StepDraft, sequence: Sequence) -> int:
        """How many tokens of a prompt to compute in this step, were there blocks for all."""
        num_tokens = min(sequence.num_uncomputed_tokens, draft.token_budget)
        border = prompt_logprobs_border(sequence)
        return num_tokens if border is None else min(num_tokens, border - sequence.num_computed_tokens)

    def _missing_blocks(self, sequence: Sequence) -> int:
        """Blocks that the sequence's known tokens still lack: more than 0 only while it prefills."""
        needed = blocks_for_tokens(sequence.num_tokens, self.block_manager.block_size)
        return needed - self.block_manager.num_table_blocks(sequence.sequence_id)

    def _place(self, draft: StepDraft, sequence: Sequence, num_tokens: int) -> None:
        """Give the sequence's next tokens slots and a slice. Its own faults end it and nobody else."""
        try:
            copies = self.block_manager.append_slots(sequence.sequence_id, num_tokens)
            block_ids = self.block_manager.block_ids(sequence.sequence_id)
            draft.add(sequence, slice_for(sequence, num_tokens, block_ids), copies)
        except Exception as error:
            draft.faults.append((sequence, f"could not be scheduled: {type(error).__name__}: {error}"))
            self.finish(sequence, FinishReason.ERROR)

    def _preempt_for_room(self, draft: StepDraft, sequence: Sequence) -> None:
        self.preempt(sequence)
        draft.num_preemptions += 1

    # -- sequences of one request

    def _start(self, sequence: Sequence, donor: Sequence | None) -> None:
        """Make the sequence run; with a donor, its prompt but the last token is there already."""
        if donor is not None:
            num_shared_tokens = sequence.num_prompt_tokens - 1
            self.block_manager.fork(donor.sequence_id, sequence.sequence_id, num_shared_tokens)
            sequence.num_computed_tokens = num_shared_tokens
            sequence.prompt_logprobs = list(donor.prompt_logprobs)
        sequence.status = SequenceStatus.RUNNING
        self._running[sequence.sequence_id] = sequence
        self._unstarted_request_ids.discard(sequence.request.request_id)

    def _find_donor(self, sequence: Sequence, joined: set[int]) -> Sequence | None:
        """A running sequence of the same request that has the prompt in the cache.

        Not one that `joined` in this step: its last prompt block may be the target of a copy that has
        not been made yet, and a plan's copies may not build on each other.
        """
        if len(sequence.request.sequences) == 1:
            return None
        for sibling in sequence.request.sequences:
            if (
                sibling.status is SequenceStatus.RUNNING
                and sibling.sequence_id not in joined
                and sibling.num_computed_tokens >= sequence.num_prompt_tokens - 1
            ):
                return sibling
        return None

    def _hand_over(self, sequence: Sequence) -> None:
        """Leave an ending sequence's prompt, and its place in the steps, to a sibling that waits.

        Otherwise a request whose first continuation ends at once (`max_tokens=1`) would compute its
        prompt again. The heir runs from now on, so that no waiting sequence ever holds blocks.
        """
        siblings = sequence.request.sequences
        if len(siblings) == 1 or sequence.num_computed_tokens < sequence.num_prompt_tokens:
            return
        heir = next((sibling for sibling in siblings if sibling in self._waiting), None)
        if heir is not None and self._find_donor(heir, {sequence.sequence_id}) is None:
            self._waiting.remove(heir)
            self._start(heir, sequence)

    def _release(self, sequence: Sequence) -> None:
        if self.block_manager.num_table_blocks(sequence.sequence_id):
            self.block_manager.release(sequence.sequence_id)
