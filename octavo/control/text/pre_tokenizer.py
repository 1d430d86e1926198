"""How a byte-level vocabulary cuts text into words before merging, by llama.cpp's names for it.

The patterns are those of the models' own tokenizer.json files. A wrong cut gives wrong tokens without
any error, so a name that is not here is refused, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class WordSplit:
    """One way to cut text.

    Attributes:
        patterns: applied in order, each to the pieces that the one before left; both the matches and
            what lies between them are pieces.
        ignores_merges: a word that is a token as a whole becomes that token, whatever the merges say.
        adds_bos: prompts begin with BOS unless the file says otherwise.
        composes: text is brought to Unicode's composed form (NFC) first.
    """

    patterns: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False
    composes: bool = False

    def build(self) -> PreTokenizer:
        splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in self.patterns]
        to_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([*splits, to_letters])


_GPT2_SPLIT = WordSplit((_GPT2,))
_DIGITS_SPLIT = WordSplit((r"\p{N}", _GPT2))  # every digit alone
_LLAMA3_SPLIT = WordSplit((_LLAMA3,), ignores_merges=True, adds_bos=True)
_QWEN2_SPLIT = WordSplit((_QWEN2,), composes=True)

GPT2_PRE = "gpt-2"
QWEN2_PRE = "qwen2"

# By the value of `tokenizer.ggml.pre` (llama.cpp, src/llama-vocab.cpp).
WORD_SPLITS: dict[str, WordSplit] = {
    # What llama.cpp does for files that do not say how their vocabulary was made.
    "default": WordSplit((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    **dict.fromkeys((GPT2_PRE, "phi-2", "mpt", "olmo", "jais", "trillion"), _GPT2_SPLIT),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS_SPLIT
    ),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3"), _LLAMA3_SPLIT),
    **dict.fromkeys(("dbrx", "smaug-bpe"), WordSplit((_LLAMA3,))),
    **dict.fromkeys((QWEN2_PRE, "deepseek-r1-qwen"), _QWEN2_SPLIT),
    "tekken": WordSplit((_TEKKEN,), ignores_merges=True, adds_bos=True),
}
