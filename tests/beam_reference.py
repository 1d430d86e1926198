"""Beam search in transformers under the wishes of our SamplingParams, to compare with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from octavo.sampling_params import SamplingParams

# Hypotheses whose scores differ by less may come in either order: both sides sum in float32 somewhere.
NEAR_TIE = 1e-4

# Name -> wishes beyond width and length. "stops" stands for stop tokens that the model likes to choose.
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "early-stopping": {"early_stopping": True},
    "never-early": {"early_stopping": "never"},
    "sum-of-logprobs": {"length_penalty": 0.0, "early_stopping": "never"},
    "longer-is-better": {"length_penalty": 2.0},
    "longer-is-better-never-early": {"length_penalty": 2.0, "early_stopping": "never"},
    "shorter-is-better": {"length_penalty": -1.0},
    "shorter-is-better-never-early": {"length_penalty": -1.0, "early_stopping": "never"},
    "repetition": {"repetition_penalty": 1.3},
    "repetition-wanted": {"repetition_penalty": 0.8, "early_stopping": "never"},
    "bias": {"logit_bias": {40: 2.0, 41: -3.0, 200: 1.5}},
    "min-tokens": {"min_tokens": 6},
    "ignore-eos": {"ignore_eos": True},
    "several-ends": {"stop_token_ids": "stops"},
    "several-ends-early": {"stop_token_ids": "stops", "early_stopping": True},
    "several-ends-of-any-length": {"stop_token_ids": "stops", "length_penalty": 0.0},
}


@dataclass(frozen=True, slots=True)
class ReferenceBeam:
    """Output tokens with the one that ended them, and `sequences_scores`."""

    token_ids: tuple[int, ...]
    score: float


def case_params(
    name: str, *, width: int, n: int, max_tokens: int, stop_token_ids: Sequence[int], **more: Any
) -> SamplingParams:
    wishes = dict(CASES[name])
    if wishes.get("stop_token_ids") == "stops":
        wishes["stop_token_ids"] = list(stop_token_ids)
    return SamplingParams(
        use_beam_search=True, best_of=width, n=n, max_tokens=max_tokens, temperature=0.0, **(wishes | more)
    )


def reference_beams(
    model: Any,
    prompt: Sequence[int],
    params: SamplingParams,
    *,
    eos_token_ids: Iterable[int],
    tokenizer: Any = None,
) -> list[ReferenceBeam]:
    """All `params.best_of` hypotheses of transformers, best first. The tokenizer is for stop strings."""
    ends = sorted({*params.stop_token_ids, *(() if params.ignore_eos else eos_token_ids)})
    wishes: dict[str, Any] = {
        "num_beams": params.num_sequences,
        "num_return_sequences": params.num_sequences,
        "max_new_tokens": params.max_tokens,
        "min_new_tokens": params.min_tokens or None,
        "length_penalty": params.length_penalty,
        "early_stopping": params.early_stopping,
        "repetition_penalty": params.repetition_penalty,
        "sequence_bias": {(token,): bias for token, bias in params.logit_bias.items()} or None,
        "eos_token_id": ends or None,
        "pad_token_id": 0,
        "stop_strings": list(params.stop) or None,
    }
    # The model's own defaults would fill in what is None here, EOS among it.
    model.generation_config = transformers.GenerationConfig()
    token_ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        output = model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            generation_config=transformers.GenerationConfig(
                do_sample=False, return_dict_in_generate=True, output_scores=True, **wishes
            ),
            tokenizer=tokenizer if params.stop else None,
        )
    lengths = (output.beam_indices >= 0).sum(dim=1).tolist()
    return [
        ReferenceBeam(tuple(sequence[len(prompt) : len(prompt) + length]), score)
        for sequence, length, score in zip(
            output.sequences.tolist(), lengths, output.sequences_scores.tolist(), strict=True
        )
    ]


def favourite_tokens(model: Any, prompts: Iterable[Sequence[int]]) -> list[int]:
    """Tokens by how many of a model's endless beams they come in: ends that such beams will meet."""
    params = SamplingParams(use_beam_search=True, best_of=4, max_tokens=12, ignore_eos=True)
    counts = Counter(
        token_id
        for prompt in prompts
        for beam in reference_beams(model, prompt, params, eos_token_ids=())
        for token_id in set(beam.token_ids)
    )
    return [token_id for token_id, _ in counts.most_common()]


def reference_logprobs(model: Any, prompt: Sequence[int], output: Sequence[int]) -> torch.Tensor:
    """The model's log-probabilities at each place of an output, [num_tokens, vocab_size]."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *output[:-1]]])).logits[0, len(prompt) - 1 :]
    return logits.float().log_softmax(dim=-1)


def assert_same_beams(found: Sequence[Sequence[int]], reference: Sequence[ReferenceBeam]) -> None:
    """The same hypotheses in the same order, but for near ties. `reference` may have more of them."""
    scores = {beam.token_ids: beam.score for beam in reference}
    assert len({tuple(one) for one in found}) == len(found)
    for place, token_ids in enumerate(found):
        expected = reference[place]
        if tuple(token_ids) != expected.token_ids:
            score = scores.get(tuple(token_ids))
            assert score is not None, f"hypothesis {place}: {token_ids}, expected {expected}"
            assert abs(score - expected.score) < NEAR_TIE, f"hypothesis {place}: {score}, {expected}"
