"""Log-probabilities of the model's own distribution, for sampled tokens and for prompt tokens.

Reads logits, never writes them; knows nothing of temperature, penalties or filters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.compute.sampling.filters import find_candidates, top_k_floors
from octavo.compute.sampling.vocab_blocks import VocabBlocks
from octavo.errors import RequestFailedError
from octavo.request import TokenLogprobs

_CHUNK_ELEMENTS = 2**24  # 64 MiB of float32: a long prompt's rows are looked at in turns


def token_logprobs(
    logits: Tensor,  # [num_rows, vocab_size] float32
    target_ids: Sequence[int],
    num_top: int | Sequence[int],
) -> list[TokenLogprobs]:
    """Log-probability, rank and likeliest tokens at each row, natural logarithms of softmax(logits).

    Args:
        target_ids: the token that stands (or was sampled) at each row.
        num_top: how many likeliest tokens to report, for all rows or for each.

    Returns:
        One entry a row. Its rank is one more than the number of strictly larger logits; its top tokens are
        likeliest first, lowest id first among equals, without tokens whose logit is -inf.

    Raises:
        RequestFailedError: a row holds NaN or inf, or nothing but -inf.
    """
    counts = [num_top] * len(target_ids) if isinstance(num_top, int) else list(num_top)
    rows_per_chunk = max(1, _CHUNK_ELEMENTS // logits.shape[1])
    entries: list[TokenLogprobs] = []
    for start in range(0, len(target_ids), rows_per_chunk):
        piece = slice(start, start + rows_per_chunk)
        entries += _chunk_logprobs(logits[piece].contiguous(), target_ids[piece], counts[piece])
    return entries


def _chunk_logprobs(logits: Tensor, target_ids: Sequence[int], counts: list[int]) -> list[TokenLogprobs]:
    blocks = VocabBlocks(logits)
    maxima = blocks.maxima()
    row_maxima = maxima.amax(dim=1)
    if not bool(row_maxima.isfinite().all()):
        raise RequestFailedError("log-probabilities cannot be computed: the model's logits are not finite")
    sums = blocks.exp_sums(
        torch.arange(len(counts), device=logits.device), row_maxima, torch.ones_like(row_maxima)
    )
    # The last of a running sum rather than a sum: its order of additions is the same for any batch.
    offsets = row_maxima.double() + sums.cumsum(dim=1)[:, -1].log()
    targets = logits.gather(1, torch.tensor(list(target_ids), device=logits.device)[:, None])
    ranks = (1 + torch.count_nonzero(logits > targets, dim=1)).tolist()
    logprobs = (targets.squeeze(1).double() - offsets).tolist()
    tops = _top_tokens(blocks, maxima, offsets, counts)
    return [
        TokenLogprobs(token_id, logprob, rank, *tops.get(row, ((), ())))
        for row, (token_id, logprob, rank) in enumerate(zip(target_ids, logprobs, ranks, strict=True))
    ]


def _top_tokens(
    blocks: VocabBlocks, maxima: Tensor, offsets: Tensor, counts: list[int]
) -> dict[int, tuple[tuple[int, ...], tuple[float, ...]]]:
    """Row -> ids and log-probabilities of its likeliest tokens, where any are asked for."""
    rows = [row for row, count in enumerate(counts) if count > 0]
    if not rows:
        return {}
    tops = {}
    floors = top_k_floors(blocks, maxima, rows, [counts[row] for row in rows])
    for group in find_candidates(blocks, maxima, rows, floors):
        members = [rows[pick] for pick in group.picks]
        width = max(counts[row] for row in members)
        values = group.values[:, :width].double() - offsets[members, None]
        columns = zip(members, group.token_ids[:, :width].tolist(), values.tolist(), strict=True)
        for row, token_ids, logprobs in columns:
            num_kept = min(counts[row], sum(logprob > -torch.inf for logprob in logprobs))
            tops[row] = (tuple(token_ids[:num_kept]), tuple(logprobs[:num_kept]))
    return tops
