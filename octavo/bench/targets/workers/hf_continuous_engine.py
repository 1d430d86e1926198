"""transformers' continuous batching (what `generate_batch` stands on), for peer_worker."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig


class Engine:
    """One manager, whose own thread generates; a step here waits for what it brings."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        torch.set_num_threads(options["num_threads"])
        model = AutoModelForCausalLM.from_pretrained(
            options["model"],
            dtype=getattr(torch, options["dtype"]),
            attn_implementation="sdpa",
        ).eval()
        page_size = 16
        config = model.config
        bytes_per_page = 2 * config.num_key_value_heads * config.head_dim * page_size
        bytes_per_page *= config.num_hidden_layers * getattr(torch, options["dtype"]).itemsize
        self._num_blocks = options["kv_bytes"] // bytes_per_page
        self._manager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=1),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=page_size,
                num_blocks=self._num_blocks,
                max_batch_tokens=options["max_num_batched_tokens"],
                max_requests_per_batch=options["max_num_seqs"],
                allow_block_sharing=options["prefix_caching"],
                use_async_batching=False,
                use_cuda_graph=False,
            ),
        )
        self._manager.start()
        self._num_told: dict[str, int] = {}

    def describe(self) -> dict[str, Any]:
        options = self._options
        return {
            "engine": "transformers, continuous batching",
            "version": f"{transformers.__version__}, torch {torch.__version__}",
            "weights": f"{options['model'].rpartition('/')[2]}, {options['dtype']}",
            "compute_format": options["dtype"],
            "kv_format": options["dtype"],
            "kv_bytes": options["kv_bytes"],
            "num_threads": options["num_threads"],
            "max_num_seqs": options["max_num_seqs"],
            "max_num_batched_tokens": options["max_num_batched_tokens"],
            "prefix_caching": options["prefix_caching"],
        }

    def add(self, request_id: str, prompt_token_ids: list[int], num_output_tokens: int) -> None:
        self._num_told[request_id] = 0
        self._manager.add_request(
            prompt_token_ids,
            request_id=request_id,
            max_new_tokens=num_output_tokens,
            streaming=True,
            eos_token_id=-1,
        )

    def step(self, emit: Any) -> None:
        result = self._manager.get_result(timeout=1.0)
        if result is None:
            if not self._manager.is_running():
                raise RuntimeError("the manager's thread has ended")
            return
        if result.error is not None:
            raise RuntimeError(f"request {result.request_id} failed: {result.error}")
        num_told = self._num_told.get(result.request_id)
        if num_told is None:
            return
        token_ids = list(result.generated_tokens[num_told:])
        has_ended = result.is_finished()
        self._num_told[result.request_id] = num_told + len(token_ids)
        if has_ended:
            del self._num_told[result.request_id]
        if token_ids or has_ended:
            emit(result.request_id, token_ids, has_ended)

    def stats(self) -> dict[str, float]:
        return {"kv_blocks": float(self._num_blocks)}
