"""llama.cpp through llama-cpp-python's low-level interface, for peer_worker.

The package's own `Llama` runs one sequence; this batches many as llama.cpp's server does: all decoding
sequences and then parts of prompts, up to the batch's size, in one llama_decode.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Built beside the package by scripts/peers; a package that brings its own library needs none of this.
_LIBRARIES = Path(sys.prefix) / "llama.cpp" / "bin"
if _LIBRARIES.is_dir():
    os.environ.setdefault("LLAMA_CPP_LIB_PATH", str(_LIBRARIES))

import llama_cpp  # noqa: E402  (after the variable that it reads)


@dataclass
class _Sequence:
    request_id: str
    slot: int
    tokens: list[int]  # prompt first; those from num_computed on are still to be computed
    num_left: int
    num_computed: int = 0


class Engine:
    """One context with as many slots as sequences may run."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            options["model"].encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {options['model']}")
        self._batch_size = options["max_num_batched_tokens"]
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = options["kv_bytes"] // self._bytes_per_token()
        params.n_batch = params.n_ubatch = self._batch_size
        params.n_seq_max = options["max_num_seqs"]
        params.n_threads = params.n_threads_batch = options["num_threads"]
        params.kv_unified = True
        params.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp cannot make a context")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(self._batch_size, 0, 1)
        self._free_slots = list(range(options["max_num_seqs"]))
        self._waiting: list[tuple[str, list[int], int]] = []
        self._running: list[_Sequence] = []

    def describe(self) -> dict[str, Any]:
        options = self._options
        return {
            "engine": "llama.cpp, through llama-cpp-python",
            "version": str(llama_cpp.__version__),
            "weights": f"{options['model'].rpartition('/')[2]}, as stored",
            "compute_format": "8-bit activations with low-bit weights",
            "kv_format": "16-bit float",
            "kv_bytes": options["kv_bytes"],
            "num_threads": options["num_threads"],
            "max_num_seqs": options["max_num_seqs"],
            "max_num_batched_tokens": self._batch_size,
            "prefix_caching": False,
            "notes": ["batched by the benchmark's worker, as the server does"],
        }

    def add(self, request_id: str, prompt_token_ids: list[int], num_output_tokens: int) -> None:
        self._waiting.append((request_id, list(prompt_token_ids), num_output_tokens))

    def step(self, emit: Any) -> None:
        self._admit()
        asking = self._fill_batch()
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status != 0:
            raise RuntimeError(
                f"llama_decode answered {status}: the cache is full" if status == 1 else status
            )
        for place, sequence in asking:
            logits = llama_cpp.llama_get_logits_ith(self._context, place)
            token_id = int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())
            sequence.tokens.append(token_id)
            sequence.num_left -= 1
            emit(sequence.request_id, [token_id], sequence.num_left == 0)
            if sequence.num_left == 0:
                self._running.remove(sequence)
                llama_cpp.llama_memory_seq_rm(self._memory, sequence.slot, -1, -1)
                self._free_slots.append(sequence.slot)

    def stats(self) -> dict[str, float]:
        return {}

    def _admit(self) -> None:
        while self._waiting and self._free_slots:
            request_id, tokens, num_output = self._waiting.pop(0)
            self._running.append(_Sequence(request_id, self._free_slots.pop(), tokens, num_output))

    def _fill_batch(self) -> list[tuple[int, _Sequence]]:
        """Decoding sequences first. Places in the batch whose logits are wanted, and of whom."""
        batch, num_tokens = self._batch, 0
        asking: list[tuple[int, _Sequence]] = []
        by_length = sorted(self._running, key=lambda one: len(one.tokens) - one.num_computed > 1)
        for sequence in by_length:
            first = sequence.num_computed
            last = min(len(sequence.tokens), first + self._batch_size - num_tokens)
            for position in range(first, last):
                batch.token[num_tokens] = sequence.tokens[position]
                batch.pos[num_tokens] = position
                batch.n_seq_id[num_tokens] = 1
                batch.seq_id[num_tokens][0] = sequence.slot
                batch.logits[num_tokens] = position == len(sequence.tokens) - 1
                num_tokens += 1
            if last == len(sequence.tokens) and last > first:
                asking.append((num_tokens - 1, sequence))
            sequence.num_computed = last
        batch.n_tokens = num_tokens
        return asking

    def _bytes_per_token(self) -> int:
        model = self._model
        head_dim = llama_cpp.llama_model_n_embd(model) // llama_cpp.llama_model_n_head(model)
        num_values = llama_cpp.llama_model_n_head_kv(model) * head_dim
        return 2 * 2 * num_values * int(llama_cpp.llama_model_n_layer(model))
