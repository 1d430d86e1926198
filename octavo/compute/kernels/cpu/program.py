"""The step without the interpreter: a forward pass recorded once, then replayed by one native call.

The calls are noted down while the ordinary pass makes them, so there is no second description of a model. A
recording is used only after it has given the same bits as the pass itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from octavo.compute.kernels.cpu.library import NativeLibrary
from octavo.compute.kernels.cpu.scratch import Buffers
from octavo.compute.kernels.cpu.tensors import check_dense
from octavo.compute.kernels.cpu.threads import kernel_threads
from octavo.compute.kernels.signatures import CallTime, StepInputs

MIN_CAPACITY = 64  # tokens; more are made room for, by recording again, when a step has them


class ForwardProgram:
    """One decoder's pass over one cache. See signatures.StepProgram."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library
        self._handle: int | None = None
        self._buffers: Buffers | None = None
        self._out: Tensor | None = None  # [capacity, hidden_size], one of the buffers
        self._cache: object = None
        self._is_recordable = True
        self._nanoseconds: ctypes.Array[ctypes.c_int64] | None = None  # of each call, while timing

    @property
    def is_recorded(self) -> bool:
        return self._handle is not None

    def scope(self) -> AbstractContextManager[None]:
        buffers = self._library.scratch.buffers
        return nullcontext() if buffers is None else buffers.scope()

    def run(self, forward: Callable[[], Tensor], inputs: StepInputs, cache: object) -> Tensor:
        if not self._is_recordable:
            return forward()
        num_tokens = inputs.token_ids.shape[0]
        if self._buffers is None or self._cache is not cache or num_tokens > self._buffers.capacity:
            return self._record(forward, inputs, cache)
        return self._replay(inputs)

    def _record(self, forward: Callable[[], Tensor], inputs: StepInputs, cache: object) -> Tensor:
        """Run the pass, noting its calls down; then run them once, to see whether they are all of it."""
        self._drop()
        num_tokens = inputs.token_ids.shape[0]
        capacity = max(MIN_CAPACITY, 1 << (num_tokens - 1).bit_length())
        scratch, functions = self._library.scratch, self._library.functions
        scratch.buffers = buffers = Buffers(capacity)
        handle = functions.octavo_start_recording()
        try:
            out = forward()
            scratch.reads(out)
        finally:
            functions.octavo_stop_recording()
            scratch.buffers = None
        expected = out.clone()
        self._handle, self._buffers, self._cache = handle, buffers, cache
        self._out = out
        if buffers.is_closed:
            buffers.poison()
            if torch.equal(self._replay(inputs), expected):
                return self._out[:num_tokens]
        self._drop()
        self._is_recordable = False
        return forward()  # again: a replay with something missing has written to the cache

    def _replay(self, inputs: StepInputs) -> Tensor:
        if self._out is None:
            raise RuntimeError("there is no recording")
        num_tokens, num_sequences = inputs.token_ids.shape[0], inputs.batch.num_sequences
        batch = inputs.batch
        for name, numbers in (("token_ids", inputs.token_ids), ("positions", inputs.positions)):
            check_dense(name, numbers, torch.int64, (num_tokens,))
        check_dense("slots", inputs.slots, torch.int64, (num_tokens,))
        check_dense("query_starts", batch.query_starts, torch.int32, (num_sequences + 1,))
        check_dense("context_lengths", batch.context_lengths, torch.int32, (num_sequences,))
        check_dense("block_tables", batch.block_tables, torch.int32, tuple(batch.block_tables.shape))
        wrong_call = self._library.functions.octavo_run_program(
            self._handle,
            kernel_threads(),
            num_tokens,
            inputs.token_ids.data_ptr(),
            inputs.positions.data_ptr(),
            inputs.slots.data_ptr(),
            batch.query_starts.data_ptr(),
            batch.context_lengths.data_ptr(),
            batch.block_tables.data_ptr(),
            batch.block_tables.shape[1],
            num_sequences,
            self._nanoseconds,
        )
        if wrong_call:
            raise IndexError(f"call {wrong_call - 1} of the recorded pass found an index out of range")
        return self._out.as_strided((num_tokens, *self._out.shape[1:]), self._out.stride())

    def start_timing(self) -> None:
        """Add up from now on what each call of the recording takes.

        Raises:
            RuntimeError: nothing is recorded.
        """
        if self._handle is None:
            raise RuntimeError("there is no recording")
        num_calls = self._library.functions.octavo_num_calls(self._handle)
        self._nanoseconds = (ctypes.c_int64 * num_calls)()

    def stop_timing(self) -> list[CallTime]:
        """What each call took since `start_timing`, in order; nothing where the pass was recorded anew."""
        if self._nanoseconds is None or self._handle is None:
            return []
        times = []
        for index, nanoseconds in enumerate(self._nanoseconds):
            in_size, out_size = ctypes.c_int64(), ctypes.c_int64()
            operation = self._library.functions.octavo_call_label(
                self._handle, index, ctypes.byref(in_size), ctypes.byref(out_size)
            )
            times.append(CallTime(operation.decode(), in_size.value, out_size.value, nanoseconds))
        self._nanoseconds = None
        return times

    def _drop(self) -> None:
        if self._handle is not None:
            self._library.functions.octavo_free_program(self._handle)
        self._handle = self._buffers = self._out = self._cache = None
        self._nanoseconds = None

    def __del__(self) -> None:
        self._drop()
