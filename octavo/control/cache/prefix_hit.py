"""PrefixHit: what of a prompt's KV is in the cache already, as found at one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """Valid until the cache is next changed.

    Attributes:
        block_ids: full blocks, from the first on, that can be shared.
        num_tokens: tokens in all that need not be computed.
        part_block_id: the block whose first slots hold the tokens beyond `block_ids`; they are to be
            copied. None where there are none.
        num_revived_blocks: how many of `block_ids` are free now, and would no longer be.
    """

    block_ids: tuple[int, ...] = ()
    num_tokens: int = 0
    part_block_id: int | None = None
    num_revived_blocks: int = 0


NO_HIT = PrefixHit()
