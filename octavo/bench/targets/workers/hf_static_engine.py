"""transformers' `generate`, for peer_worker: static batches, padded on the left to their longest prompt.

A batch runs until its longest output is done, and nobody joins it meanwhile.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList


class Engine:
    """One model; a step of it is a whole batch."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        torch.set_num_threads(options["num_threads"])
        dtype = getattr(torch, options["dtype"])
        self._model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=dtype).eval()
        self._waiting: list[tuple[str, list[int], int]] = []
        self._num_steps, self._num_batches = 0, 0

    def describe(self) -> dict[str, Any]:
        options = self._options
        return {
            "engine": "transformers, model.generate in static batches",
            "version": f"{transformers.__version__}, torch {torch.__version__}",
            "weights": f"{options['model'].rpartition('/')[2]}, {options['dtype']}",
            "compute_format": options["dtype"],
            "kv_format": options["dtype"],
            "num_threads": options["num_threads"],
            "max_num_seqs": options["max_num_seqs"],
            "prefix_caching": False,
            "notes": ["a batch is padded to its longest prompt and runs to its longest output"],
        }

    def add(self, request_id: str, prompt_token_ids: list[int], num_output_tokens: int) -> None:
        self._waiting.append((request_id, prompt_token_ids, num_output_tokens))

    def step(self, emit: Any) -> None:
        size = self._options["max_num_seqs"]
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        num_longest = max(len(prompt) for _, prompt, _ in batch)
        num_steps = max(num_output for _, _, num_output in batch)
        padding = [num_longest - len(prompt) for _, prompt, _ in batch]
        prompts = [[0] * pad + prompt for pad, (_, prompt, _) in zip(padding, batch, strict=True)]
        mask = [[0] * pad + [1] * (num_longest - pad) for pad in padding]
        with torch.inference_mode():
            self._model.generate(
                input_ids=torch.tensor(prompts),
                attention_mask=torch.tensor(mask),
                do_sample=False,
                max_new_tokens=num_steps,
                eos_token_id=None,
                pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([_Tell(batch, num_longest, emit)]),
            )
        for request_id, _, _ in batch:
            emit(request_id, [], True)
        self._num_batches += 1
        self._num_steps += num_steps

    def stats(self) -> dict[str, float]:
        return {"batches": float(self._num_batches), "steps": float(self._num_steps)}


class _Tell(StoppingCriteria):
    """Never stops anything: it sees each step's tokens."""

    def __init__(self, batch: list[tuple[str, list[int], int]], num_longest: int, emit: Any) -> None:
        self._batch, self._num_longest, self._emit = batch, num_longest, emit

    def __call__(self, input_ids: Any, scores: Any, **unused: Any) -> Any:
        num_made = input_ids.shape[1] - self._num_longest
        newest: list[int] = input_ids[:, -1].tolist()
        for (request_id, _prompt, num_output), token_id in zip(self._batch, newest, strict=True):
            if num_made <= num_output:
                self._emit(request_id, [token_id], False)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)
