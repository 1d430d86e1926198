"""The same traffic on a KV memory of contiguous reservations: the systems that paging is compared with.

Continuous batching with the scheduler's rules (one token budget a step, decodes first, then chunks of
prompts under way, then admissions in order); only where the tokens live is different.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from octavo.bench.buddy_allocator import BuddyAllocator, power_of_two_above
from octavo.bench.memory_use import MemoryUse, SlotUse, UseMeter
from octavo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one request."""

    num_prompt_tokens: int
    num_output_tokens: int

    @property
    def num_final_slots(self) -> int:
        """Tokens that come to be in the cache: the last one sampled never does."""
        return self.num_prompt_tokens + self.num_output_tokens - 1


@dataclass(slots=True)
class _Running:
    lengths: Lengths
    offset: int
    num_reserved: int
    num_computed: int = 0
    num_known: int = 0

    @property
    def num_uncomputed(self) -> int:
        return self.num_known - self.num_computed

    @property
    def is_finished(self) -> bool:
        return self.num_known == self.lengths.num_prompt_tokens + self.lengths.num_output_tokens


# Name -> slots reserved for a request, given the longest context. The paper's Orca (Max), (Pow2), (Oracle).
RESERVATIONS: dict[str, Callable[[Lengths, int], int]] = {
    "max": lambda lengths, longest: longest,
    "pow2": lambda lengths, longest: min(
        lengths.num_prompt_tokens + power_of_two_above(lengths.num_output_tokens), longest
    ),
    "oracle": lambda lengths, longest: lengths.num_final_slots,
}


class ContiguousRun:
    """One trace, all requests at once.

    Args:
        reservation: a name of RESERVATIONS.
        max_num_seqs, max_num_batched_tokens: requests and tokens that may be in a step.

    Raises:
        ConfigError: a request can never be placed.
    """

    def __init__(
        self,
        lengths: Sequence[Lengths],
        *,
        reservation: str,
        num_slots: int,
        max_model_len: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
    ) -> None:
        self._name = reservation
        self._reserve = RESERVATIONS[reservation]
        self._max_model_len = max_model_len
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._memory = BuddyAllocator(num_slots)
        for one in lengths:
            if BuddyAllocator(num_slots).allocate(self._reserve(one, max_model_len)) is None:
                raise ConfigError(
                    f"a memory of {num_slots} slots has no run of "
                    f"{power_of_two_above(self._reserve(one, max_model_len))}; raise --num-slots"
                )
        self._waiting = deque(lengths)
        self._running: list[_Running] = []
        self._is_short_of_memory = False
        self.num_steps = 0

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def measure(self) -> MemoryUse:
        """Run to the end; means of the steps from the first that lacked memory to the last with a queue."""
        meter = UseMeter(self._memory.num_slots)
        while self.has_work:
            self.step()
            if self._is_short_of_memory and self._waiting:
                meter.add(self.slot_use(), self.num_running)
        return meter.means(self._name, num_all_steps=self.num_steps)

    def step(self) -> None:
        """Plan a step and apply it."""
        self.num_steps += 1
        budget = self._max_num_batched_tokens
        chunks: list[tuple[_Running, int]] = []
        # Stable: decodes before prompts under way, both in order of arrival.
        for one in sorted(self._running, key=lambda one: one.num_uncomputed > 1):
            num_tokens = min(one.num_uncomputed, budget)
            budget -= num_tokens
            chunks.append((one, num_tokens))
        while budget > 0 and self._waiting and len(self._running) < self._max_num_seqs:
            joined = self._admit(self._waiting[0])
            if joined is None:
                self._is_short_of_memory = True
                break
            self._waiting.popleft()
            num_tokens = min(joined.num_uncomputed, budget)
            budget -= num_tokens
            chunks.append((joined, num_tokens))
        for one, num_tokens in chunks:
            self._advance(one, num_tokens)
        self._running = [one for one in self._running if not one.is_finished]

    def slot_use(self) -> SlotUse:
        """The memory as it is."""
        use = SlotUse(external=self._memory.num_free_slots)
        for one in self._running:
            use.add_request(one.num_computed, one.lengths.num_final_slots, one.num_reserved)
            use.external += self._memory.taken_at(one.offset) - one.num_reserved
        return use

    def _admit(self, lengths: Lengths) -> _Running | None:
        num_reserved = self._reserve(lengths, self._max_model_len)
        offset = self._memory.allocate(num_reserved)
        if offset is None:
            return None
        joined = _Running(lengths, offset, num_reserved, num_known=lengths.num_prompt_tokens)
        self._running.append(joined)
        return joined

    def _advance(self, one: _Running, num_tokens: int) -> None:
        one.num_computed += num_tokens
        if num_tokens and one.num_uncomputed == 0:
            one.num_known += 1
            if one.is_finished:
                self._memory.free(one.offset)
