"""Contracts of the kernels: shapes, number formats and what is written in place.

Every implementation (reference, cpu, later triton) obeys these, and tests hold it against the
reference. Nothing here calculates. "Rows may be strided" means: the last dim is contiguous, the
strides of the others are free, so that a slice of a fused projection needs no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, device, dtype, float32

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.quantization.matrix import StoredWeight
from octavo.model_spec import Activation


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBatch:
    """Which rows of a step belong to which sequence, and where their keys and values lie.

    The step's KV must have been written (`write_kv`) before attention runs. A sequence with one row
    decodes, one with more prefills; both kinds may stand in one batch.

    Attributes:
        query_starts: int32 [num_sequences + 1]; rows query_starts[s] to query_starts[s + 1] - 1 are
            sequence s's, at least one; the last entry is num_tokens.
        context_lengths: int32 [num_sequences]; tokens in the cache, this step's included.
        block_tables: int32 [num_sequences, max_blocks]; entries past a sequence's context are not read.
        max_query_length: the most rows of any sequence.
        max_context_length: the largest of context_lengths.
    """

    query_starts: Tensor
    context_lengths: Tensor
    block_tables: Tensor
    max_query_length: int
    max_context_length: int

    @property
    def num_sequences(self) -> int:
        return self.context_lengths.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class StepInputs:
    """What differs from one forward pass to the next.

    Attributes:
        token_ids, positions, slots: int64 [num_tokens].
        batch: which tokens belong to which sequence.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    batch: AttentionBatch


@dataclass(frozen=True, slots=True, eq=False)
class PackedMatrix:
    """Some rows of a weight, in whatever layout its device's `linear` reads.

    Attributes:
        data: the numbers; only the functions of the table that packed them know their order.
        out_size: how many rows.
        ggml_type: the format of a matrix that is kept in fewer bits than products are computed in; None: in
            those same numbers.
    """

    data: Tensor
    out_size: int
    ggml_type: GgmlType | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LinearWeight:
    """A weight matrix [out_size, in_size]: packed matrices, one under the other."""

    parts: tuple[PackedMatrix, ...]
    out_size: int
    in_size: int

    @property
    def device(self) -> device:
        return self.parts[0].data.device

    @property
    def dtype(self) -> dtype:
        """Of the numbers that go in and come out."""
        return float32 if self.parts[0].ggml_type is not None else self.parts[0].data.dtype


class PackWeight(Protocol):
    def __call__(self, matrices: Sequence[StoredWeight]) -> LinearWeight:
        """Matrices [out, in], one under the other -> the same numbers, laid out for `linear`.

        Done once, when a model loads.
        """
        ...


class WeightRows(Protocol):
    def __call__(self, weight: LinearWeight, row_ids: Tensor) -> Tensor:
        """Rows of a packed weight of one part: row_ids int64 [n] -> [n, in].

        A tied head is also the embedding.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class RmsNormed:
    """A product's input is normed first, as by `RmsNorm`: weight [in] or None."""

    weight: Tensor | None
    eps: float


@dataclass(frozen=True, slots=True)
class Gated:
    """A product's input [num_tokens, 2 * in] holds gate and up side by side, for `GatedActivation`."""

    activation: Activation


Before = RmsNormed | Gated
"""What is done to a product's input on its way in: nothing of it need be stored."""


class Linear(Protocol):
    def __call__(
        self,
        x: Tensor,
        weight: LinearWeight,
        bias: Tensor | None = None,
        add_to: Tensor | None = None,
        before: Before | None = None,
    ) -> Tensor:
        """before(x) @ weight.T + bias.

        x [num_tokens, in], rows may be strided; bias [out] -> a new [num_tokens, out]; or, given add_to
        [num_tokens, out], contiguous, the sum with it, IN PLACE, which is also returned.

        Against low-bit parts an implementation may round x to whole numbers with one scale for each row's 32
        neighbouring inputs, as fine as `reference.quantize_activations` or finer.
        """
        ...


class ChooseGreedy(Protocol):
    def __call__(
        self, x: Tensor, weight: LinearWeight, bias: Tensor | None = None, before: Before | None = None
    ) -> tuple[Tensor, Tensor]:
        """The largest of each row of `linear(x, weight, bias, before=before)`, which need not be stored.

        -> int64 [num_tokens], the lowest place among equals; float32 [num_tokens], the value there, NaN
        where the row holds one (its place then means nothing).
        """
        ...


class RmsNorm(Protocol):
    def __call__(self, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        """x / sqrt(mean(x^2) + eps) * weight over the last dim (arXiv:1910.07467).

        x [..., size], rows may be strided; weight [size] or None -> a new contiguous tensor of x's
        shape. Statistics are taken in float32.
        """
        ...


class LayerNorm(Protocol):
    def __call__(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        """(x - mean) / sqrt(var + eps) * weight + bias over the last dim (arXiv:1607.06450).

        x [..., size], weight and bias [size] or None -> a new tensor of x's shape.
        """
        ...


class ActivationFunction(Protocol):
    def __call__(self, x: Tensor, activation: Activation) -> Tensor:
        """activation(x), elementwise; a new contiguous tensor of x's shape [num_tokens, size]."""
        ...


class GatedActivation(Protocol):
    def __call__(self, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        """activation(gate) * up (arXiv:2002.05202).

        gate, up [num_tokens, size], rows may be strided -> a new contiguous [num_tokens, size].
        """
        ...


class Rotate(Protocol):
    def __call__(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> None:
        """Rotary positions (arXiv:2104.09864) in "neox" halves, IN PLACE on query and key.

        With h = head_dim / 2, a = x[..., :h], b = x[..., h:]:  a' = a cos - b sin,  b' = b cos + a sin.

        query [num_tokens, num_heads, head_dim], key [num_tokens, num_kv_heads, head_dim]: rows may be
        strided. cos, sin [max_positions, head_dim // 2] float32. positions int64 [num_tokens], each
        below max_positions.
        """
        ...


class WriteKv(Protocol):
    def __call__(
        self, key: Tensor, value: Tensor, key_blocks: Tensor, value_blocks: Tensor, slots: Tensor
    ) -> None:
        """Put each token's key and value into its slot of one layer's blocks, IN PLACE.

        key, value [num_tokens, num_kv_heads, head_dim], rows may be strided. key_blocks, value_blocks
        [num_blocks, num_kv_heads, block_size, row], contiguous, where row is head_dim; or, in int8, head_dim
        + 4: the numbers, rounded to -127..127 times a scale (the row's largest magnitude / 127), and the
        four bytes of that scale, a float32. slots int64 [num_tokens]:
        block_id * block_size + offset, no two equal.
        """
        ...


class CopyBlocks(Protocol):
    def __call__(
        self, kv_layers: Sequence[tuple[Tensor, Tensor]], source_ids: Sequence[int], target_ids: Sequence[int]
    ) -> None:
        """Copy whole blocks in every layer, IN PLACE: block source_ids[i] onto target_ids[i].

        One copy after another in the order given, so a block may be a target first and a source later.
        kv_layers: (key_blocks, value_blocks) of each layer, shaped as in `WriteKv`.
        """
        ...


class PagedAttention(Protocol):
    def __call__(
        self,
        query: Tensor,
        key_blocks: Tensor,
        value_blocks: Tensor,
        batch: AttentionBatch,
        scale: float,
        window: int | None = None,
        soft_cap: float | None = None,
    ) -> Tensor:
        """Causal softmax attention over the paged cache (arXiv:2309.06180).

        Row i of a sequence with q rows and context c stands at position p = c - q + i and sees the
        positions 0 to p; with a window w only p - w + 1 to p. With a soft cap c a score s = scale * q.k
        becomes c * tanh(s / c) (arXiv:2408.00118). Query head h reads KV head
        h // (num_heads / num_kv_heads). Slots that no row may see are never read: they may hold NaN.

        query [num_tokens, num_heads, head_dim], rows may be strided. key_blocks, value_blocks: one layer's,
        as in `WriteKv`. Softmax in float32.
        -> a new contiguous [num_tokens, num_heads, head_dim].
        """
        ...


@dataclass(frozen=True, slots=True)
class CallTime:
    """What one call of a recorded pass took.

    Attributes:
        operation: "linear", "attention" ...
        in_size, out_size: numbers that it reads and writes for each token; of a product, its weight's sides.
    """

    operation: str
    in_size: int
    out_size: int
    nanoseconds: int


class StepProgram(Protocol):
    """A forward pass that, after the first time, may run without the interpreter."""

    @property
    def is_recorded(self) -> bool:
        """Whether the last run left a recording that the next one may replay."""
        ...

    def scope(self) -> AbstractContextManager[None]:
        """What kernels calculate inside, in-place changes apart, is not needed after it."""
        ...

    def run(self, forward: Callable[[], Tensor], inputs: StepInputs, cache: object) -> Tensor:
        """What `forward()` returns, bit for bit: [num_tokens, hidden_size], good until the next run.

        forward must calculate with nothing but the table's functions, from `inputs` and `cache` alone; where
        it does not, it is called every time. A recording holds for one cache, the same object.
        """
        ...

    def start_timing(self) -> None:
        """Add up from now on what each call of the recording takes; RuntimeError where there is none."""
        ...

    def stop_timing(self) -> list[CallTime]:
        """What each call took since `start_timing`; empty where the pass was recorded anew meanwhile."""
        ...
