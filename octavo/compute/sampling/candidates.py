"""Candidates of beam search: the likeliest tokens of single rows, scored by their log-probability.

Each row's candidates are a function of that row and its request alone, to the last bit. The likeliest tokens
come from the block maxima; only the sum of exponentials takes another pass over the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.compute.sampling.filters import find_candidates, top_k_floors
from octavo.compute.sampling.logprobs import several_logprobs
from octavo.compute.sampling.vocab_blocks import BLOCK_WIDTH, VocabBlocks
from octavo.step import Candidate, SampleRequest


def log_normalisers(blocks: VocabBlocks, maxima: Tensor, rows: list[int]) -> dict[int, float]:
    """Row -> what its logits exceed its log-probabilities by: ln of the sum of their exponentials.

    `maxima` is `blocks.maxima()`. One log_softmax a row, as one is fast on one core: its exponentials are
    part of the sum, while torch's exp wakes all threads for any size.
    """
    offsets = {}
    for row in rows:
        block_index = int(maxima[row].argmax())
        logprobs = blocks.logits[row].log_softmax(dim=0)
        start = block_index * BLOCK_WIDTH
        largest = float(logprobs[start : start + BLOCK_WIDTH].amax())
        offsets[row] = float(maxima[row, block_index]) - largest
    return offsets


def choose_candidates(
    blocks: VocabBlocks,
    maxima: Tensor,
    requests: Sequence[SampleRequest],
    offsets: dict[int, float],
) -> dict[int, list[Candidate]]:
    """The `num_candidates` likeliest tokens of each row in `offsets`, lowest id first among equals.

    Args:
        maxima: `blocks.maxima()`.
        offsets: row -> what to subtract from its values to have log-probabilities.

    Returns:
        Row -> best first, without tokens that cannot come (-inf), so there may be fewer; no logprobs yet.
    """
    rows = list(offsets)
    if not rows:
        return {}
    counts = [min(requests[row].num_candidates, blocks.vocab_size) for row in rows]
    chosen: dict[int, list[Candidate]] = {}
    for group in find_candidates(blocks, maxima, rows, top_k_floors(blocks, maxima, rows, counts)):
        picked = torch.tensor([offsets[rows[pick]] for pick in group.picks], dtype=torch.float64)
        width = max(counts[pick] for pick in group.picks)
        scores = group.values[:, :width].double() - picked.to(maxima.device)[:, None]
        columns = zip(group.picks, group.token_ids[:, :width].tolist(), scores.tolist(), strict=True)
        for pick, token_ids, row_scores in columns:
            chosen[rows[pick]] = [
                Candidate(token_id, score)
                for token_id, score in zip(token_ids[: counts[pick]], row_scores, strict=False)
                if score > -torch.inf  # the group's padding
            ]
    return chosen


def add_logprobs(
    candidates: dict[int, list[Candidate]],
    model_logits: Tensor,  # [num_logprob_rows, vocab_size], before any edit
    rows: list[int],
    requests: Sequence[SampleRequest],
) -> None:
    """Give the candidates their log-probabilities, in place; `model_logits` is of these `rows`."""
    places = [place for place, row in enumerate(rows) if row in candidates]
    if not places:
        return
    kept = [rows[place] for place in places]
    entries = several_logprobs(
        model_logits if len(kept) == len(rows) else model_logits[places],
        [[candidate.token_id for candidate in candidates[row]] for row in kept],
        [requests[row].params.logprobs or 0 for row in kept],
    )
    for row, row_entries in zip(kept, entries, strict=True):
        candidates[row] = [
            Candidate(candidate.token_id, candidate.score, entry)
            for candidate, entry in zip(candidates[row], row_entries, strict=True)
        ]
