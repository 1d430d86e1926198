"""A model over a paged cache that is as hostile as the contract allows, for tests.

Blocks are handed out in shuffled order and hold NaN until they are written: a kernel that reads a slot
it should not shows at once.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octavo.checkpoint.source import resolve_model
from octavo.compute.kernels import KernelTable, for_device
from octavo.compute.models.decoder import Decoder
from octavo.compute.models.weights import load_weights
from octavo.compute.runner.batch_inputs import BatchLimits, build_batch_inputs
from octavo.compute.runner.kv_storage import KvStorage
from octavo.families import describe_model
from octavo.model_spec import (
    Activation,
    AttentionSpec,
    DecoderSpec,
    MlpSpec,
    NormKind,
    NormSpec,
    RopeSpec,
)
from octavo.step import SequenceSlice, StepPlan

CPU = torch.device("cpu")


def load_decoder(path: Path, device: torch.device = CPU, *, kernels: KernelTable | None = None) -> Decoder:
    """A checkpoint as a float32 decoder, by the way that the engine loads it."""
    description = describe_model(resolve_model(str(path)))
    weights = load_weights(description, dtype=torch.float32, device=device)
    return Decoder(description.spec, weights, kernels or for_device(device))


def make_kv_storage(decoder: Decoder, num_blocks: int, block_size: int) -> KvStorage:
    """A cache whose every slot holds NaN."""
    storage = KvStorage(
        decoder.spec,
        for_device(decoder.device),
        num_blocks=num_blocks,
        block_size=block_size,
        dtype=decoder.dtype,
        device=decoder.device,
    )
    for layer in storage.layers:
        layer.key_blocks.fill_(torch.nan)
        layer.value_blocks.fill_(torch.nan)
    return storage


class PagedModel:
    """Feeds any number of sequences, piece by piece, and gives the logits after every token."""

    def __init__(
        self, decoder: Decoder, *, num_blocks: int = 64, block_size: int = 16, seed: int = 0
    ) -> None:
        self._decoder = decoder
        self._storage = make_kv_storage(decoder, num_blocks, block_size)
        self._limits = BatchLimits(
            vocab_size=decoder.spec.vocab_size,
            max_positions=decoder.spec.max_positions,
            num_blocks=num_blocks,
            block_size=block_size,
        )
        self._free_block_ids = list(range(num_blocks))
        random.Random(seed).shuffle(self._free_block_ids)
        self._block_ids: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}

    @torch.inference_mode()
    def feed(self, pieces: dict[int, list[int]]) -> dict[int, Tensor]:
        """Append tokens to sequences, all in one pass: sequence id -> logits [num_tokens, vocab_size]."""
        slices = [self._slice(sequence_id, token_ids) for sequence_id, token_ids in pieces.items()]
        plan = StepPlan(step_id=0, slices=slices)
        inputs = build_batch_inputs(plan, self._limits, self._decoder.device)
        hidden = self._decoder.forward(inputs.token_ids, inputs.attention, self._storage.layers)
        logits = self._decoder.logits(hidden).cpu()
        starts, ends = inputs.row_starts[:-1], inputs.row_starts[1:]
        return {
            sequence_id: logits[start:end]
            for sequence_id, start, end in zip(pieces, starts, ends, strict=True)
        }

    def _slice(self, sequence_id: int, token_ids: list[int]) -> SequenceSlice:
        start_position = self._lengths.get(sequence_id, 0)
        block_ids = self._block_ids.setdefault(sequence_id, [])
        while len(block_ids) * self._limits.block_size < start_position + len(token_ids):
            block_ids.append(self._free_block_ids.pop())
        self._lengths[sequence_id] = start_position + len(token_ids)
        return SequenceSlice(sequence_id, token_ids, start_position, list(block_ids))


def make_spec(**overrides: Any) -> DecoderSpec:
    """A small llama-like spec: two layers, grouped queries, rotary positions."""
    num_layers = 2
    return DecoderSpec(
        **{
            "vocab_size": 97,
            "hidden_size": 24,
            "num_layers": num_layers,
            "max_positions": 256,
            "norm": NormSpec(kind=NormKind.RMS, eps=1e-5),
            "positions": RopeSpec(theta=10000.0),
            "attention": AttentionSpec(
                num_heads=6, num_kv_heads=2, head_dim=8, scale=8**-0.5, window_by_layer=(None,) * num_layers
            ),
            "mlp": MlpSpec(intermediate_size=40, activation=Activation.SILU, is_gated=True),
            "is_head_tied": True,
            **overrides,
        }
    )


def random_weights(spec: DecoderSpec, seed: int = 0) -> dict[str, Tensor]:
    """Random values for every parameter of a spec, wide enough for logits far from flat."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (1.0 if "embedding" in name else shape[-1] ** -0.5)
        for name, shape in spec.parameter_shapes().items()
    }


def random_decoder(spec: DecoderSpec | None = None, device: torch.device = CPU) -> Decoder:
    spec = spec or make_spec()
    weights = {name: tensor.to(device) for name, tensor in random_weights(spec).items()}
    return Decoder(spec, weights, for_device(device))
