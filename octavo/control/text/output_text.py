"""The text of one output sequence as it grows: detokenisation, stop strings, and what of them to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.control.text.detokenizer import Detokenizer
from octavo.control.text.stop_strings import StopStringFinder
from octavo.control.text.tokenizer import Tokenizer
from octavo.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one push brought.

    Attributes:
        text: new text, ready to be sent.
        stop_string: the stop string that ended the sequence, with the delta that found it.
    """

    text: str
    stop_string: str | None = None


class OutputText:
    """Text of one sequence, under one request's parameters.

    Attributes:
        num_tokens: tokens taken so far; after a stop string, up to the token that completed it, so that
            callers cut token ids and log-probabilities at the same place.
        stop_string: the stop string that ended the text, or None.
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, prompt_token_ids: Sequence[int]) -> None:
        self._arguments = (tokenizer, params, prompt_token_ids)
        self._detokenizer = Detokenizer(
            tokenizer,
            prompt_token_ids,
            skip_special_tokens=params.skip_special_tokens,
            spaces_between_special_tokens=params.spaces_between_special_tokens,
        )
        self._finder = StopStringFinder(params.stop, include_in_output=params.include_stop_str_in_output)
        self._detokenizes = params.detokenize
        self._min_tokens = params.min_tokens
        self._shows_stop_token = params.include_stop_str_in_output
        self._pieces: list[str] = []
        self.num_tokens = 0
        self.stop_string: str | None = None

    @property
    def text(self) -> str:
        """All that pushes have given out so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def holds_stop_string(self, token_ids: Sequence[int]) -> bool:
        """Whether these tokens, as all of the output, have a stop string in their text. Pushes nothing.

        A beam comes whole, and what ended it is not said: its last token may complete a stop string or be
        a stop token, whose text is not searched.
        """
        output_text = OutputText(*self._arguments)
        return output_text.push(token_ids, finished=True).stop_string is not None

    def push(
        self, token_ids: Sequence[int], finished: bool, *, ended_by_stop_token: bool = False
    ) -> TextDelta:
        """Take new tokens. After a stop string was found, further pushes give nothing.

        Args:
            finished: no more tokens will come: give out what was held back.
            ended_by_stop_token: the last of `token_ids` is an EOS or stop token; its text is shown only
                with `include_stop_str_in_output`.
        """
        if self.stop_string is not None:
            return TextDelta("")
        if not self._detokenizes:
            self.num_tokens += len(token_ids)
            return TextDelta("")
        shown: list[str] = []
        hidden_index = len(token_ids) - 1 if ended_by_stop_token and not self._shows_stop_token else None
        for index, token_id in enumerate(token_ids):
            self.num_tokens += 1
            if index != hidden_index and self._search(self._detokenizer.push(token_id), shown):
                break
        if finished and self.stop_string is None and not self._search(self._detokenizer.flush(), shown):
            shown.append(self._finder.flush())
        text = "".join(shown)
        if text:
            self._pieces.append(text)
        return TextDelta(text, self.stop_string)

    def _search(self, text: str, shown: list[str]) -> bool:
        """Pass text on through the stop-string search; True when that ended the sequence."""
        may_stop = self.num_tokens >= self._min_tokens
        ready, self.stop_string = self._finder.push(text, may_stop=may_stop)
        shown.append(ready)
        return self.stop_string is not None
