"""Rows of logits seen as runs of BLOCK_WIDTH tokens, so that few passes go over the whole vocabulary.

Every reduction is over one block of one row, in a fixed order: a row's numbers are the same bits in any
batch. Never writes to the logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK_WIDTH = 128
_CPU_CHUNK_ELEMENTS = 2**18  # 1 MiB of float32: a chunk stays in a core's cache between its passes
_DEVICE_CHUNK_ELEMENTS = 2**26  # 256 MiB: few launches, bounded memory
# So few are a fraction of a millisecond of one core's work: to wake others for it brings little, and on
# a busy machine waiting for them costs far more. torch leaves pieces below 2**15 elements to one thread.
_ONE_CORE_ELEMENTS = 2**19
_ONE_THREAD_BLOCKS = 240
_SMALLEST_TEMPERATURE = 1e-30  # still a normal float32; anything near it is the argmax already


class VocabBlocks:
    """A blocked view of contiguous float32 logits; the last block may be shorter."""

    def __init__(self, logits: Tensor) -> None:  # [num_rows, vocab_size]
        self.logits = logits
        self.num_rows, self.vocab_size = logits.shape
        self.num_blocks = -(-self.vocab_size // BLOCK_WIDTH)
        self._offsets = torch.arange(BLOCK_WIDTH, device=logits.device)

    def maxima(self) -> Tensor:
        """The largest logit of each block, [num_rows, num_blocks]; NaN where a block holds one."""
        return _reduce_blocks(self.logits, torch.amax)

    def exp_sums(self, rows: Tensor, row_maxima: Tensor, temperatures: Tensor) -> Tensor:
        """Sum over each block of exp((logit - row maximum) / temperature).

        Args:
            rows: which rows, [num_picked] int64.
            row_maxima, temperatures: [num_picked] float32.

        Returns:
            [num_picked, num_blocks] float64, each entry summed in float32.
        """
        is_cpu = self.logits.device.type == "cpu"
        budget = _CPU_CHUNK_ELEMENTS if is_cpu else _DEVICE_CHUNK_ELEMENTS
        rows_per_chunk = max(1, budget // self.vocab_size)
        divisors = temperatures.clamp(min=_SMALLEST_TEMPERATURE)
        sums = []
        for start in range(0, len(rows), rows_per_chunk):
            piece = slice(start, start + rows_per_chunk)
            weights = self.logits.index_select(0, rows[piece])
            # The maximum goes first: dividing large logits by a small temperature could overflow.
            weights.sub_(row_maxima[piece, None]).div_(divisors[piece, None]).exp_()
            sums.append(_reduce_blocks(weights, torch.sum))
        return torch.cat(sums).double()

    def log_sum_exps(self, rows: Tensor, row_maxima: Tensor) -> Tensor:
        """ln of the sum of exp(logit) over each row: a logit less this is its token's log-probability.

        `rows` [num_picked] int64 and their maxima, float32, as of `exp_sums`; [num_picked] float64.
        """
        sums = self.exp_sums(rows, row_maxima, torch.ones_like(row_maxima))
        # The last of a running sum rather than a sum: its order of additions is the same for any batch.
        return row_maxima.double() + sums.cumsum(dim=1)[:, -1].log()

    def gather(self, rows: Tensor, block_indices: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and token ids of single blocks, both [num_picked, BLOCK_WIDTH].

        Places past the end of the vocabulary hold -inf and ids that no token has.
        """
        token_ids = block_indices[:, None] * BLOCK_WIDTH + self._offsets
        places = token_ids.clamp(max=self.vocab_size - 1) + rows[:, None] * self.vocab_size
        # `take` and indexing wake all threads for any size; this never does.
        values = self.logits.view(-1).index_select(0, places.view(-1)).view_as(places)
        if self.vocab_size % BLOCK_WIDTH:
            values = values.masked_fill(token_ids >= self.vocab_size, -torch.inf)
        return values, token_ids


def _reduce_blocks(rows: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """[num_rows, vocab_size] -> [num_rows, num_blocks], the short last block on its own."""
    num_rows, vocab_size = rows.shape
    num_full = vocab_size // BLOCK_WIDTH
    reduced = torch.empty(num_rows, -(-vocab_size // BLOCK_WIDTH), device=rows.device)
    body, tail = rows[:, : num_full * BLOCK_WIDTH], rows[:, num_full * BLOCK_WIDTH :]
    blocks = body.view(num_rows, num_full, BLOCK_WIDTH)
    if rows.device.type == "cpu" and rows.numel() <= _ONE_CORE_ELEMENTS:
        for row in range(num_rows):
            for start in range(0, num_full, _ONE_THREAD_BLOCKS):
                piece = slice(start, min(start + _ONE_THREAD_BLOCKS, num_full))
                reduce(blocks[row, piece], -1, out=reduced[row, piece])
    elif num_full:
        reduced[:, :num_full] = reduce(blocks, -1)
    if tail.shape[1]:
        reduced[:, -1] = reduce(tail, -1)
    return reduced
