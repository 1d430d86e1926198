"""OpenVINO GenAI's continuous batching, for peer_worker. Reads a GGUF file itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino_genai


class Engine:
    """One pipeline; a step of it brings each running request at most one token."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs = options["max_num_seqs"]
        scheduler.max_num_batched_tokens = options["max_num_batched_tokens"]
        scheduler.cache_size = max(1, options["kv_bytes"] >> 30)
        scheduler.enable_prefix_caching = options["prefix_caching"]
        scheduler.dynamic_split_fuse = True
        properties = {"INFERENCE_NUM_THREADS": options["num_threads"], **options.get("properties", {})}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            options["model"], scheduler, "CPU", properties
        )
        self._handles: dict[str, Any] = {}
        self._num_requests = 0

    def describe(self) -> dict[str, Any]:
        options = self._options
        return {
            "engine": "OpenVINO GenAI, ContinuousBatchingPipeline",
            "version": str(openvino_genai.__version__),
            "weights": f"{options['model'].rpartition('/')[2]}, read and repacked by OpenVINO",
            "compute_format": "chosen by OpenVINO (8-bit activations where it groups them)",
            "kv_format": str(
                options.get("properties", {}).get("KV_CACHE_PRECISION", "u8, OpenVINO's default")
            ),
            "kv_bytes": max(1, options["kv_bytes"] >> 30) << 30,
            "num_threads": options["num_threads"],
            "max_num_seqs": options["max_num_seqs"],
            "max_num_batched_tokens": options["max_num_batched_tokens"],
            "prefix_caching": options["prefix_caching"],
            "notes": ["its cache is sized in whole GiB"],
        }

    def add(self, request_id: str, prompt_token_ids: list[int], num_output_tokens: int) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = num_output_tokens
        config.ignore_eos = True
        config.do_sample = False
        prompt = openvino.Tensor(np.array([prompt_token_ids], dtype=np.int64))
        self._handles[request_id] = self._pipeline.add_request(self._num_requests, prompt, config)
        self._num_requests += 1

    def step(self, emit: Any) -> None:
        self._pipeline.step()
        for request_id, handle in list(self._handles.items()):
            token_ids: list[int] = []
            while handle.can_read():
                for output in handle.read().values():
                    token_ids += output.generated_ids
            has_ended = handle.get_status() != openvino_genai.GenerationStatus.RUNNING
            if has_ended:
                del self._handles[request_id]
            if token_ids or has_ended:
                emit(request_id, token_ids, has_ended)

    def stats(self) -> dict[str, float]:
        return {}
