"""DecoderSpec: the axes along which decoder-only language models differ, and the shapes they imply.

One object feeds the decoder, the weight loader, the cache size and any cost model: one truth about
shapes. Plain data; knows no tensor library. An axis enters when two families need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class NormKind(Enum):
    RMS = "rms"  # x / rms(x) * weight                                       (arXiv:1910.07467)
    LAYER = "layer"  # (x - mean) / std * weight + bias                       (arXiv:1607.06450)


class Activation(Enum):
    SILU = "silu"
    RELU = "relu"
    GELU = "gelu"  # exact, by erf
    GELU_TANH = "gelu_tanh"  # the tanh approximation


@dataclass(frozen=True, kw_only=True)
class NormSpec:
    kind: NormKind
    eps: float
    has_weight: bool = True
    has_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class Llama3RopeScaling:
    """Llama 3.1's frequency scaling: low frequencies slowed by `factor`, high ones kept, a ramp between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, kw_only=True)
class LinearRopeScaling:
    """All positions divided by `factor` (arXiv:2306.15595)."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class RopeFactorTensor:
    """Each inverse frequency divided by an entry of the checkpoint's tensor `rope_factors` (GGUF)."""


RopeScaling = Llama3RopeScaling | LinearRopeScaling | RopeFactorTensor


@dataclass(frozen=True, kw_only=True)
class RopeSpec:
    """Rotary positions (arXiv:2104.09864), halves rotated against each other ("neox" order).

    Checkpoints that store interleaved pairs are brought into this order when they are loaded.
    """

    theta: float
    scaling: RopeScaling | None = None


@dataclass(frozen=True, kw_only=True)
class LearnedPositionsSpec:
    """A table of position embeddings, added to the token embeddings; position p reads row p + offset."""

    num_positions: int
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class AttentionSpec:
    """Multi-head or grouped-query attention with a causal mask.

    Attributes:
        num_heads, num_kv_heads: query heads, and the KV heads that groups of them share.
        head_dim: width of one head.
        scale: factor on query-key products (usually head_dim ** -0.5).
        has_qkv_bias, has_output_bias: biases of the projections.
        qk_norm: RMS norm over each head's query and key before rotation (Qwen3), or None.
        soft_cap: scores are bounded by this, as cap * tanh(score / cap), or None.
        window_by_layer: one entry a layer: None sees all earlier tokens; w sees the token itself and the
            w - 1 before it.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    has_qkv_bias: bool = False
    has_output_bias: bool = False
    qk_norm: NormSpec | None = None
    soft_cap: float | None = None
    window_by_layer: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class MlpSpec:
    """The feed-forward part: `down(act(gate(x)) * up(x))` if gated, else `down(act(up(x)))`."""

    intermediate_size: int
    activation: Activation
    is_gated: bool
    has_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """A pre-norm decoder: x += attention(norm(x)); x += mlp(norm(x)); head(final_norm(x)).

    Attributes:
        vocab_size: rows of the embedding and width of the logits.
        max_positions: the longest context the model was made for, in tokens.
        is_head_tied: the output head is the embedding matrix.
        has_head_bias: the output head adds a bias.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    max_positions: int
    norm: NormSpec
    positions: RopeSpec | LearnedPositionsSpec
    attention: AttentionSpec
    mlp: MlpSpec
    is_head_tied: bool
    has_head_bias: bool = False

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter, in Octavo's names. Linear weights are [out, in]."""
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (self.vocab_size, self.hidden_size)}
        if isinstance(self.positions, LearnedPositionsSpec):
            rows = self.positions.num_positions + self.positions.offset
            shapes["positions.weight"] = (rows, self.hidden_size)
        elif isinstance(self.positions.scaling, RopeFactorTensor):
            shapes["positions.rope_factors"] = (self.attention.head_dim // 2,)
        for layer in range(self.num_layers):
            shapes |= {f"layers.{layer}.{name}": s for name, s in self._layer_shapes().items()}
        shapes |= self._norm_shapes("final_norm", self.norm, self.hidden_size)
        if not self.is_head_tied:
            shapes["head.weight"] = (self.vocab_size, self.hidden_size)
        if self.has_head_bias:
            shapes["head.bias"] = (self.vocab_size,)
        return shapes

    def kv_bytes_per_token(self, bytes_per_element: int, scale_bytes: int = 0) -> int:
        """Bytes of keys and values that one token keeps, over all layers.

        Args:
            scale_bytes: what each head's row has beside its elements, where these are small numbers.
        """
        row_bytes = self.attention.head_dim * bytes_per_element + scale_bytes
        return 2 * self.num_layers * self.attention.num_kv_heads * row_bytes

    @property
    def num_parameters(self) -> int:
        total = 0
        for shape in self.parameter_shapes().values():
            size = 1
            for extent in shape:
                size *= extent
            total += size
        return total

    def _layer_shapes(self) -> dict[str, tuple[int, ...]]:
        attention, mlp, hidden = self.attention, self.mlp, self.hidden_size
        query_size = attention.num_heads * attention.head_dim
        kv_size = attention.num_kv_heads * attention.head_dim
        shapes: dict[str, tuple[int, ...]] = {}
        shapes |= self._norm_shapes("attention_norm", self.norm, hidden)
        shapes |= _linear_shapes("attention.query", query_size, hidden, attention.has_qkv_bias)
        shapes |= _linear_shapes("attention.key", kv_size, hidden, attention.has_qkv_bias)
        shapes |= _linear_shapes("attention.value", kv_size, hidden, attention.has_qkv_bias)
        shapes |= _linear_shapes("attention.output", hidden, query_size, attention.has_output_bias)
        if attention.qk_norm is not None:
            shapes |= self._norm_shapes("attention.query_norm", attention.qk_norm, attention.head_dim)
            shapes |= self._norm_shapes("attention.key_norm", attention.qk_norm, attention.head_dim)
        shapes |= self._norm_shapes("mlp_norm", self.norm, hidden)
        if mlp.is_gated:
            shapes |= _linear_shapes("mlp.gate", mlp.intermediate_size, hidden, mlp.has_bias)
        shapes |= _linear_shapes("mlp.up", mlp.intermediate_size, hidden, mlp.has_bias)
        shapes |= _linear_shapes("mlp.down", hidden, mlp.intermediate_size, mlp.has_bias)
        return shapes

    @staticmethod
    def _norm_shapes(name: str, norm: NormSpec, size: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        if norm.has_weight:
            shapes[f"{name}.weight"] = (size,)
        if norm.has_bias:
            shapes[f"{name}.bias"] = (size,)
        return shapes


def _linear_shapes(name: str, out_size: int, in_size: int, has_bias: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (out_size, in_size)}
    if has_bias:
        shapes[f"{name}.bias"] = (out_size,)
    return shapes
