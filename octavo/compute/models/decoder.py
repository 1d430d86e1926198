"""The one forward pass, for every family: built from a DecoderSpec and its weights.

Owns the order of layers; shapes come from the spec, arithmetic from the kernel table. It knows no
checkpoint and no request.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from torch import Tensor

from octavo.compute.kernels import KernelTable
from octavo.compute.kernels.signatures import CallTime, StepInputs
from octavo.compute.layers.attention import Attention, AttentionInputs, KvLayer
from octavo.compute.layers.embedding import Embedding
from octavo.compute.layers.linear import Linear
from octavo.compute.layers.mlp import Mlp
from octavo.compute.layers.norm import Norm
from octavo.compute.layers.rotary import RotaryTables, build_rotary_tables
from octavo.compute.quantization.matrix import StoredWeight, take_tensor
from octavo.model_spec import DecoderSpec, RopeSpec


class DecoderLayer:
    """`x += attention(norm(x)); x += mlp(norm(x))`, in place."""

    def __init__(
        self,
        kernels: KernelTable,
        spec: DecoderSpec,
        weights: dict[str, StoredWeight],
        layer_index: int,
        rotary: RotaryTables | None,
    ) -> None:
        prefix = f"layers.{layer_index}."
        self._attention = Attention(
            kernels,
            spec.attention,
            weights,
            prefix,
            Norm.take(kernels, spec.norm, weights, f"{prefix}attention_norm"),
            window=spec.attention.window_by_layer[layer_index],
            rotary=rotary,
        )
        mlp_norm = Norm.take(kernels, spec.norm, weights, f"{prefix}mlp_norm")
        self._mlp = Mlp(kernels, spec.mlp, weights, prefix, mlp_norm)

    def __call__(self, hidden: Tensor, inputs: AttentionInputs, kv: KvLayer) -> None:
        # hidden: [num_tokens, hidden_size], changed in place
        self._attention(hidden, inputs, kv)
        self._mlp(hidden)


class Decoder:
    """A decoder-only language model on one device."""

    def __init__(self, spec: DecoderSpec, weights: dict[str, StoredWeight], kernels: KernelTable) -> None:
        """Build from `weights`, which holds exactly `spec.parameter_shapes()` and is emptied.

        Emptied, so that tensors which are stacked into one product do not stay in memory twice.

        Raises:
            ValueError: a tensor is missing, left over or of another shape.
        """
        _check_shapes(spec, weights)
        self.spec = spec
        self.weight_bytes = sum(tensor.nbytes for tensor in weights.values())
        self.format_name = _name_formats(weights)
        self._embedding = Embedding(kernels, spec.positions, weights)
        self.device = self._embedding.weight.device
        self.dtype = self._embedding.weight.dtype
        rotary = None
        if isinstance(spec.positions, RopeSpec):
            name = "positions.rope_factors"
            factors = take_tensor(weights, name) if name in weights else None
            rotary = build_rotary_tables(
                spec.positions,
                spec.attention.head_dim,
                spec.max_positions,
                factors=factors,
                device=self.device,
            )
        self._layers = [
            DecoderLayer(kernels, spec, weights, index, rotary) for index in range(spec.num_layers)
        ]
        self._program = None if kernels.make_program is None else kernels.make_program()
        norm = Norm.take(kernels, spec.norm, weights, "final_norm")
        if spec.is_head_tied:
            head_bias = take_tensor(weights, "head.bias") if spec.has_head_bias else None
            self._head = Linear(kernels, self._embedding.weight, head_bias, norm=norm)
        else:
            self._head = Linear.take(kernels, weights, "head", norm=norm)

    @property
    def is_recorded(self) -> bool:
        """Whether the next pass may run without the interpreter."""
        return self._program is not None and self._program.is_recorded

    def forward(self, token_ids: Tensor, inputs: AttentionInputs, kv_layers: Sequence[KvLayer]) -> Tensor:
        """Push tokens through all layers; their keys and values are written to the cache.

        Args:
            token_ids: [num_tokens] int64.
            inputs: where the tokens stand.
            kv_layers: the cache of each layer.

        Returns:
            [num_tokens, hidden_size], before the final norm: what `logits` takes rows of. Good until the
            next pass.
        """
        if self._program is None:
            return self._pass(token_ids, inputs, kv_layers)
        step = StepInputs(token_ids, inputs.positions, inputs.slots, inputs.batch)
        return self._program.run(lambda: self._pass(token_ids, inputs, kv_layers), step, kv_layers)

    def _pass(self, token_ids: Tensor, inputs: AttentionInputs, kv_layers: Sequence[KvLayer]) -> Tensor:
        hidden = self._embedding(token_ids, inputs.positions)
        for layer, kv in zip(self._layers, kv_layers, strict=True):
            with nullcontext() if self._program is None else self._program.scope():
                layer(hidden, inputs, kv)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] -> [num_rows, vocab_size] float32: scores of the next token."""
        return self._head(hidden).float()

    def start_timing(self) -> None:
        """See StepProgram; RuntimeError where a pass cannot be recorded or has not been."""
        if self._program is None:
            raise RuntimeError("these kernels record no passes")
        self._program.start_timing()

    def stop_timing(self) -> list[CallTime]:
        return [] if self._program is None else self._program.stop_timing()

    def choose_greedy(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest next token of each row, without its logits: see signatures.ChooseGreedy."""
        return self._head.choose_greedy(hidden)


def _name_formats(weights: dict[str, StoredWeight]) -> str:
    """The formats of the matrices: "float32", or for example "Q4_1 + Q8_0"."""
    names = {
        str(weight.dtype).removeprefix("torch.") if isinstance(weight, Tensor) else weight.ggml_type.name
        for weight in weights.values()
        if len(weight.shape) == 2
    }
    return " + ".join(sorted(names))


def _check_shapes(spec: DecoderSpec, weights: dict[str, StoredWeight]) -> None:
    wanted = spec.parameter_shapes()
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != wanted:
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(
            f"the weights do not fit the spec: {names[0]!r} should be {wanted.get(names[0])}, "
            f"not {found.get(names[0])} ({len(names)} such tensors)"
        )
