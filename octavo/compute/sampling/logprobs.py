"""Log-probabilities of the model's own distribution, for sampled, candidate and prompt tokens.

Reads logits, never writes them; knows nothing of temperature, penalties or filters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.compute.sampling.filters import Candidates, find_candidates, top_k_floors
from octavo.compute.sampling.vocab_blocks import VocabBlocks
from octavo.errors import RequestFailedError
from octavo.request import TokenLogprobs

_CHUNK_ELEMENTS = 2**24  # 64 MiB of float32: a long prompt's rows are looked at in turns

_Tops = tuple[tuple[int, ...], tuple[float, ...]]  # token ids and their log-probabilities


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


def several_logprobs(
    logits: Tensor,  # [num_rows, vocab_size] float32
    target_ids: Sequence[Sequence[int]],
    num_top: Sequence[int],
) -> list[list[TokenLogprobs]]:
    """As `token_logprobs`, of several tokens at each row: the same bits, with one look at the row.

    Args:
        target_ids: at least one token a row; none of them may have the logit -inf.

    Raises:
        RequestFailedError: as of `token_logprobs`.
    """
    blocks = VocabBlocks(logits.contiguous())
    maxima, offsets = _maxima_and_offsets(blocks)
    width = max(map(len, target_ids))
    padded = [[*ids, *[ids[0]] * (width - len(ids))] for ids in target_ids]
    targets = logits.gather(1, torch.tensor(padded, device=logits.device))  # [num_rows, width]
    rows = list(range(len(num_top)))
    top_floors = top_k_floors(blocks, maxima, rows, [max(1, count) for count in num_top])
    floors = [min(pair) for pair in zip(targets.amin(dim=1).tolist(), top_floors, strict=True)]
    entries: list[list[TokenLogprobs]] = [[]] * len(rows)
    for group in find_candidates(blocks, maxima, rows, floors):
        picked = targets[group.picks]
        # Likeliest first, so that what stands before a target's first equal is what is larger.
        ranks = (1 + torch.searchsorted(-group.values, -picked)).tolist()
        logprobs = (picked.double() - offsets[group.picks, None]).tolist()
        tops = _read_tops(group, group.picks, offsets, list(num_top))
        for row, row_ranks, row_logprobs in zip(group.picks, ranks, logprobs, strict=True):
            columns = zip(target_ids[row], row_logprobs, row_ranks, strict=False)  # padding falls off
            entries[row] = [TokenLogprobs(*column, *tops[row]) for column in columns]
    return entries


def _chunk_logprobs(logits: Tensor, target_ids: Sequence[int], counts: list[int]) -> list[TokenLogprobs]:
    blocks = VocabBlocks(logits)
    maxima, offsets = _maxima_and_offsets(blocks)
    targets = logits.gather(1, torch.tensor(list(target_ids), device=logits.device)[:, None])
    ranks = (1 + torch.count_nonzero(logits > targets, dim=1)).tolist()
    logprobs = (targets.squeeze(1).double() - offsets).tolist()
    tops = _top_tokens(blocks, maxima, offsets, counts)
    return [
        TokenLogprobs(token_id, logprob, rank, *tops.get(row, ((), ())))
        for row, (token_id, logprob, rank) in enumerate(zip(target_ids, logprobs, ranks, strict=True))
    ]


def _maxima_and_offsets(blocks: VocabBlocks) -> tuple[Tensor, Tensor]:
    """Block maxima, and what each row's logits exceed its log-probabilities by, [num_rows] float64."""
    maxima = blocks.maxima()
    row_maxima = maxima.amax(dim=1)
    if not bool(row_maxima.isfinite().all()):
        raise RequestFailedError("log-probabilities cannot be computed: the model's logits are not finite")
    return maxima, blocks.log_sum_exps(torch.arange(blocks.num_rows, device=maxima.device), row_maxima)


def _top_tokens(blocks: VocabBlocks, maxima: Tensor, offsets: Tensor, counts: list[int]) -> dict[int, _Tops]:
    """Row -> ids and log-probabilities of its likeliest tokens, where any are asked for."""
    rows = [row for row, count in enumerate(counts) if count > 0]
    if not rows:
        return {}
    tops: dict[int, _Tops] = {}
    floors = top_k_floors(blocks, maxima, rows, [counts[row] for row in rows])
    for group in find_candidates(blocks, maxima, rows, floors):
        tops |= _read_tops(group, [rows[pick] for pick in group.picks], offsets, counts)
    return tops


def _read_tops(group: Candidates, rows: list[int], offsets: Tensor, counts: list[int]) -> dict[int, _Tops]:
    """The first of each of these rows' candidates, as many as its count says and as there are."""
    width = max(counts[row] for row in rows)
    values = group.values[:, :width].double() - offsets[rows, None]
    tops: dict[int, _Tops] = {}
    columns = zip(rows, group.token_ids[:, :width].tolist(), values.tolist(), strict=True)
    for row, token_ids, logprobs in columns:
        num_kept = min(counts[row], sum(logprob > -torch.inf for logprob in logprobs))
        tops[row] = (tuple(token_ids[:num_kept]), tuple(logprobs[:num_kept]))
    return tops
