"""The bytes of the KV cache: one allocation, made once. Which block holds what is not known here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from octavo.compute.kernels import KernelTable
from octavo.compute.layers.attention import KvLayer
from octavo.errors import ConfigError
from octavo.model_spec import DecoderSpec
from octavo.step import BlockCopy


class KvStorage:
    """Keys and values of every layer, in blocks (PagedAttention, arXiv:2309.06180).

    The memory is not cleared: on a CPU a block takes real memory when it is first written. A slot that
    was never written may hold anything, NaN included, so kernels read only slots below a sequence's
    context length.

    Attributes:
        layers: by layer, keys and values as [num_blocks, num_kv_heads, block_size, head_dim].
    """

    def __init__(
        self,
        spec: DecoderSpec,
        kernels: KernelTable,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Raises ConfigError if the memory cannot be had."""
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._kernels = kernels
        attention = spec.attention
        shape = (spec.num_layers, 2, num_blocks, attention.num_kv_heads, block_size, attention.head_dim)
        try:
            pool = torch.empty(shape, dtype=dtype, device=device)
        except RuntimeError as error:  # torch has no narrower class for this on a CPU
            kv_bytes = num_blocks * block_size * spec.kv_bytes_per_token(dtype.itemsize)
            raise ConfigError(
                f"cannot allocate {kv_bytes / 2**20:.0f} MB for the KV cache on {device}; "
                "set a smaller --kv-cache-memory"
            ) from error
        self.num_bytes = pool.nbytes
        self.layers = [KvLayer(keys, values) for keys, values in pool]

    def copy_blocks(self, copies: Sequence[BlockCopy]) -> None:
        """Copy whole blocks, in every layer.

        Raises:
            ValueError: a block does not exist. Nothing has been copied then.
        """
        if not copies:
            return
        source_ids = [copy.source_block_id for copy in copies]
        target_ids = [copy.target_block_id for copy in copies]
        for block_id in (*source_ids, *target_ids):
            if not 0 <= block_id < self.num_blocks:  # kernels write where they are told
                raise ValueError(f"block id {block_id} is not one of {self.num_blocks}")
        self._kernels.copy_blocks(self.layers, source_ids, target_ids)
