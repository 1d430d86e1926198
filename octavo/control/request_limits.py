"""What one engine can take: checks a request against the model's vocabulary, the context and the pool.

Owns the numbers and the wording of refusals. Keeps no state; knows no queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as ReadOnlySequence
from dataclasses import dataclass

from octavo.control.cache.cache_size import blocks_for_tokens, slots_for_request
from octavo.errors import ContextLengthError, RequestError
from octavo.sampling_params import SamplingParams


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """Attributes:
    vocab_size: width of the logits: token ids are checked against it and not against the tokenizer.
    max_model_len: longest context in tokens, prompt and output together.
    num_blocks, block_size: the KV pool.
    max_num_seqs: sequences that may be in one step.
    """

    vocab_size: int
    max_model_len: int
    num_blocks: int
    block_size: int
    max_num_seqs: int

    def check(
        self,
        prompt_token_ids: ReadOnlySequence[int],
        params: SamplingParams,
        bad_words_token_ids: Iterable[ReadOnlySequence[int]] = (),
    ) -> int:
        """Check a request and resolve its `max_tokens`.

        Returns:
            `params.max_tokens`, or what context and pool have room for where that is None.

        Raises:
            RequestError: an empty prompt, or a token id outside the vocabulary; `param` names the field.
            ContextLengthError: it can never fit, with the numbers.
        """
        if not prompt_token_ids:
            raise RequestError("the prompt is empty; it must have at least one token", param="prompt")
        self._check_token_ids("prompt", prompt_token_ids)
        self._check_token_ids("stop_token_ids", params.stop_token_ids)
        self._check_token_ids("allowed_token_ids", params.allowed_token_ids)
        self._check_token_ids("logit_bias", params.logit_bias)
        for token_ids in bad_words_token_ids:
            if not token_ids:
                raise RequestError("a bad word has no tokens", param="bad_words")
            self._check_token_ids("bad_words", token_ids)
        max_tokens = self._resolve_max_tokens(len(prompt_token_ids), params)
        if params.use_beam_search:
            self._check_beams(len(prompt_token_ids), max_tokens, params)
        return max_tokens

    def _check_beams(self, num_prompt_tokens: int, max_tokens: int, params: SamplingParams) -> None:
        """Beams run together or not at all, so all of them have to fit, at worst without sharing."""
        width = params.num_sequences
        name = "n" if params.best_of is None else "best_of"
        if width > self.max_num_seqs:
            raise RequestError(
                f"a beam search of width {width} does not fit into steps of {self.max_num_seqs} sequences",
                param=name,
            )
        needed = width * (
            blocks_for_tokens(slots_for_request(num_prompt_tokens, max_tokens), self.block_size) + 1
        )
        if needed > self.num_blocks:
            raise ContextLengthError(
                f"a beam search of width {width} over {num_prompt_tokens} + {max_tokens} tokens may need "
                f"{needed} KV blocks, and the whole cache has {self.num_blocks}; ask for less, or serve "
                "with more --kv-cache-memory",
                param=name,
            )

    def _check_token_ids(self, param: str, token_ids: Iterable[int]) -> None:
        for token_id in token_ids:
            # type(), because True is an int and no token id.
            if type(token_id) is not int or not 0 <= token_id < self.vocab_size:
                raise RequestError(
                    f"{param}: token id {token_id!r} is not a whole number from 0 to {self.vocab_size - 1}",
                    param=param,
                )

    def _resolve_max_tokens(self, num_prompt_tokens: int, params: SamplingParams) -> int:
        pool_slots = self.num_blocks * self.block_size
        max_tokens = params.max_tokens
        if max_tokens is None:
            # The token sampled last needs no slot. A prompt that leaves no room is refused below.
            room = min(self.max_model_len, pool_slots + 1) - num_prompt_tokens
            max_tokens = max(room, 1, params.min_tokens)
        if num_prompt_tokens + max_tokens > self.max_model_len:
            raise ContextLengthError(
                f"the prompt has {num_prompt_tokens} tokens and max_tokens is {max_tokens}, together "
                f"{num_prompt_tokens + max_tokens}; this model's context is {self.max_model_len} tokens"
                if params.max_tokens is not None
                else f"the prompt has {num_prompt_tokens} tokens; this model's context is "
                f"{self.max_model_len} tokens and needs room for at least "
                f"{max_tokens} more",
                param="prompt" if num_prompt_tokens >= self.max_model_len else "max_tokens",
            )
        needed_blocks = blocks_for_tokens(slots_for_request(num_prompt_tokens, max_tokens), self.block_size)
        if needed_blocks > self.num_blocks:
            raise ContextLengthError(
                f"the prompt has {num_prompt_tokens} tokens and max_tokens is {max_tokens}: that needs "
                f"{needed_blocks} KV blocks of {self.block_size} tokens, and the whole cache has "
                f"{self.num_blocks}; ask for less, or serve with more --kv-cache-memory",
                param="prompt" if num_prompt_tokens > pool_slots else "max_tokens",
            )
        return max_tokens
