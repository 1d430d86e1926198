"""Arithmetic of the paged cache: bytes, blocks and tokens. Pure functions; reads no device.

The pool is sized by this arithmetic and not by a profiling run, so that the answer is known before
anything is loaded.
"""

from __future__ import annotations

from octavo.errors import ConfigError
from octavo.model_spec import DecoderSpec


def block_bytes(spec: DecoderSpec, block_size: int, bytes_per_element: int, scale_bytes: int = 0) -> int:
    """Bytes of one KV block: `block_size` tokens, keys and values, over all layers."""
    return block_size * spec.kv_bytes_per_token(bytes_per_element, scale_bytes)


def num_blocks_within(budget_bytes: int, bytes_per_block: int) -> int:
    """How many whole blocks fit into a memory budget.

    Raises:
        ConfigError: not even one does.
    """
    num_blocks = budget_bytes // bytes_per_block
    if num_blocks < 1:
        raise ConfigError(
            f"a KV pool of {budget_bytes} bytes cannot hold one block of {bytes_per_block} bytes; "
            "give --kv-cache-memory more, or take a smaller --block-size"
        )
    return num_blocks


def blocks_for_tokens(num_tokens: int, block_size: int) -> int:
    """Blocks that hold `num_tokens` tokens of one sequence."""
    return -(-num_tokens // block_size)


def slots_for_request(num_prompt_tokens: int, max_tokens: int) -> int:
    """Slots that one sequence may come to need. The last token it samples is never computed."""
    return num_prompt_tokens + max(max_tokens - 1, 0)
