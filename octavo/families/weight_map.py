"""Where each of our parameters lies in a checkpoint: names, transposes, row ranges, row orders.

Families write one template for each module; expansion over layers and suffixes happens here. Data only:
the tensors are fetched and turned in compute/models/weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from octavo.model_spec import DecoderSpec


@dataclass(frozen=True)
class RowRange:
    """Rows [start, stop) of a stored tensor that has `total` of them (after any transpose)."""

    start: int
    stop: int
    total: int


@dataclass(frozen=True)
class TensorSource:
    """One parameter's place in the checkpoint.

    Attributes:
        names: the stored tensor's possible names; the first that the checkpoint has is taken.
        is_transposed: a matrix is stored [in, out] where ours is [out, in].
        rows: the part of a fused tensor that is ours; None takes all of it.
        interleaved_heads: the rows come as this many heads, each with its rotary pairs side by side
            (0, half, 1, half + 1, ...); ours keep the halves apart. None where they already do.
    """

    names: tuple[str, ...]
    is_transposed: bool = False
    rows: RowRange | None = None
    interleaved_heads: int | None = None

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the checkpoint's tensor must have for a parameter of `shape`."""
        if self.rows is not None:
            shape = (self.rows.total, *shape[1:])
        return shape[::-1] if self.is_transposed else shape


def named(*names: str) -> TensorSource:
    """A module that is stored as it is, under the first of these names that is there."""
    return TensorSource(names)


def expand_weight_map(spec: DecoderSpec, templates: Mapping[str, TensorSource]) -> dict[str, TensorSource]:
    """One source for each parameter of `spec`.

    Args:
        templates: module -> source, both without the suffix (.weight, .bias) and with `*` for the layer;
            or a parameter's full name -> full source, for those that follow no rule.
    """
    return {
        name: templates[name] if name in templates else _expand(name, len(shape), templates)
        for name, shape in spec.parameter_shapes().items()
    }


def _expand(name: str, num_dims: int, templates: Mapping[str, TensorSource]) -> TensorSource:
    module, suffix = name.rsplit(".", 1)
    layer = ""
    if module.startswith("layers."):
        _, layer, rest = module.split(".", 2)
        module = f"layers.*.{rest}"
    template = templates[module]
    names = tuple(f"{stored.replace('*', layer)}.{suffix}" for stored in template.names)
    return replace(template, names=names, is_transposed=template.is_transposed and num_dims == 2)
