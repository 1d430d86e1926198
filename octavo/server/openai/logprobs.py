"""Log-probabilities in the two shapes of the OpenAI API, and vLLM's shape for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.control.text.tokenizer import Tokenizer
from octavo.request import TokenLogprobs

# JSON has no minus infinity; vLLM sends this for a token of probability zero.
_LOWEST_LOGPROB = -9999.0


class LogprobFormat:
    """How to write tokens down.

    Args:
        as_token_ids: write `token_id:N` in place of a token's text.
    """

    def __init__(self, tokenizer: Tokenizer, *, as_token_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_token_ids = as_token_ids

    def completion(
        self,
        token_ids: Sequence[int],
        entries: Sequence[TokenLogprobs | None],
        *,
        text_offset: int,
    ) -> tuple[dict[str, Any], int]:
        """Completions' parallel arrays, and the text offset after the last token.

        `entries` has None where a token has no log-probability: the first of a prompt.
        """
        tokens: list[str] = []
        offsets: list[int] = []
        for token_id in token_ids:
            text = self._tokenizer.token_text(token_id)
            tokens.append(self._name(token_id))
            offsets.append(text_offset)
            text_offset += len(text)
        arrays = {
            "tokens": tokens,
            "token_logprobs": [None if each is None else _finite(each.logprob) for each in entries],
            "top_logprobs": [None if each is None else self._alternatives(each) for each in entries],
            "text_offset": offsets,
        }
        return arrays, text_offset

    def chat(self, entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """Chat's list of objects."""
        content = []
        for entry in entries:
            token = self._token(entry.token_id, entry.logprob)
            token["top_logprobs"] = [
                self._token(token_id, logprob)
                for token_id, logprob in zip(entry.top_token_ids, entry.top_logprobs, strict=True)
            ]
            content.append(token)
        return {"content": content, "refusal": None}

    def prompt(self, entries: Sequence[TokenLogprobs]) -> list[dict[str, Any] | None]:
        """vLLM's `prompt_logprobs`: null for the first token, then id -> logprob, rank, text."""
        places: list[dict[str, Any] | None] = [None]
        for entry in entries:
            place = {
                str(token_id): self._ranked(token_id, logprob, rank)
                for rank, (token_id, logprob) in enumerate(
                    zip(entry.top_token_ids, entry.top_logprobs, strict=True), start=1
                )
            }
            place[str(entry.token_id)] = self._ranked(entry.token_id, entry.logprob, entry.rank)
            places.append(place)
        return places

    def _alternatives(self, entry: TokenLogprobs) -> dict[str, float]:
        alternatives = {
            self._name(token_id): _finite(logprob)
            for token_id, logprob in zip(entry.top_token_ids, entry.top_logprobs, strict=True)
        }
        alternatives.setdefault(self._name(entry.token_id), _finite(entry.logprob))
        return alternatives

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self._name(token_id),
            "logprob": _finite(logprob),
            "bytes": list(self._tokenizer.token_bytes(token_id)),
        }

    def _ranked(self, token_id: int, logprob: float, rank: int) -> dict[str, Any]:
        return {
            "logprob": _finite(logprob),
            "rank": rank,
            "decoded_token": self._tokenizer.token_text(token_id),
        }

    def _name(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._as_token_ids else self._tokenizer.token_text(token_id)


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST_LOGPROB)
