"""What prompts are made of: ordinary tokens of a model's vocabulary, drawn or sampled by the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from octavo.errors import RequestFailedError
from octavo.request import FinishReason
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.build import TextParts
    from octavo.control.engine import Engine


def ordinary_token_ids(text: TextParts) -> list[int]:
    """The tokens that are not special."""
    special = text.tokenizer.special_token_ids
    vocab_size = min(text.tokenizer.vocab_size, text.description.spec.vocab_size)
    return [token_id for token_id in range(vocab_size) if token_id not in special]


def sample_prompts(
    engine: Engine, lengths: Sequence[int], first_token_ids: Sequence[int], special: Sequence[int]
) -> list[list[int]]:
    """Prompts that look like text to the model, because it wrote them.

    Args:
        lengths: of the prompts, in tokens.
        first_token_ids: what each begins with, and is sampled after: one for each prompt.
        special: tokens that no prompt may hold.
    """
    prompts: dict[str, list[int]] = {}
    bias = dict.fromkeys(special, -100.0)
    for number, (length, first) in enumerate(zip(lengths, first_token_ids, strict=True)):
        prompts[f"prompt-{number}"] = [first]
        if length > 1:
            params = SamplingParams(
                temperature=0.8,
                top_p=0.95,
                seed=number,
                max_tokens=length - 1,
                ignore_eos=True,
                logit_bias=bias,
            )
            engine.submit(f"prompt-{number}", [first], params)
    while engine.has_work:
        for delta in engine.step():
            if delta.finish_reason is FinishReason.ERROR:
                raise RequestFailedError(f"request {delta.request_id} failed: {delta.error}")
            prompts[delta.request_id] += delta.token_ids
    return list(prompts.values())
