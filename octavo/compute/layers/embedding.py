"""From token ids and positions to vectors. Owns the embedding tables."""

from __future__ import annotations

from torch import Tensor

from octavo.compute.kernels import KernelTable
from octavo.compute.quantization.matrix import StoredWeight, take_tensor
from octavo.model_spec import LearnedPositionsSpec, RopeSpec


class Embedding:
    """The token table, plus the position table of models that learn their positions."""

    def __init__(
        self,
        kernels: KernelTable,
        positions: RopeSpec | LearnedPositionsSpec,
        weights: dict[str, StoredWeight],
    ) -> None:
        # Packed like any other matrix, because a tied head multiplies by the same numbers.
        self.weight = kernels.pack_weight([weights.pop("embedding.weight")])  # [vocab_size, hidden_size]
        self._weight_rows = kernels.weight_rows
        self._position_rows: Tensor | None = None  # [num_positions, hidden_size]
        if isinstance(positions, LearnedPositionsSpec):
            self._position_rows = take_tensor(weights, "positions.weight")[positions.offset :]

    def __call__(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        # token_ids, positions: [num_tokens] int64 -> [num_tokens, hidden_size]
        hidden = self._weight_rows(self.weight, token_ids)
        if self._position_rows is not None:
            hidden += self._position_rows[positions]
        return hidden
