"""The bytes of the KV cache, on the device and on the host. Which block holds what is not known here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.kv_rows import row_size, scale_bytes
from octavo.compute.layers.attention import KvLayer
from octavo.errors import ConfigError
from octavo.model_spec import DecoderSpec
from octavo.step import BlockCopy, BlockCopyError, CopyKind


class KvStorage:
    """Keys and values of every layer, in blocks (PagedAttention, arXiv:2309.06180).

    The memory is not cleared: on a CPU a block takes real memory when it is first written. A slot that
    was never written may hold anything, NaN included, so kernels read only slots below a sequence's
    context length.

    Attributes:
        layers: by layer, keys and values as [num_blocks, num_kv_heads, block_size, row]; see kv_rows.
        host_layers: the same of the host pool, to which blocks are swapped.
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
        num_host_blocks: int = 0,
    ) -> None:
        """Raises ConfigError if the memory cannot be had."""
        self.num_blocks = num_blocks
        self.num_host_blocks = num_host_blocks
        self.block_size = block_size
        self._kernels = kernels
        self.layers = _allocate(spec, num_blocks, block_size, dtype, device, "--kv-cache-memory")
        self.num_bytes = sum(tensor.nbytes for layer in self.layers for tensor in layer)
        self.host_layers: list[KvLayer] = []
        if num_host_blocks:
            host = torch.device("cpu")
            self.host_layers = _allocate(spec, num_host_blocks, block_size, dtype, host, "--swap-space")

    def copy_blocks(self, copies: Sequence[BlockCopy]) -> None:
        """Copy whole blocks, in every layer, in the order given.

        Raises:
            BlockCopyError: a block does not exist (nothing has been copied then), or copying failed.
        """
        try:
            for copy in copies:
                self._check(copy)
            for kind, run in groupby(copies, key=lambda copy: copy.kind):
                self._copy_run(kind, list(run))
        except (RuntimeError, ValueError, IndexError) as error:
            raise BlockCopyError(f"the KV blocks of this step could not be copied: {error}") from error

    def _check(self, copy: BlockCopy) -> None:
        # Kernels write where they are told.
        source_limit = self.num_host_blocks if copy.kind is CopyKind.SWAP_IN else self.num_blocks
        target_limit = self.num_host_blocks if copy.kind is CopyKind.SWAP_OUT else self.num_blocks
        for block_id, limit in ((copy.source_block_id, source_limit), (copy.target_block_id, target_limit)):
            if not 0 <= block_id < limit:
                raise ValueError(f"block id {block_id} is not one of {limit}")

    def _copy_run(self, kind: CopyKind, run: list[BlockCopy]) -> None:
        """Copies of one kind. Between two pools no copy's target is another's source."""
        source_ids = [copy.source_block_id for copy in run]
        target_ids = [copy.target_block_id for copy in run]
        if kind is CopyKind.WITHIN:
            self._kernels.copy_blocks(self.layers, source_ids, target_ids)
            return
        pools = (self.layers, self.host_layers)
        sources, targets = pools if kind is CopyKind.SWAP_OUT else reversed(pools)
        for source_layer, target_layer in zip(sources, targets, strict=True):
            for source, target in zip(source_layer, target_layer, strict=True):
                target[target_ids] = source[source_ids].to(target.device)


def _allocate(
    spec: DecoderSpec,
    num_blocks: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    flag: str,
) -> list[KvLayer]:
    """One allocation for a whole pool, cut into layers."""
    attention = spec.attention
    shape = (
        spec.num_layers,
        2,
        num_blocks,
        attention.num_kv_heads,
        block_size,
        row_size(dtype, attention.head_dim),
    )
    try:
        pool = torch.empty(shape, dtype=dtype, device=device)
    except RuntimeError as error:  # torch has no narrower class for this on a CPU
        kv_bytes = num_blocks * block_size * spec.kv_bytes_per_token(dtype.itemsize, scale_bytes(dtype))
        raise ConfigError(
            f"cannot allocate {kv_bytes / 2**20:.0f} MB for the KV cache on {device}; set a smaller {flag}"
        ) from error
    return [KvLayer(keys, values) for keys, values in pool]
