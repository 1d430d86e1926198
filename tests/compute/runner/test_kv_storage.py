"""KV storage: shapes, copies, and one clear line when the memory is not there."""

from __future__ import annotations

import pytest
import torch

from octavo.compute.kernels import for_device
from octavo.compute.runner.kv_storage import KvStorage
from octavo.errors import ConfigError
from octavo.step import BlockCopy, BlockCopyError
from tests.paged_model import CPU, make_spec


def make_storage(num_blocks: int) -> KvStorage:
    return KvStorage(
        make_spec(), for_device(CPU), num_blocks=num_blocks, block_size=4, dtype=torch.float32, device=CPU
    )


def test_size_is_the_arithmetic_of_the_spec() -> None:
    storage = make_storage(10)
    assert storage.num_bytes == 10 * 4 * make_spec().kv_bytes_per_token(4)
    assert len(storage.layers) == 2
    for layer in storage.layers:
        assert layer.key_blocks.shape == layer.value_blocks.shape == (10, 2, 4, 8)
        assert layer.key_blocks.is_contiguous()


def test_copies_reach_every_layer_and_no_other_block() -> None:
    storage = make_storage(6)
    tensors = [tensor for layer in storage.layers for tensor in layer]
    for index, tensor in enumerate(tensors):
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) + index)
    before = [tensor.clone() for tensor in tensors]
    storage.copy_blocks([BlockCopy(1, 4), BlockCopy(2, 0)])
    for tensor, old in zip(tensors, before, strict=True):
        expected = old.clone()
        expected[4], expected[0] = old[1], old[2]
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("copy", [BlockCopy(6, 0), BlockCopy(0, -1)])
def test_copies_of_blocks_that_do_not_exist_are_refused(copy: BlockCopy) -> None:
    with pytest.raises(BlockCopyError, match="is not one of 6"):
        make_storage(6).copy_blocks([copy])


def test_memory_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"cannot allocate \d+ MB .* smaller --kv-cache-memory") as caught:
        make_storage(2**38)
    assert "\n" not in str(caught.value)
