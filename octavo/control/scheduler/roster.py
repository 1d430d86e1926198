"""Where every live sequence stands: waiting, running or swapped out. Owns the queues and `Sequence.status`.

Keeps the cache's tables in step with that; decides nothing about who goes on. May not touch tensors,
text or clocks, and never appends tokens: that is the engine's.
"""

from __future__ import annotations

from octavo.control.cache.block_manager import BlockManager
from octavo.control.scheduler.admission import Entry, find_donor, find_hit
from octavo.control.scheduler.policy import Policy
from octavo.control.scheduler.queues import PromptFollowers, QueuedRequests, WaitingQueue
from octavo.control.scheduler.running import RunningSet, is_beam_group
from octavo.request import FinishReason, Request, Sequence, SequenceStatus
from octavo.step import BlockCopy

_RUNNING, _SWAPPED = SequenceStatus.RUNNING, SequenceStatus.SWAPPED


class Roster:
    """The live sequences and what becomes of them.

    Attributes:
        running: the requests that hold places in the steps.
        waiting: sequences that wait for a place: new, preempted or swapped out.
        queued: requests of which nothing has run yet.
        num_swapped: sequences whose blocks are in the host pool.
    """

    def __init__(self, cache: BlockManager, policy: Policy) -> None:
        self.running = RunningSet(policy)
        self.waiting = WaitingQueue(policy)
        self.queued = QueuedRequests()
        self.num_swapped = 0
        self._cache = cache
        self._policy = policy
        self._followers = PromptFollowers()

    @property
    def num_waiting(self) -> int:
        """Sequences that wait: new, preempted, swapped out, or for the first of their request."""
        return len(self.waiting) + len(self._followers)

    # -- sequences come and go

    def add(self, request: Request) -> None:
        """Queue a request; it may join the next step. Its other sequences follow the first."""
        leader, *followers = request.sequences
        key = self._policy.key(request)
        self._policy.arrive(key, self.queued.busy_keys)
        self.queued.add(request, key)
        self.waiting.push(leader)
        self._followers.hold(leader, followers)

    def advance(self, sequence: Sequence, num_tokens: int) -> None:
        """Record that the sequence's next `num_tokens` tokens are in the cache."""
        num_before = sequence.num_computed_tokens
        num_computed = sequence.num_computed_tokens = num_before + num_tokens
        block_size = self._cache.block_size
        if num_before // block_size != num_computed // block_size:
            self._commit(sequence)
        if num_before < sequence.num_prompt_tokens <= num_computed:
            self._commit(sequence, with_part=True)
            for follower in self._followers.release(sequence):
                self.waiting.push(follower)

    def begin(self, entry: Entry) -> list[BlockCopy]:
        """Make waiting sequences run, as the entry says. What to copy first."""
        cache, sequence = self._cache, entry.members[0]
        copies: list[BlockCopy] = []
        for member in entry.members:
            self.waiting.remove(member)
        if sequence.status is _SWAPPED:
            copies += cache.swap_in([one.sequence_id for one in entry.members])
            self.num_swapped -= len(entry.members)
        elif entry.donor is not None:
            self._fork_prompt(sequence, entry.donor)
        else:
            for member in entry.members:
                # Beams look one after the other, as each takes blocks that the next might have found.
                hit = find_hit(member, cache) if is_beam_group(member.request) else entry.hit
                copies += cache.adopt(member.sequence_id, hit)
                member.num_computed_tokens = hit.num_tokens
        for member in entry.members:
            self._start_running(member)
        self._charge_prompt(sequence)
        return copies

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let `child`, a new sequence of a running one's request, run with all of its computed tokens."""
        self._cache.fork(parent.sequence_id, child.sequence_id, parent.num_computed_tokens)
        child.num_computed_tokens = parent.num_computed_tokens
        child.prefix_keys = list(parent.prefix_keys)
        self._start_running(child)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a live sequence, wherever it stands, and free what only it holds."""
        status = sequence.status
        if status is _RUNNING:
            self.running.leave(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        else:
            self._followers.remove(sequence)
        orphans = self._followers.release(sequence)
        if orphans:
            self.waiting.push(orphans[0])
            self._followers.hold(orphans[0], orphans[1:])
        if status is _RUNNING:
            # A sequence that broke may have left anything in its blocks; nobody inherits those.
            is_sound = reason is not FinishReason.ERROR
            if is_sound:
                self._hand_over(sequence)
                self._commit(sequence, with_part=True)
            self._release(sequence, is_sound=is_sound)
        elif status is _SWAPPED:
            self.num_swapped -= 1
            self._release(sequence)
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        if sequence.request.is_finished:
            self.queued.end(sequence.request, self._policy.key(sequence.request))

    def preempt(self, sequence: Sequence) -> None:
        """Take a running or swapped sequence's blocks away; it waits in its place to be recomputed. Beams
        go together."""
        request = sequence.request
        for member in request.sequences if is_beam_group(request) else [sequence]:
            self.preempt_alone(member)

    def preempt_alone(self, sequence: Sequence) -> None:
        """`preempt` of one sequence, whatever becomes of its siblings."""
        if sequence.status is _SWAPPED:
            self.waiting.remove(sequence)
            self.num_swapped -= 1
        else:
            self.running.leave(sequence)
            self._commit(sequence, with_part=True)
        self._release(sequence)
        sequence.num_computed_tokens = 0
        sequence.num_preemptions += 1
        sequence.status = SequenceStatus.PREEMPTED
        self.waiting.push(sequence)

    def swap_out(self, members: list[Sequence]) -> list[BlockCopy]:
        """Move running sequences of one request to the host pool. What to copy."""
        copies = self._cache.swap_out([one.sequence_id for one in members])
        self.num_swapped += len(members)
        for member in members:
            self.running.leave(member)
            member.status = _SWAPPED
            member.num_preemptions += 1
            self.waiting.push(member)
        return copies

    # -- sequences of one request

    def _charge_prompt(self, sequence: Sequence) -> None:
        """The first of a request has begun: its prompt is charged, but for what was in the cache."""
        request = sequence.request
        if request.num_cached_tokens is None:
            request.num_cached_tokens = sequence.num_computed_tokens
            self._policy.charge(request, sequence.num_prompt_tokens - sequence.num_computed_tokens, 0)

    def _start_running(self, sequence: Sequence) -> None:
        sequence.status = _RUNNING
        self.running.join(sequence)
        self.queued.start(sequence.request)

    def _fork_prompt(self, sequence: Sequence, donor: Sequence) -> None:
        """Let a waiting sequence share a sibling's prompt but for its last token."""
        num_shared_tokens = sequence.num_prompt_tokens - 1
        self._cache.fork(donor.sequence_id, sequence.sequence_id, num_shared_tokens)
        sequence.num_computed_tokens = num_shared_tokens
        sequence.prompt_logprobs = list(donor.prompt_logprobs)

    def _hand_over(self, sequence: Sequence) -> None:
        """Leave an ending sequence's prompt, and its place in the steps, to a sibling that waits.

        Otherwise a request whose first continuation ends at once (`max_tokens=1`) would compute its
        prompt again. The heir runs from now on, so that no waiting sequence ever holds blocks.
        """
        request = sequence.request
        if len(request.sequences) == 1 or sequence.num_computed_tokens < sequence.num_prompt_tokens:
            return
        if request.params.use_beam_search:
            return
        waiting = (one for one in request.sequences if one in self.waiting and one.status is not _SWAPPED)
        heir = next(waiting, None)
        if heir is not None and find_donor(heir, {sequence.sequence_id}) is None:
            self.waiting.remove(heir)
            self._fork_prompt(heir, sequence)
            self._start_running(heir)

    def _commit(self, sequence: Sequence, *, with_part: bool = False) -> None:
        """Tell the cache what the sequence's blocks hold by now."""
        cache = self._cache
        if cache.index is None or not cache.has_table(sequence.sequence_id):
            return
        known = (
            sequence.sequence_id,
            sequence.token_ids,
            sequence.prefix_keys,
            sequence.request.service.cache_salt,
            sequence.num_computed_tokens,
        )
        cache.commit(*known)
        if with_part:
            cache.commit_part(*known)

    def _release(self, sequence: Sequence, *, is_sound: bool = True) -> None:
        if sequence.status is _SWAPPED or self._cache.has_table(sequence.sequence_id):
            self._cache.release(sequence.sequence_id, is_sound=is_sound)
