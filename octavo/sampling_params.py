"""What a client may ask of decoding. Owns the fields' names, defaults and ranges; knows no model.

Field names are vLLM's, which are OpenAI's plus extensions, so that both kinds of client find them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from typing import Literal

from octavo.errors import RequestError

MAX_N = 128
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_CHARS = 1000
MAX_TOKEN_ID_LIST = 1024
MAX_BAD_WORDS = 1024
MAX_LOGPROBS = 20
FLAGS = (
    "use_beam_search",
    "include_stop_str_in_output",
    "ignore_eos",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "detokenize",
)
SEED_RANGE = 2**63
_BEAM_DEFAULTS = {"length_penalty": 1.0, "early_stopping": False}
_BEAM_NEUTRAL: dict[str, tuple[object, ...]] = {
    "top_k": (0, -1),
    "top_p": (1.0,),
    "min_p": (0.0,),
    "seed": (None,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How to choose tokens for one request. Immutable; checked when made.

    Raises:
        RequestError: a value is outside its range; `param` names the field.

    Attributes:
        n: how many continuations of the prompt to return; continuation i uses `seed + i`.
        best_of: how many to generate, of which the `n` with the highest log-probability per token are
            returned, best first; None: `n`. With beam search: the width of the beam.
        use_beam_search: keep the `best_of` likeliest continuations at each step instead of sampling.
        length_penalty: beam search: a finished beam scores its log-probability / length ** this.
        early_stopping: beam search: when to stop once `best_of` beams have finished. True: at once;
            False: when the best running beam, at its present length, cannot win; "never": when it
            could not win at any length (the rules of transformers' generate).
        temperature: 0 is greedy (the largest logit, the lowest id among equals).
        top_k: keep the k likeliest tokens; 0 or -1 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probability reaches this (nucleus).
        min_p: keep tokens at least this fraction as likely as the likeliest.
        presence_penalty: subtracted once from the logit of a token that the output already has.
        frequency_penalty: subtracted once per earlier appearance in the output.
        repetition_penalty: divides positive and multiplies negative logits of tokens that the prompt
            or the output already has (CTRL, arXiv:1909.05858).
        seed: makes the sampled tokens a function of the prompt, these parameters and the seed alone.
        max_tokens: how many tokens to generate at most; None: what the context has room for.
        min_tokens: neither EOS nor any stop may end the output before this many tokens.
        stop: strings that end the output; the output is cut before them.
        stop_token_ids: tokens that end the output; the token is kept in `token_ids`, not in the text.
        include_stop_str_in_output: keep the stop string (or stop token's text) in the text.
        ignore_eos: go on after the end-of-sequence token.
        logprobs: report the sampled token's log-probability and those of this many likeliest tokens.
            Log-probabilities are of the model's own distribution, before penalties and temperature.
        prompt_logprobs: the same for each prompt token but the first.
        logit_bias: token id -> value added to its logit, from -100 to 100.
        allowed_token_ids: only these tokens may be sampled.
        bad_words: texts whose token sequences may not be completed.
        skip_special_tokens: leave special tokens out of the text.
        spaces_between_special_tokens: put spaces between adjacent special tokens in the text.
        detokenize: make text at all; False returns token ids only (stop strings are then refused).
    """

    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: Sequence[str] | str = ()
    stop_token_ids: Sequence[int] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] = field(default_factory=dict)
    allowed_token_ids: Sequence[int] = ()
    bad_words: Sequence[str] = ()
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = False
    detokenize: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for name in ("stop", "stop_token_ids", "allowed_token_ids", "bad_words"):
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        object.__setattr__(self, "logit_bias", _as_dict("logit_bias", self.logit_bias))
        self._check_counts()
        self._check_numbers()
        self._check_flags()
        self._check_lists()
        self._check_beams()

    @property
    def num_sequences(self) -> int:
        """How many sequences are generated: at least `n`."""
        return self.n if self.best_of is None else self.best_of

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        """Whether any penalty depends on the tokens seen so far."""
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0 or self.repetition_penalty != 1.0

    @property
    def needs_history(self) -> bool:
        """Whether sampling has to see the sequence's earlier tokens."""
        return self.has_penalties or bool(self.bad_words)

    def _check_counts(self) -> None:
        _check_int("n", self.n, 1, MAX_N)
        if self.best_of is not None:
            _check_int("best_of", self.best_of, 1, MAX_N)
            if self.best_of < self.n:
                raise RequestError(
                    f"best_of ({self.best_of}) must not be less than n ({self.n})", param="best_of"
                )
        _check_int("top_k", self.top_k, -1, None)
        _check_int("min_tokens", self.min_tokens, 0, None)
        if self.max_tokens is not None:
            _check_int("max_tokens", self.max_tokens, 0, None)
            if self.min_tokens > self.max_tokens:
                raise RequestError(
                    f"min_tokens ({self.min_tokens}) must not exceed max_tokens ({self.max_tokens})",
                    param="min_tokens",
                )
        if self.seed is not None:
            _check_int("seed", self.seed, -SEED_RANGE, SEED_RANGE - 1)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _check_int(name, getattr(self, name), 0, MAX_LOGPROBS)

    def _check_numbers(self) -> None:
        _check_float("temperature", self.temperature, 0.0, 2.0)
        _check_float("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _check_float("min_p", self.min_p, 0.0, 1.0)
        _check_float("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _check_float("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _check_float("repetition_penalty", self.repetition_penalty, 0.0, 100.0, open_low=True)
        _check_float("length_penalty", self.length_penalty, -10.0, 10.0)
        for token_id, bias in self.logit_bias.items():
            _check_int("logit_bias", token_id, 0, None)
            _check_float("logit_bias", bias, -100.0, 100.0)

    def _check_flags(self) -> None:
        for name in FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name} must be true or false, not {getattr(self, name)!r}", param=name)

    def _check_lists(self) -> None:
        _check_length("stop", self.stop, MAX_STOP_STRINGS)
        _check_length("stop_token_ids", self.stop_token_ids, MAX_TOKEN_ID_LIST)
        _check_length("allowed_token_ids", self.allowed_token_ids, MAX_TOKEN_ID_LIST)
        _check_length("logit_bias", self.logit_bias, MAX_TOKEN_ID_LIST)
        _check_length("bad_words", self.bad_words, MAX_BAD_WORDS)
        for name in ("stop", "bad_words"):
            for text in getattr(self, name):
                if not isinstance(text, str) or not text:
                    raise RequestError(f"{name} must hold non-empty strings", param=name)
                if len(text) > MAX_STOP_STRING_CHARS:
                    raise RequestError(
                        f"a string in {name} has {len(text)} characters; "
                        f"the limit is {MAX_STOP_STRING_CHARS}",
                        param=name,
                    )
        for name in ("stop_token_ids", "allowed_token_ids"):
            for token_id in getattr(self, name):
                _check_int(name, token_id, 0, None)
        if self.stop and not self.detokenize:
            raise RequestError("stop strings need detokenize=True", param="stop")

    def _check_beams(self) -> None:
        """Refuse what beam search, or its absence, leaves without effect."""
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise RequestError(
                f"early_stopping must be true, false or 'never', not {self.early_stopping!r}",
                param="early_stopping",
            )
        if not self.use_beam_search:
            for name in ("length_penalty", "early_stopping"):
                if getattr(self, name) not in (_BEAM_DEFAULTS[name], None):
                    raise RequestError(f"{name} has an effect only with use_beam_search", param=name)
            return
        if self.temperature not in (0.0, 1.0):
            raise RequestError(
                "beam search does not sample: temperature must be left out or 0", param="temperature"
            )
        for name, neutral in _BEAM_NEUTRAL.items():
            if getattr(self, name) not in neutral:
                raise RequestError(f"beam search does not sample: {name} would have no effect", param=name)
        if self.prompt_logprobs is not None:
            raise RequestError("prompt_logprobs cannot go with beam search", param="prompt_logprobs")
        if self.max_tokens == 0:
            raise RequestError("beam search needs max_tokens of at least 1", param="max_tokens")


def _as_tuple(name: str, values: object) -> tuple[object, ...]:
    """A list of the caller's; None, which callers of vLLM write for "nothing asked", is the empty one."""
    if values is None:
        return ()
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise RequestError(f"{name} must be a list, not {values!r}", param=name)
    return tuple(values)


def _as_dict(name: str, values: object) -> dict[object, object]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RequestError(f"{name} must map token ids to numbers, not {values!r}", param=name)
    return values


def _check_int(name: str, value: object, low: int, high: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be a whole number, not {value!r}", param=name)
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise RequestError(f"{name} must be {bounds}, not {value}", param=name)


def _check_float(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestError(f"{name} must be a finite number, not {value!r}", param=name)
    if value > high or value < low or (open_low and value == low):
        bounds = f"above {low:g} and at most {high:g}" if open_low else f"from {low:g} to {high:g}"
        raise RequestError(f"{name} must be {bounds}, not {value:g}", param=name)


def _check_length(name: str, values: Sized, limit: int) -> None:
    if len(values) > limit:
        raise RequestError(f"{name} has {len(values)} entries; the limit is {limit}", param=name)
