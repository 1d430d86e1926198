"""KV that was computed for somebody else gives the same logits as KV of one's own: whole blocks, parts of
blocks, and blocks that hold another request's output."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.same_tokens.conftest import NUM_OUTPUT_TOKENS, Alone, MakeEngine
from tests.same_tokens.recorded_engine import Wish

NUM_SHARED_TOKENS = 30  # the end of no block


def one_after_another(wish: Wish, num_output_tokens: int, output: tuple[int, ...]) -> Wish:
    """The wish of one who goes on after so many tokens of the output. Its prompt has them, so that the wish
    must have no penalties, which see prompt and output apart."""
    assert wish.params.presence_penalty == wish.params.frequency_penalty == 0.0
    params = replace(wish.params, max_tokens=NUM_OUTPUT_TOKENS - num_output_tokens)
    return Wish(f"{wish.name}-on", (*wish.prompt, *output[:num_output_tokens]), params)


@pytest.mark.parametrize("block_size", [8, 16, 32])
def test_hits(make_engine: MakeEngine, wishes: dict[str, Wish], alone: Alone, block_size: int) -> None:
    engine = make_engine(block_size=block_size, prefix_caching=True, num_blocks=80)
    first, plain = wishes["penalties-77"], wishes["min-p-199"]
    branch = Wish("branch", (*first.prompt[:NUM_SHARED_TOKENS], *plain.prompt[50:60]), first.params)
    going_on = one_after_another(plain, 7, alone(plain).token_ids)
    for wish, request_id in engine.run({0: [first, plain]}):
        assert engine.num_cached_tokens(request_id) == 0
        assert engine.trail(request_id) == alone(wish), request_id

    twin_id, branch_id, on_id = (made[1] for made in engine.run({0: [first, branch, going_on]}))
    assert engine.trail(twin_id) == alone(first)
    assert engine.num_cached_tokens(twin_id) == 76  # the last has to be pushed through the model
    assert engine.trail(branch_id) == alone(branch)
    assert engine.num_cached_tokens(branch_id) == NUM_SHARED_TOKENS
    # The prompt and six of the seven tokens of output were another request's.
    assert engine.trail(on_id) == alone(plain).after(7)
    assert engine.num_cached_tokens(on_id) == 199 + 6


def test_twins_that_share_while_they_run(
    make_engine: MakeEngine, wishes: dict[str, Wish], alone: Alone
) -> None:
    """They arrive together and some steps later: blocks are shared between those that run."""
    engine = make_engine(prefix_caching=True, max_num_batched_tokens=100, num_blocks=80)
    twins = [wishes["greedy-130"], wishes["greedy-39"]]
    made = engine.run({0: twins, 1: twins, 5: twins})
    for wish, request_id in made:
        assert engine.trail(request_id) == alone(wish), request_id
    assert sum(engine.num_cached_tokens(request_id) for _, request_id in made) == 2 * (129 + 38)
    assert max(trace.sharing for trace in engine.traces) > 0.4


def test_salts_and_forgetting_change_nothing_but_what_is_shared(
    make_engine: MakeEngine, wishes: dict[str, Wish], alone: Alone
) -> None:
    engine = make_engine(prefix_caching=True, num_blocks=20)
    wish = wishes["plain-15"]
    for salt, num_cached_tokens in (("", 0), ("tenant", 0), ("tenant", 14), ("forgotten", 0)):
        if salt == "forgotten":
            assert engine.engine.cache.drop() > 0
        request_id = engine.submit(wish, cache_salt=salt.replace("forgotten", "tenant"))
        engine.finish()
        assert engine.num_cached_tokens(request_id) == num_cached_tokens
        assert engine.trail(request_id) == alone(wish)
