"""Writing and copying KV blocks in torch. Contracts: signatures.WriteKv, signatures.CopyBlocks."""

from collections.abc import Sequence

from torch import Tensor


def write_kv(key: Tensor, value: Tensor, key_blocks: Tensor, value_blocks: Tensor, slots: Tensor) -> None:
    block_size = key_blocks.shape[2]
    block_ids, offsets = slots // block_size, slots % block_size
    key_blocks[block_ids, :, offsets] = key.to(key_blocks.dtype)
    value_blocks[block_ids, :, offsets] = value.to(value_blocks.dtype)


def copy_blocks(
    kv_layers: Sequence[tuple[Tensor, Tensor]], source_ids: Sequence[int], target_ids: Sequence[int]
) -> None:
    for key_blocks, value_blocks in kv_layers:
        for source_id, target_id in zip(source_ids, target_ids, strict=True):
            key_blocks[target_id].copy_(key_blocks[source_id])
            value_blocks[target_id].copy_(value_blocks[source_id])
