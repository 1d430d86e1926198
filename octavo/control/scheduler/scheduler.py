"""Which sequences run in the next step, and with how many tokens. Owns the step's order and budget.

Iteration-level scheduling (Orca, OSDI 2022) with chunked prefill (Sarathi-Serve, arXiv:2403.02310).
May not touch tensors, text or clocks, and never appends tokens: that is the engine's.
"""

from __future__ import annotations

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.cache_size import blocks_for_tokens
from octavo.control.cache.pins import PrefixPins
from octavo.control.scheduler.admission import (
    Entry,
    entry_of,
    is_being_computed,
    without_part,
)
from octavo.control.scheduler.budget import TokenBudget
from octavo.control.scheduler.draft import StepDraft, decode_slice, prompt_logprobs_border, slice_for
from octavo.control.scheduler.policy import FirstComeFirstServed, Policy
from octavo.control.scheduler.preemption import PreemptionCost
from octavo.control.scheduler.roster import Roster
from octavo.control.scheduler.running import is_beam_group, running_sequences
from octavo.errors import ConfigError
from octavo.request import FinishReason, Request, Sequence, SequenceStatus
from octavo.step import CopyKind, StepResult

_RUNNING, _SWAPPED = SequenceStatus.RUNNING, SequenceStatus.SWAPPED


class Scheduler:
    """A policy's order, within a token budget, a sequence limit and the KV pool.

    A step holds, in this order: one token of every decoding sequence, chunks of prompts under way,
    and chunks of prompts that are admitted. So a running sequence that decodes gets a token in every
    step, however long the prompts beside it: the gap is one step. When blocks run out, the request that
    comes last in the policy's order loses its blocks, and is swapped in or recomputed later.

    Why it cannot deadlock: the first running request is preempted only when it runs alone, and alone
    it fits (the engine refuses what does not; pins are given up before). While it decodes, it is planned
    first and takes blocks from all others; while it prefills, later decodes can delay it only until they
    end or, finding no free block, give up their own, for nothing is admitted past it. With nothing
    running every block is free, so the first of the queue is admitted.

    The `n` continuations of a prompt: the first computes it; then the others fork its block table up
    to the last prompt token, which each computes itself to sample its own next token. The beams of a
    beam search step together: none of them goes on before all have caught up.

    Raises:
        ConfigError: more sequences may run than a step has tokens; decodes would not fit the step.
    """

    def __init__(
        self,
        block_manager: BlockManager,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        policy: Policy | None = None,
        target_itl_seconds: float | None = None,
        preemption_cost: PreemptionCost | None = None,
    ) -> None:
        if not 1 <= max_num_seqs <= max_num_batched_tokens:
            raise ConfigError(
                f"max_num_seqs ({max_num_seqs}) must be from 1 to max_num_batched_tokens "
                f"({max_num_batched_tokens}): each running sequence needs a token a step"
            )
        self.block_manager = block_manager
        self.pins = PrefixPins(block_manager)
        self.max_num_seqs = max_num_seqs
        self.policy = policy or FirstComeFirstServed()
        self.budget = TokenBudget(max_num_batched_tokens, target_itl_seconds)
        self.roster = Roster(block_manager, self.policy)
        self._preemption_cost = preemption_cost
        self._running = self.roster.running
        self._next_step_id = 0

    def plan_step(self) -> StepDraft:
        """Choose the next step's slices and give them their slots. The plan may be empty."""
        draft = StepDraft(self._next_step_id, 0)
        self._next_step_id += 1
        if self.policy.displaces:
            self._displace(draft)
        draft.token_budget = self.budget.tokens(self._running.num_sequences)
        prefills = self._plan_decodes(draft)
        self._plan_prefills(draft, prefills)
        self._admit_waiting(draft, prefills)
        return draft

    def learn(self, draft: StepDraft, result: StepResult, step_seconds: float) -> None:
        """Take in how long a step took: for the budget, and for what preemption costs."""
        num_tokens = draft.num_prefill_tokens + draft.num_decode_tokens
        self.budget.observe(num_tokens, step_seconds)
        if self._preemption_cost is not None:
            self._preemption_cost.observe_step(num_tokens, result.compute_seconds - result.copy_seconds)
            num_swaps = sum(copy.kind is not CopyKind.WITHIN for copy in draft.block_copies)
            if num_swaps == len(draft.block_copies):
                self._preemption_cost.observe_copies(num_swaps, result.copy_seconds)

    # -- planning what runs

    def _plan_decodes(self, draft: StepDraft) -> list[Sequence]:
        """Plan a token for each decoding sequence, in the policy's order; return those that prefill."""
        prefills: list[Sequence] = []
        append_token = self.block_manager.append_token
        # This loop is what a step of thousands of sequences costs: most of them are done with here.
        slices, sequences, num_quick = draft.slices, draft.sequences, 0
        for request in self._running.in_order():
            sequence = request.sequences[0]
            if len(request.sequences) > 1 or sequence.status is not _RUNNING:
                self._plan_group(draft, request, prefills)
            elif len(sequence.token_ids) - sequence.num_computed_tokens != 1:
                prefills.append(sequence)
            elif sequence.num_computed_tokens < sequence.num_prompt_tokens:
                self._decode(draft, request, [sequence])
            elif (block_ids := append_token(sequence.sequence_id)) is not None:
                slices.append(decode_slice(sequence, block_ids))
                sequences.append(sequence)
                num_quick += 1
            else:
                self._decode(draft, request, [sequence])
        draft.count_decodes(num_quick)
        return [sequence for sequence in prefills if sequence.status is _RUNNING]

    def _plan_group(self, draft: StepDraft, request: Request, prefills: list[Sequence]) -> None:
        """Sort a request's running sequences (none, if it was preempted) into decodes and prefills."""
        running = running_sequences(request)
        ready = [one for one in running if one.num_uncomputed_tokens == 1]
        prefills += [one for one in running if one.num_uncomputed_tokens != 1]
        # Beams wait until all of them can go on.
        if ready and not (is_beam_group(request) and len(ready) < len(request.sequences)):
            self._decode(draft, request, ready)

    def _decode(self, draft: StepDraft, request: Request, ready: list[Sequence]) -> None:
        """Plan the next token of a request's sequences, all or none; others make room if they must."""
        append = self.block_manager.blocks_to_append
        while True:
            if sum(append(one.sequence_id, 1) for one in ready) <= self.block_manager.num_free_blocks:
                break
            last = self._running.last()
            if last is not request:
                self._preempt_request(draft, last)
            elif self._running.num_requests == 1 and self.pins.drop_soonest():
                pass
            elif self._running.num_requests == 1 and len(ready) > 1 and not request.params.use_beam_search:
                self._preempt_for_room(draft, ready.pop())
            else:
                self._preempt_request(draft, request)
                return
        for sequence in ready:
            self._place(draft, sequence, 1)

    def _plan_prefills(self, draft: StepDraft, prefills: list[Sequence]) -> None:
        """Plan chunks of the prompts under way, in order, as far as budget and blocks go."""
        pending = list(prefills)
        while pending and draft.token_budget > 0:
            sequence = pending.pop(0)
            num_tokens = self._chunk_size(draft, sequence)
            if num_tokens == 0:
                continue
            while self.block_manager.max_appendable(sequence.sequence_id) == 0:
                if pending and not (
                    pending[-1].request is sequence.request and is_beam_group(sequence.request)
                ):
                    self._preempt_for_room(draft, pending[-1])
                    pending = [one for one in pending if one.status is _RUNNING]
                elif self._running.num_requests > 1 or not self.pins.drop_soonest():
                    break
            room = self.block_manager.max_appendable(sequence.sequence_id)
            if room:
                self._place(draft, sequence, min(room, num_tokens))

    def _chunk_size(self, draft: StepDraft, sequence: Sequence) -> int:
        """How many tokens of a prompt to compute in this step, were there blocks for all."""
        num_tokens = sequence.num_uncomputed_tokens
        if is_beam_group(sequence.request):
            num_tokens -= 1  # the last is for the step that all beams take together
        num_tokens = min(num_tokens, draft.token_budget)
        border = prompt_logprobs_border(sequence)
        return num_tokens if border is None else min(num_tokens, border - sequence.num_computed_tokens)

    def _place(self, draft: StepDraft, sequence: Sequence, num_tokens: int) -> None:
        """Give the sequence's next tokens slots and a slice. Its own faults end it and nobody else."""
        try:
            draft.block_copies += self.block_manager.append_slots(sequence.sequence_id, num_tokens)
            block_ids = self.block_manager.block_ids(sequence.sequence_id)
            draft.add(sequence, slice_for(sequence, num_tokens, block_ids))
        except Exception as error:
            draft.faults.append((sequence, f"could not be scheduled: {type(error).__name__}: {error}"))
            self.roster.finish(sequence, FinishReason.ERROR)

    # -- planning what comes in

    def _admit_waiting(self, draft: StepDraft, prefills: list[Sequence]) -> None:
        """Let waiting sequences join, in the policy's order, while they fit with a margin.

        The margin is one block for each running sequence: what all of them together can grow by in
        the next `block_size` steps. An admission is therefore never followed by a preemption within
        `block_size` steps, in which every running sequence gains that many tokens: admitting and
        preempting in turn cannot eat up the progress. A request that runs alone needs no margin.
        """
        joined: set[int] = set()
        prefills = [one for one in prefills if one.status is _RUNNING]
        missing_blocks = sum(map(self._missing_blocks, prefills))
        while draft.token_budget > 0:
            sequence = self.roster.waiting.peek()
            if sequence is None:
                return
            entry = entry_of(sequence, self.block_manager, joined)
            if entry.is_anew and is_being_computed(sequence, entry.hit, prefills, self.block_manager):
                return
            if not self._fits(entry, missing_blocks) and entry.hit.part_block_id is not None:
                entry = without_part(entry, self.block_manager)
            if not self._fits(entry, missing_blocks) or len(entry.members) > draft.token_budget:
                if self._running.num_requests or not self._make_room_alone(draft, entry):
                    return
                continue
            self._join(draft, entry)
            joined.update(one.sequence_id for one in entry.members)
            prefills += [one for one in entry.members if one.num_uncomputed_tokens > 1]
            # More than 0 only where something else than the budget cut the chunk.
            missing_blocks += sum(map(self._missing_blocks, entry.members))

    def _make_room_alone(self, draft: StepDraft, entry: Entry) -> bool:
        """Nothing runs, and still the first of the queue does not fit: whether something can be given up.

        Pins first; then the host copy of a group that has grown too large to come back whole, whose
        sequences are then computed again, one after the other.
        """
        if self.pins.drop_soonest():
            return True
        if entry.members[0].status is not _SWAPPED:
            return False
        for member in entry.members:
            self.roster.preempt_alone(member)
        return True

    def _fits(self, entry: Entry, missing_blocks: int) -> bool:
        running = self._running
        if running.num_places + entry.num_places > self.max_num_seqs:
            return False
        margin = running.num_places + entry.num_places if running.num_requests else 0
        return entry.num_blocks + missing_blocks + margin <= self.block_manager.num_free_blocks

    def _join(self, draft: StepDraft, entry: Entry) -> None:
        """Make the entry's members run, with a first chunk of what they have to compute."""
        draft.block_copies += self.roster.begin(entry)
        draft.moved += entry.members
        request = entry.members[0].request
        if is_beam_group(request) and self._begin_beams(draft, entry.members):
            return
        for member in sorted(entry.members, key=lambda one: one.num_uncomputed_tokens):
            num_tokens = self._chunk_size(draft, member)
            if num_tokens:
                self._place(draft, member, num_tokens)

    def _begin_beams(self, draft: StepDraft, beams: list[Sequence]) -> bool:
        """Let beams that have come back whole go on in this step, if there is room. Whether they do."""
        append = self.block_manager.blocks_to_append
        num_blocks = sum(append(beam.sequence_id, 1) for beam in beams)
        if (
            any(beam.num_uncomputed_tokens != 1 for beam in beams)
            or len(beams) > draft.token_budget
            or num_blocks > self.block_manager.num_free_blocks
        ):
            return False
        for beam in beams:
            self._place(draft, beam, 1)
        return True

    def _displace(self, draft: StepDraft) -> None:
        """Preempt running requests that come after the first waiting one, if that makes room for it."""
        sequence = self.roster.waiting.peek()
        if sequence is None:
            return
        rank = self.policy.rank(sequence.request)
        later = [one for one in self._running.in_order() if self.policy.rank(one) > rank]
        entry = entry_of(sequence, self.block_manager, ())
        if self._fits(entry, 0) or not self._fits_without(entry, later):
            return
        while later and not self._fits(entry_of(sequence, self.block_manager, ()), 0):
            self._preempt_request(draft, later.pop())

    def _fits_without(self, entry: Entry, leaving: list[Request]) -> bool:
        """Whether it would fit if these running requests left: otherwise they would give way in vain."""
        num_places = self._running.num_places - sum(map(self._running.places_of, leaving))
        num_places += entry.num_places
        margin = num_places if self._running.num_requests > len(leaving) else 0
        ids = [one.sequence_id for request in leaving for one in running_sequences(request)]
        num_free = self.block_manager.num_free_blocks + self.block_manager.num_own_blocks(ids)
        return num_places <= self.max_num_seqs and entry.num_blocks + margin <= num_free

    def _missing_blocks(self, sequence: Sequence) -> int:
        """Blocks that the sequence's known tokens still lack: more than 0 only while it prefills."""
        needed = blocks_for_tokens(sequence.num_tokens, self.block_manager.block_size)
        return needed - self.block_manager.num_table_blocks(sequence.sequence_id)

    # -- giving way

    def _preempt_request(self, draft: StepDraft, request: Request) -> None:
        """Take the blocks of a request's running sequences, all at once: to the host, or to nowhere."""
        members = running_sequences(request)
        draft.num_preemptions += len(members)
        if not self._is_swap_better(members):
            for member in members:
                self.roster.preempt_alone(member)
            return
        draft.block_copies += self.roster.swap_out(members)
        draft.moved += members

    def _is_swap_better(self, members: list[Sequence]) -> bool:
        ids = [one.sequence_id for one in members]
        if self._preemption_cost is None or not self.block_manager.can_swap_out(ids):
            return False
        num_blocks = self.block_manager.num_distinct_blocks(ids)
        num_tokens = min(
            num_blocks * self.block_manager.block_size, sum(one.num_computed_tokens for one in members)
        )
        return num_blocks > 0 and self._preemption_cost.prefers_swap(num_tokens, num_blocks)

    def _preempt_for_room(self, draft: StepDraft, sequence: Sequence) -> None:
        self.roster.preempt(sequence)
        draft.num_preemptions += 1
