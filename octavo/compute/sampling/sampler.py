"""Sampler: one token, or a beam's candidates, for each row of a batch of logits, by each row's own wishes.

Owns the order of the steps. What comes of a row is a function of that row's logits and SampleRequest alone,
and a row that fails says so in one line without disturbing the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.compute.sampling.candidates import add_logprobs, choose_candidates, log_normalisers
from octavo.compute.sampling.filters import Draw, argmax, draw_filtered, draw_plain
from octavo.compute.sampling.logprobs import token_logprobs
from octavo.compute.sampling.penalties import edit_logits, has_edits
from octavo.compute.sampling.rng import uniform
from octavo.compute.sampling.vocab_blocks import VocabBlocks
from octavo.request import TokenLogprobs
from octavo.step import Candidate, SampledToken, SampleRequest

_NOT_FINITE = "the model's logits are not finite for this sequence"
_NONE_LEFT = (
    "no token is left to sample: allowed_token_ids, bad_words, min_tokens and biases rule out all of them"
)


class Sampler:
    """Chooses tokens on the logits' device. Stateless but for the size of the vocabulary.

    Order of the steps, as in vLLM (v1/sample/sampler.py): log-probabilities of the untouched logits;
    allowed_token_ids, bad_words, suppressed tokens, logit_bias; repetition, frequency and presence
    penalties; then for temperature 0 the argmax (lowest id among equals), else temperature, min_p, top_k,
    top_p and one draw keyed by (seed, position).

    A row of beam search (`num_candidates`) is turned into log-probabilities before its edits, as in
    transformers' beam search, and yields its largest values instead of a token.
    """

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def needs_only_largest(self, requests: Sequence[SampleRequest]) -> bool:
        """Whether each row asks for its largest logit and for nothing else: then no logits are needed."""
        return all(
            request.params.is_greedy
            and request.params.logprobs is None
            and not request.num_candidates
            and not has_edits(request)
            for request in requests
        )

    def accept_largest(self, token_ids: Tensor, maxima: Tensor) -> list[SampledToken | str]:
        """What `sample` would answer to such rows, from the places of their largest logits and these."""
        return [
            SampledToken(token_id, None) if math.isfinite(maximum) else _NOT_FINITE
            for token_id, maximum in zip(token_ids.tolist(), maxima.tolist(), strict=True)
        ]

    def sample(
        self,
        logits: Tensor,  # [num_rows, vocab_size] float32, may be overwritten
        requests: Sequence[SampleRequest],
    ) -> list[SampledToken | list[Candidate] | str]:
        """A token or candidates for each row, or one line that says why this row has none.

        A logit of -inf is a token that cannot come; NaN or +inf fails its row.

        Raises:
            ValueError: the logits do not fit the vocabulary, the requests or float32 as a whole.
        """
        expected = (len(requests), self._vocab_size)
        if tuple(logits.shape) != expected or logits.dtype != torch.float32:
            raise ValueError(
                f"logits must be float32 of shape {expected}, not {logits.dtype} of {tuple(logits.shape)}"
            )
        if not requests:
            return []
        logits = logits.contiguous()
        blocks = VocabBlocks(logits)
        maxima = blocks.maxima()
        row_maxima = maxima.amax(dim=1).tolist()
        failures = {row: _NOT_FINITE for row, top in enumerate(row_maxima) if not math.isfinite(top)}
        logprob_rows = [
            row
            for row, request in enumerate(requests)
            if request.params.logprobs is not None and row not in failures
        ]
        model_logits = logits[logprob_rows] if logprob_rows else logits[:0]  # a copy, before any edit

        beam_rows = [
            row for row, request in enumerate(requests) if request.num_candidates and row not in failures
        ]
        offsets = log_normalisers(blocks, maxima, beam_rows)
        edited = _edit_rows(logits, requests, offsets, failures)
        if edited:
            maxima[edited] = VocabBlocks(logits[edited]).maxima()
            row_maxima = maxima.amax(dim=1).tolist()
            for row in edited:
                if not math.isfinite(row_maxima[row]):
                    failures[row] = _NONE_LEFT
        offsets = {row: offset for row, offset in offsets.items() if row not in failures}
        candidates = choose_candidates(blocks, maxima, requests, offsets)
        add_logprobs(candidates, model_logits, logprob_rows, requests)
        token_ids = _choose(blocks, maxima, row_maxima, requests, failures)
        logprobs = _sampled_logprobs(model_logits, logprob_rows, requests, token_ids)
        tokens = {row: SampledToken(token_id, logprobs.get(row)) for row, token_id in token_ids.items()}
        outcomes: dict[int, SampledToken | list[Candidate] | str] = {**tokens, **candidates, **failures}
        return [outcomes[row] for row in range(len(requests))]


def _edit_rows(
    logits: Tensor,
    requests: Sequence[SampleRequest],
    offsets: dict[int, float],
    failures: dict[int, str],
) -> list[int]:
    """Apply each row's edits; returns the rows edited and adds those that broke to `failures`.

    Rows in `offsets` become log-probabilities first; what is left to subtract from them is then nothing.
    """
    edited = []
    for row, request in enumerate(requests):
        if row in failures or not has_edits(request):
            continue
        if row in offsets:
            logits[row] -= offsets[row]
            offsets[row] = 0.0
        try:
            edit_logits(logits[row], request)
        except Exception as error:  # whatever it was, it is this row's alone
            failures[row] = _failure_line(error)
        else:
            edited.append(row)
    return edited


def _choose(
    blocks: VocabBlocks,
    maxima: Tensor,
    row_maxima: list[float],
    requests: Sequence[SampleRequest],
    failures: dict[int, str],
) -> dict[int, int]:
    """Row -> token id, each kind of row in one batch; adds rows whose wishes are broken to `failures`."""
    greedy: list[int] = []
    plain: list[Draw] = []
    filtered: list[Draw] = []
    for row, request in enumerate(requests):
        if row in failures or request.num_candidates:
            continue
        if request.params.is_greedy:
            greedy.append(row)
            continue
        try:
            draw = _draw_of(row, request, row_maxima[row], blocks.vocab_size)
        except Exception as error:  # whatever it was, it is this row's alone
            failures[row] = _failure_line(error)
        else:
            (filtered if draw.is_filtered else plain).append(draw)
    token_ids: dict[int, int] = {}
    if greedy:
        token_ids |= zip(greedy, argmax(blocks, maxima, greedy), strict=True)
    if plain:
        token_ids |= zip([draw.row for draw in plain], draw_plain(blocks, plain), strict=True)
    if filtered:
        drawn = draw_filtered(blocks, maxima, filtered)
        token_ids |= zip([draw.row for draw in filtered], drawn, strict=True)
    return token_ids


def _draw_of(row: int, request: SampleRequest, row_maximum: float, vocab_size: int) -> Draw:
    params = request.params
    return Draw(
        row=row,
        uniform=uniform(request.seed, request.position),
        row_maximum=row_maximum,
        temperature=float(params.temperature),
        top_k=params.top_k if 0 < params.top_k < vocab_size else 0,
        top_p=float(params.top_p),
        min_p=float(params.min_p),
    )


def _sampled_logprobs(
    model_logits: Tensor,  # [num_logprob_rows, vocab_size]
    rows: list[int],
    requests: Sequence[SampleRequest],
    token_ids: dict[int, int],
) -> dict[int, TokenLogprobs]:
    places = [place for place, row in enumerate(rows) if row in token_ids]
    if not places:
        return {}
    kept = [rows[place] for place in places]
    logits = model_logits if len(kept) == len(rows) else model_logits[places]
    counts = [requests[row].params.logprobs or 0 for row in kept]
    entries = token_logprobs(logits, [token_ids[row] for row in kept], counts)
    return dict(zip(kept, entries, strict=True))


def _failure_line(error: Exception) -> str:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return f"sampling failed: {reason[0]}"
