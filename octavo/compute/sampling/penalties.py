"""Edits to a row of logits that may change which token is the likeliest: bias, bans, penalties.

Each edit touches one row, in place, and only the tokens it names. Ids are checked on the host first: an
index outside the vocabulary would poison a GPU's whole context.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from octavo.sampling_params import SamplingParams
from octavo.step import SampleRequest

_LARGEST_LOGIT = torch.finfo(torch.float32).max


def has_edits(request: SampleRequest) -> bool:
    """Whether `edit_logits` would change anything."""
    params = request.params
    return bool(
        params.logit_bias
        or params.allowed_token_ids
        or request.bad_words_token_ids
        or request.suppressed_token_ids
        or params.has_penalties
    )


def edit_logits(row: Tensor, request: SampleRequest) -> None:  # [vocab_size] float32, in place
    """Apply logit_bias, allowed_token_ids, bad_words, suppressed_token_ids and the penalties.

    vLLM's sampler runs the same edits before its penalties (allowed tokens, bad words, min_tokens, bias); as
    a ban is -inf, which no later edit lifts, only "bias before penalties" is felt.

    Raises:
        ValueError: a token id is outside the vocabulary.
    """
    params = request.params
    if params.logit_bias:
        token_ids = _index_tensor("logit_bias", params.logit_bias, row)
        row[token_ids] += torch.tensor(list(params.logit_bias.values()), dtype=row.dtype, device=row.device)
    if params.allowed_token_ids:
        token_ids = _index_tensor("allowed_token_ids", params.allowed_token_ids, row)
        allowed = row[token_ids]
        row.fill_(-math.inf)
        row[token_ids] = allowed
    banned = completed_bad_words(request.bad_words_token_ids, request.output_token_ids)
    banned.update(request.suppressed_token_ids)
    if banned:
        row[_index_tensor("a ban (bad_words, min_tokens)", banned, row)] = -math.inf
    if params.has_penalties:
        apply_penalties(row, params, request.prompt_token_ids, request.output_token_ids)


def completed_bad_words(bad_words: Collection[tuple[int, ...]], output_token_ids: Sequence[int]) -> set[int]:
    """The tokens that would complete a bad word whose earlier tokens end the output.

    As in vLLM, a bad word that began in the prompt is not the output's, and may be completed.
    """
    completing = set()
    for word in bad_words:
        num_earlier = len(word) - 1
        if num_earlier <= len(output_token_ids) and word:
            ending = output_token_ids[len(output_token_ids) - num_earlier :]
            if tuple(ending) == tuple(word[:-1]):
                completing.add(word[-1])
    return completing


def apply_penalties(
    row: Tensor,  # [vocab_size] float32, in place
    params: SamplingParams,
    prompt_token_ids: Sequence[int],
    output_token_ids: Sequence[int],
) -> None:
    """Repetition over prompt and output (CTRL, arXiv:1909.05858); frequency and presence over the output.

    Order and signs are vLLM's: repetition, then `frequency_penalty` per appearance, then `presence_penalty`.
    """
    if params.repetition_penalty != 1.0 and (prompt_token_ids or output_token_ids):
        # A token that comes twice here is read before either is written: it is penalised once.
        seen = _index_tensor("the history", [*prompt_token_ids, *output_token_ids], row)
        logits = row[seen]
        divided = (logits / params.repetition_penalty).clamp_(max=_LARGEST_LOGIT)
        row[seen] = torch.where(logits > 0, divided, logits * params.repetition_penalty)
    if output_token_ids and (params.frequency_penalty or params.presence_penalty):
        counts = torch.bincount(_index_tensor("the history", output_token_ids, row))
        present = counts.nonzero().squeeze(1)
        row[present] -= params.frequency_penalty * counts[present]
        row[present] -= params.presence_penalty


def _index_tensor(source: str, token_ids: Collection[int], row: Tensor) -> Tensor:
    """Token ids (at least one) as an index into the row. Through `array`, far faster than torch.tensor."""
    index = torch.frombuffer(array("q", token_ids), dtype=torch.int64)
    lowest, highest = (int(bound) for bound in index.aminmax())
    if lowest < 0 or highest >= row.shape[0]:
        raise ValueError(
            f"{source} names token {lowest if lowest < 0 else highest}, "
            f"but this model's token ids go from 0 to {row.shape[0] - 1}"
        )
    return index.to(row.device)
