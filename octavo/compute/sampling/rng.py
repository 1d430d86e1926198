"""The random numbers of sampling, as a pure function of (seed, position).

Keeps no state: a token does not depend on what else ran, on the batch, or on how often a step was repeated.
"""

from __future__ import annotations

_MASK32 = 0xFFFFFFFF
_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_KEY_STEP_0 = 0x9E3779B9  # golden ratio
_KEY_STEP_1 = 0xBB67AE85  # sqrt(3) - 1
_NUM_ROUNDS = 10


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Four random 32-bit words from a 128-bit counter and a 64-bit key.

    Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), which passes
    BigCrush; the same function as Random123, cuRAND and PyTorch on CUDA.
    """
    word0, word1, word2, word3 = counter
    key0, key1 = key
    for _ in range(_NUM_ROUNDS):
        product0 = _MULTIPLIER_0 * word0
        product1 = _MULTIPLIER_1 * word2
        word0 = (product1 >> 32) ^ word1 ^ key0
        word1 = product1 & _MASK32
        word2 = (product0 >> 32) ^ word3 ^ key1
        word3 = product0 & _MASK32
        key0 = (key0 + _KEY_STEP_0) & _MASK32
        key1 = (key1 + _KEY_STEP_1) & _MASK32
    return word0, word1, word2, word3


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits, for the token at `position` of a sequence.

    `seed` is any integer, taken modulo 2**64 (so signed seeds and `seed + index` are all right);
    `position` is from 0 to 2**64 - 1.
    """
    counter = (position & _MASK32, (position >> 32) & _MASK32, 0, 0)
    key = (seed & _MASK32, (seed >> 32) & _MASK32)
    word0, word1, _, _ = philox4x32(counter, key)
    return float(((word0 << 32) | word1) >> 11) * 2.0**-53
