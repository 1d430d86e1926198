"""How a waiting sequence would begin, and what that takes: swapped in, forked, from the cache, or anew.

Looks and computes; changes nothing but the sequence's prefix keys.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from octavo.control.cache.block_manager import BlockManager
from octavo.control.cache.cache_size import blocks_for_tokens
from octavo.control.cache.prefix_hit import NO_HIT, PrefixHit
from octavo.control.scheduler.running import is_beam_group, num_places
from octavo.request import Request, Sequence, SequenceStatus


@dataclass(frozen=True, slots=True)
class Entry:
    """One way for a sequence to begin.

    Attributes:
        members: who begins: the sequence, or all that left the steps with it: those that were swapped
            out together, and all beams of a beam search.
        num_blocks: free blocks that it takes until all known tokens are in the cache.
        num_places: places in the steps.
        donor: a running sibling whose prompt is shared.
        hit: what is in the cache of its tokens.
    """

    members: list[Sequence]
    num_blocks: int
    num_places: int
    donor: Sequence | None = None
    hit: PrefixHit = NO_HIT

    @property
    def is_anew(self) -> bool:
        """Whether a sequence begins by itself, with nothing but what the cache has of it."""
        is_swapped = self.members[0].status is SequenceStatus.SWAPPED
        return self.donor is None and len(self.members) == 1 and not is_swapped


def entry_of(sequence: Sequence, cache: BlockManager, joined: Collection[int]) -> Entry:
    """How a waiting sequence would begin now. `joined` are the ids of those that began in this step."""
    if sequence.status is SequenceStatus.SWAPPED:
        return _entry_from_host(sequence, cache)
    places = num_places(sequence.request)
    if is_beam_group(sequence.request):
        return _entry_of_beams(sequence.request, cache)
    donor = find_donor(sequence, joined)
    if donor is not None:
        num_blocks = blocks_for_tokens(sequence.num_tokens, cache.block_size)
        num_blocks -= (sequence.num_prompt_tokens - 1) // cache.block_size
        return Entry([sequence], num_blocks, places, donor=donor)
    hit = find_hit(sequence, cache)
    return Entry([sequence], cache.blocks_to_adopt(hit, sequence.num_tokens), places, hit=hit)


def without_part(entry: Entry, cache: BlockManager) -> Entry:
    """The same with whole cached blocks only: the source of a copy takes a block while it is copied."""
    num_tokens = len(entry.hit.block_ids) * cache.block_size
    hit = replace(entry.hit, num_tokens=num_tokens, part_block_id=None)
    num_blocks = cache.blocks_to_adopt(hit, entry.members[0].num_tokens)
    return replace(entry, hit=hit, num_blocks=num_blocks)


def find_donor(sequence: Sequence, joined: Collection[int]) -> Sequence | None:
    """A running sequence of the same request that has the prompt in the cache.

    Not one that `joined` in this step: its own blocks may be the targets of copies that have not been
    made yet, so they hold nothing that could be shared in this step.
    """
    request = sequence.request
    if len(request.sequences) == 1 or request.params.use_beam_search:
        return None
    for sibling in request.sequences:
        if (
            sibling.status is SequenceStatus.RUNNING
            and sibling.sequence_id not in joined
            and sibling.num_computed_tokens >= sequence.num_prompt_tokens - 1
        ):
            return sibling
    return None


def is_being_computed(
    sequence: Sequence, hit: PrefixHit, prefills: Collection[Sequence], cache: BlockManager
) -> bool:
    """Whether the first block that `sequence` lacks is about to be computed by one of `prefills`.

    Then it is better to wait a step than to compute the same tokens twice.
    """
    number = len(hit.block_ids)
    end = (number + 1) * cache.block_size
    if cache.index is None or end > _max_cached_tokens(sequence):
        return False
    salt = sequence.request.service.cache_salt
    key = cache.key_of_block(sequence.token_ids, sequence.prefix_keys, salt, number)
    for other in prefills:
        if other.num_computed_tokens < end <= other.num_tokens and (
            other.request.service.cache_salt == salt
            and cache.key_of_block(other.token_ids, other.prefix_keys, salt, number) == key
        ):
            return True
    return False


def _entry_from_host(sequence: Sequence, cache: BlockManager) -> Entry:
    request = sequence.request
    members = [one for one in request.sequences if one.status is SequenceStatus.SWAPPED]
    num_blocks = cache.blocks_to_swap_in([one.sequence_id for one in members])
    for one in members:
        # What it has grown by since, and the copy of a last block that it shares.
        num_blocks += blocks_for_tokens(one.num_tokens, cache.block_size) + 1
        num_blocks -= cache.num_table_blocks(one.sequence_id)
    places = num_places(request) if request.params.use_beam_search else len(members)
    return Entry(members, num_blocks, places)


def _entry_of_beams(request: Request, cache: BlockManager) -> Entry:
    """All beams at once, as none can go on alone. What is cached of them is found when they begin."""
    num_blocks = sum(blocks_for_tokens(beam.num_tokens, cache.block_size) + 1 for beam in request.sequences)
    return Entry(list(request.sequences), num_blocks, num_places(request))


def find_hit(sequence: Sequence, cache: BlockManager) -> PrefixHit:
    """What of the sequence is in the cache now."""
    return cache.find_prefix(
        sequence.token_ids,
        sequence.prefix_keys,
        sequence.request.service.cache_salt,
        _max_cached_tokens(sequence),
    )


def _max_cached_tokens(sequence: Sequence) -> int:
    """How many of its tokens may come from the cache: not the last, which has to be pushed through the
    model for what follows it, and none whose successor's log-probability is still to be reported."""
    num_tokens = sequence.num_tokens - 1
    if sequence.request.params.prompt_logprobs is None:
        return num_tokens
    num_gathered = len(sequence.prompt_logprobs)
    is_whole = num_gathered >= sequence.num_prompt_tokens - 1
    return num_tokens if is_whole else min(num_tokens, num_gathered)
