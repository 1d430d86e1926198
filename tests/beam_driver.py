"""Beam search over a model runner alone, without scheduler or cache bookkeeping, for tests.

Every beam has blocks of its own, and a step that forks copies all of its parent's: obviously right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from octavo.control.decoding.beam_search import BeamSearch, Hypothesis
from octavo.sampling_params import SamplingParams
from octavo.step import BlockCopy, SampleRequest, SequenceSlice, StepPlan, StepResult

BLOCK_SIZE = 16


def num_blocks_for(width: int, num_tokens: int) -> int:
    """Blocks that `run_beam_search` needs for beams of so many tokens, the prompt's included."""
    return 2 * width * -(-num_tokens // BLOCK_SIZE)


def run_beam_search(
    run: Callable[[StepPlan], StepResult],
    prompt: Sequence[int],
    params: SamplingParams,
    *,
    eos_token_ids: Iterable[int],
    find_stop: Callable[[Sequence[int]], bool] | None = None,
) -> list[Hypothesis]:
    """`params.n` hypotheses of one prompt. `run` is a runner's, over blocks of BLOCK_SIZE tokens."""
    assert params.max_tokens is not None
    eos = frozenset(eos_token_ids)
    ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos)
    search = BeamSearch(
        params, max_tokens=params.max_tokens, end_token_ids=ends, eos_token_ids=eos, find_stop=find_stop
    )
    per_beam = -(-(len(prompt) + params.max_tokens) // BLOCK_SIZE)
    outputs: list[list[int]] = [[]]
    parents: list[int] = []
    for step in range(params.max_tokens):
        # Even and odd steps use different blocks, so that no copy overwrites what another one reads.
        own, others = ((step + turn) % 2 * search.width for turn in (0, 1))
        tables = [range((own + i) * per_beam, (own + i + 1) * per_beam) for i in range(len(outputs))]
        num_computed = len(prompt) + step - 1
        copies = [
            BlockCopy((others + parent) * per_beam + block, table[block])
            for parent, table in zip(parents, tables, strict=bool(step))
            for block in range(-(-num_computed // BLOCK_SIZE))
        ]
        slices = [
            SequenceSlice(
                i,
                output[-1:] if step else list(prompt),
                num_computed if step else 0,
                list(table),
                _sample_request(prompt, output, params, ends, search.num_candidates),
            )
            for i, (output, table) in enumerate(zip(outputs, tables, strict=True))
        ]
        result = run(StepPlan(step, slices, copies))
        assert result.failures == {}
        assert result.tokens == {}
        steps = search.advance([result.candidates[i] for i in range(len(slices))])
        outputs = [[*outputs[one.parent], one.token_id] for one in steps]
        parents = [one.parent for one in steps]
        if search.is_finished:
            break
    assert search.is_finished
    return search.best()


def _sample_request(
    prompt: Sequence[int],
    output: list[int],
    params: SamplingParams,
    ends: frozenset[int],
    num_candidates: int,
) -> SampleRequest:
    return SampleRequest(
        params,
        seed=0,
        position=len(prompt) + len(output),
        suppressed_token_ids=tuple(sorted(ends)) if len(output) < params.min_tokens else (),
        prompt_token_ids=list(prompt) if params.needs_history else [],
        output_token_ids=output if params.needs_history else [],
        num_candidates=num_candidates,
    )
