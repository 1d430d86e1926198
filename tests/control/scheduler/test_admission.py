"""How a waiting sequence would begin, and what that takes."""

from __future__ import annotations

import pytest

from octavo.control.cache.block_manager import BlockManager
from octavo.control.scheduler.admission import entry_of, find_hit, is_being_computed, without_part
from octavo.request import Request, SequenceStatus
from octavo.sampling_params import SamplingParams
from octavo.step import BlockCopy
from tests.control.scheduler.requests import add_beam, make_request

PROMPT = list(range(1, 12))  # two blocks of 4, and 3 tokens


def make_cache(num_blocks: int = 20) -> BlockManager:
    return BlockManager(num_blocks, 4, prefix_caching=True, num_host_blocks=10)


def compute(cache: BlockManager, request: Request, *, keep: bool = False) -> None:
    """Let a request's first sequence run with all of its prompt in the cache, or have run."""
    sequence = request.sequences[0]
    num_tokens = sequence.num_tokens
    cache.append_slots(sequence.sequence_id, num_tokens)
    known = (sequence.sequence_id, sequence.token_ids, sequence.prefix_keys, "", num_tokens)
    cache.commit(*known)
    cache.commit_part(*known)
    sequence.num_computed_tokens = num_tokens
    sequence.status = SequenceStatus.RUNNING
    if keep:
        cache.release(sequence.sequence_id)


def test_anew_it_takes_all_its_blocks() -> None:
    entry = entry_of(make_request(PROMPT).sequences[0], make_cache(), ())
    assert (entry.num_blocks, entry.num_places, entry.hit.num_tokens, entry.is_anew) == (3, 1, 0, True)


def test_with_a_hit_it_takes_the_rest_and_the_source_of_a_copy() -> None:
    cache = make_cache()
    compute(cache, make_request(PROMPT), keep=True)
    entry = entry_of(make_request([*PROMPT, 50, 51]).sequences[0], cache, ())
    assert entry.hit.num_tokens == 11
    # Two kept blocks come back to life, two are new, and the source of the copy must stay.
    assert entry.num_blocks == 2 + 2 + 1
    whole = without_part(entry, cache)
    assert (whole.hit.num_tokens, whole.hit.part_block_id, whole.num_blocks) == (8, None, 4)


def test_what_others_hold_costs_nothing() -> None:
    cache = make_cache()
    compute(cache, make_request(PROMPT))
    entry = entry_of(make_request(PROMPT).sequences[0], cache, ())
    assert entry.hit.num_tokens == 10, "never the last token"
    assert entry.num_blocks == 1


def test_prompt_logprobs_are_gathered_before_anything_is_taken_from_the_cache() -> None:
    cache = make_cache()
    compute(cache, make_request(PROMPT), keep=True)
    request = make_request(PROMPT, params=SamplingParams(prompt_logprobs=1))
    assert find_hit(request.sequences[0], cache).num_tokens == 0
    sequence = request.sequences[0]
    sequence.prompt_logprobs = [None] * 6  # type: ignore[list-item]
    assert find_hit(sequence, cache).num_tokens == 6
    sequence.prompt_logprobs = [None] * 10  # type: ignore[list-item]
    assert find_hit(sequence, cache).num_tokens == 10


def test_a_running_sibling_gives_its_prompt_unless_it_joined_just_now() -> None:
    cache = make_cache()
    request = make_request(PROMPT, params=SamplingParams(n=2))
    first, second = request.sequences
    compute(cache, request)
    entry = entry_of(second, cache, ())
    assert (entry.donor, entry.num_blocks, entry.is_anew) == (first, 1, False)
    assert entry_of(second, cache, {first.sequence_id}).donor is None
    first.num_computed_tokens = 9
    assert entry_of(second, cache, ()).donor is None, "not before the prompt is there"


def test_a_swapped_group_comes_back_whole() -> None:
    cache = make_cache()
    request = make_request(PROMPT, params=SamplingParams(n=2))
    first, second = request.sequences
    compute(cache, request)
    cache.fork(first.sequence_id, second.sequence_id, 11)
    cache.swap_out([first.sequence_id, second.sequence_id])
    for sequence in request.sequences:
        sequence.status = SequenceStatus.SWAPPED
    entry = entry_of(second, cache, ())
    assert entry.members == [first, second]
    assert (entry.num_places, entry.is_anew) == (2, False)
    assert entry.num_blocks == 3 + 2, "three shared blocks, and a copy of the last for each"


def test_beams_come_back_together_with_room_for_all_of_the_width() -> None:
    cache = make_cache()
    request = make_request(PROMPT, params=SamplingParams(n=1, best_of=4, use_beam_search=True))
    assert entry_of(request.sequences[0], cache, ()).num_places == 4
    add_beam(request)
    entry = entry_of(request.sequences[1], cache, ())
    assert (entry.members, entry.num_places, entry.num_blocks) == (request.sequences, 4, 2 * (3 + 1))


@pytest.mark.parametrize(("salt", "is_computed"), [("", True), ("tenant", False)])
def test_the_same_tokens_are_not_computed_twice_at_once(salt: str, is_computed: bool) -> None:
    cache = make_cache()
    running, waiting = make_request(PROMPT), make_request([*PROMPT[:8], 90, 91], cache_salt=salt)
    prefill, sequence = running.sequences[0], waiting.sequences[0]
    prefill.status = SequenceStatus.RUNNING
    hit = find_hit(sequence, cache)
    assert is_being_computed(sequence, hit, [prefill], cache) is is_computed
    assert not is_being_computed(sequence, hit, [], cache)
    prefill.num_computed_tokens = 4
    assert not is_being_computed(sequence, hit, [prefill], cache), "its first block is done"


def test_an_adopted_hit_is_what_the_entry_said() -> None:
    """The count of blocks is what beginning really takes."""
    cache = make_cache()
    compute(cache, make_request(PROMPT), keep=True)
    sequence = make_request([*PROMPT[:6], 70, 71, 72, 73]).sequences[0]
    entry = entry_of(sequence, cache, ())
    free_before, part = cache.num_free_blocks, entry.hit.part_block_id
    copies = cache.adopt(sequence.sequence_id, entry.hit)
    cache.append_slots(sequence.sequence_id, 10 - entry.hit.num_tokens)
    assert part is not None
    assert copies == [BlockCopy(part, cache.block_ids(sequence.sequence_id)[1])]
    assert free_before - cache.num_free_blocks == entry.num_blocks - 1, "the source is free again"
