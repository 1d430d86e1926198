"""The kernel table: which function computes each operation on a device, and why that one.

Layers call the table and never an implementation's file. It chooses; it does not calculate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from octavo.checkpoint.ggml_type import GgmlType
from octavo.compute.kernels import reference, signatures
from octavo.compute.kernels.cpu import activations, attention, kv_blocks, linear, norms, rotary
from octavo.compute.kernels.cpu.attention import HEAD_DIM_STEP
from octavo.compute.kernels.cpu.library import NativeLibrary, NativeLibraryError, load_library
from octavo.compute.kernels.cpu.program import ForwardProgram
from octavo.compute.kernels.cpu.tensors import KV_DTYPES
from octavo.compute.kernels.cpu.threads import set_kernel_threads
from octavo.compute.kernels.signatures import AttentionBatch

__all__ = ["AttentionBatch", "KernelChoice", "KernelTable", "for_device", "set_num_threads"]


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """What one operation runs on: `implementation` is "reference" or for example "cpu (avx2)"."""

    operation: str
    implementation: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelTable:
    """One function per operation, each as its contract in `signatures` says.

    Attributes:
        name: the table in a word or two, for logs: "reference", "cpu (avx2)".
        choices: which implementation each operation has, and why.
        kv_dtypes: the formats in which the cache may hold keys and values.
        narrow_kv_dtype: the one that is quickest to read at no loss that matters; None: that of the weights.
        make_program: starts a pass that runs without the interpreter once it is recorded; None: none can.
        has_own_threads: its kernels run on a pool of their own and not on torch's.
        low_bit_types: the formats that `linear` multiplies as they are stored; others must be unpacked.
        layout_version: changes with the order in which `pack_weight` leaves numbers; None: as they were.
        narrow_dtypes: formats of plain matrices that it widens as it multiplies.
    """

    name: str
    pack_weight: signatures.PackWeight
    weight_rows: signatures.WeightRows
    linear: signatures.Linear
    choose_greedy: signatures.ChooseGreedy
    rms_norm: signatures.RmsNorm
    layer_norm: signatures.LayerNorm
    activate: signatures.ActivationFunction
    gated_activation: signatures.GatedActivation
    rotate: signatures.Rotate
    write_kv: signatures.WriteKv
    copy_blocks: signatures.CopyBlocks
    paged_attention: signatures.PagedAttention
    choices: tuple[KernelChoice, ...]
    kv_dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16, torch.int8)
    narrow_kv_dtype: torch.dtype | None = None
    low_bit_types: frozenset[GgmlType] = frozenset()
    narrow_dtypes: frozenset[torch.dtype] = frozenset()
    layout_version: int | None = None
    make_program: Callable[[], signatures.StepProgram] | None = None
    has_own_threads: bool = False

    def describe(self) -> list[KernelChoice]:
        """The choices, in the table's order."""
        return list(self.choices)


OPERATIONS = (
    "linear",
    "choose_greedy",
    "rms_norm",
    "layer_norm",
    "activate",
    "gated_activation",
    "rotate",
    "write_kv",
    "copy_blocks",
    "paged_attention",
)


def for_device(device: torch.device, dtype: torch.dtype = torch.float32) -> KernelTable:
    """The best kernels for tensors of this format on this device."""
    if device.type != "cpu":
        return reference_table(f"{device.type} runs on torch's own kernels")
    if dtype is not torch.float32:
        return reference_table(f"the native CPU kernels compute in float32, not {dtype}")
    try:
        return native_table(load_library())
    except NativeLibraryError as error:
        return reference_table(str(error))


def set_num_threads(kernels: KernelTable, count: int) -> None:
    """Let this table's kernels use so many threads, in the whole process."""
    # Two pools would take each other's cores: torch's threads spin for a while after each operation.
    torch.set_num_threads(1 if kernels.has_own_threads else count)
    set_kernel_threads(count if kernels.has_own_threads else None)


def reference_table(reason: str) -> KernelTable:
    """Every operation on torch, for the one reason given."""
    choices = tuple(KernelChoice(operation, "reference", reason) for operation in OPERATIONS)
    return KernelTable(
        name="reference",
        pack_weight=reference.pack_weight,
        weight_rows=reference.weight_rows,
        linear=reference.linear,
        choose_greedy=reference.choose_greedy,
        rms_norm=reference.rms_norm,
        layer_norm=reference.layer_norm,
        activate=reference.activate,
        gated_activation=reference.gated_activation,
        rotate=reference.rotate,
        write_kv=reference.write_kv,
        copy_blocks=reference.copy_blocks,
        paged_attention=reference.paged_attention,
        choices=choices,
    )


def native_table(library: NativeLibrary) -> KernelTable:
    """The native kernels where there are some, torch for the rest."""
    name = f"cpu ({library.isa_name})"
    native_reasons = {
        "linear": "sums each output in a fixed order, so that a row does not depend on its batch; multiplies "
        f"{', '.join(sorted(t.name for t in linear.LOW_BIT_TYPES))}, float16 and bfloat16 as they are stored",
        "choose_greedy": "keeps the largest of each part of the head's product, and stores no logits",
        "rms_norm": "one pass over each row; on its way into a product where one follows",
        "activate": "in torch's operations that treat all elements alike, wherever the batch puts them",
        "gated_activation": "SiLU in one pass; other activations as above",
        "rotate": "in place, one pass",
        "write_kv": "one copy a row, rounded where the cache holds float16 or int8",
        "copy_blocks": "one copy a block",
        "paged_attention": f"reads the cache in place; head sizes not divisible by {HEAD_DIM_STEP} "
        "take the reference",
    }
    torch_reason = "torch's own kernel is one fast call"
    choices = tuple(
        KernelChoice(operation, name, native_reasons[operation])
        if operation in native_reasons
        else KernelChoice(operation, "reference", torch_reason)
        for operation in OPERATIONS
    )
    return replace(
        reference_table(torch_reason),
        name=name,
        pack_weight=partial(linear.pack_weight, library),
        weight_rows=partial(linear.weight_rows, library),
        linear=partial(linear.linear, library),
        choose_greedy=partial(linear.choose_greedy, library),
        rms_norm=partial(norms.rms_norm, library),
        activate=activations.activate,
        gated_activation=partial(activations.gated_activation, library),
        rotate=partial(rotary.rotate, library),
        write_kv=partial(kv_blocks.write_kv, library),
        copy_blocks=partial(kv_blocks.copy_blocks, library),
        paged_attention=partial(attention.paged_attention, library),
        choices=choices,
        kv_dtypes=KV_DTYPES,
        narrow_kv_dtype=torch.float16,
        low_bit_types=linear.LOW_BIT_TYPES,
        narrow_dtypes=frozenset(linear.NARROW_TYPES),
        layout_version=linear.LAYOUT_VERSION,
        make_program=partial(ForwardProgram, library),
        has_own_threads=True,
    )
