"""Attention over the paged cache. Owns the projections of one layer; the cache arrives as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from octavo.compute.kernels import AttentionBatch, KernelTable
from octavo.compute.layers.linear import Linear
from octavo.compute.layers.norm import Norm
from octavo.compute.layers.rotary import RotaryTables
from octavo.compute.quantization.matrix import StoredWeight
from octavo.model_spec import AttentionSpec


class KvLayer(NamedTuple):
    """One layer's cache: keys and values as [num_blocks, num_kv_heads, block_size, row] (see kv_rows)."""

    key_blocks: Tensor
    value_blocks: Tensor


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """Where a step's tokens stand: in their sequences, in the cache, and among each other.

    Attributes:
        positions: [num_tokens] int64, each token's index in its sequence.
        slots: [num_tokens] int64, `block_id * block_size + offset` where its key and value are written.
        batch: which tokens belong to which sequence, and where each sequence's KV lies.
    """

    positions: Tensor
    slots: Tensor
    batch: AttentionBatch


class Attention:
    """Norm, project, norm heads (if the spec says so), rotate, write to the cache, attend, project back."""

    def __init__(
        self,
        kernels: KernelTable,
        spec: AttentionSpec,
        weights: dict[str, StoredWeight],
        prefix: str,
        norm: Norm,
        *,
        window: int | None,
        rotary: RotaryTables | None,
    ) -> None:
        self._kernels = kernels
        self._spec = spec
        self._window = window
        self._rotary = rotary
        names = ("attention.query", "attention.key", "attention.value")
        self._project = Linear.take(kernels, weights, *(prefix + name for name in names), norm=norm)
        self._output = Linear.take(kernels, weights, f"{prefix}attention.output")
        self._query_norm: Norm | None = None
        self._key_norm: Norm | None = None
        if spec.qk_norm is not None:
            self._query_norm = Norm.take(kernels, spec.qk_norm, weights, f"{prefix}attention.query_norm")
            self._key_norm = Norm.take(kernels, spec.qk_norm, weights, f"{prefix}attention.key_norm")

    def __call__(self, hidden: Tensor, inputs: AttentionInputs, kv: KvLayer) -> None:
        # hidden: [num_tokens, hidden_size]; the result is added to it in place
        spec, num_tokens = self._spec, hidden.shape[0]
        heads = self._project(hidden).view(num_tokens, -1, spec.head_dim)
        kv_start, value_start = spec.num_heads, spec.num_heads + spec.num_kv_heads
        query, key, value = heads[:, :kv_start], heads[:, kv_start:value_start], heads[:, value_start:]
        if self._query_norm is not None and self._key_norm is not None:
            query, key = self._query_norm(query), self._key_norm(key)
        if self._rotary is not None:
            self._kernels.rotate(query, key, self._rotary.cos, self._rotary.sin, inputs.positions)
        self._kernels.write_kv(key, value, kv.key_blocks, kv.value_blocks, inputs.slots)
        attended = self._kernels.paged_attention(
            query, kv.key_blocks, kv.value_blocks, inputs.batch, spec.scale, self._window, spec.soft_cap
        )
        self._output(attended.view(num_tokens, spec.num_heads * spec.head_dim), hidden)
