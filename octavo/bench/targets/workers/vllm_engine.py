"""vLLM's engine in its own process, for peer_worker. Made for its CPU build."""

from __future__ import annotations

from typing import Any

import vllm
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.sampling_params import RequestOutputKind


class Engine:
    """One engine; a step of it is vLLM's own step."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=options["model"],
                dtype=options["dtype"],
                max_model_len=options["max_model_len"],
                max_num_seqs=options["max_num_seqs"],
                max_num_batched_tokens=options["max_num_batched_tokens"],
                enable_prefix_caching=options["prefix_caching"],
                skip_tokenizer_init=True,
                disable_log_stats=True,
                enforce_eager=options["enforce_eager"],
            )
        )

    def describe(self) -> dict[str, Any]:
        options = self._options
        return {
            "engine": "vLLM (CPU)",
            "version": str(vllm.__version__),
            "weights": f"{options['model'].rpartition('/')[2]}, {options['dtype']}",
            "compute_format": options["dtype"],
            "kv_format": options["dtype"],
            "kv_bytes": options["kv_bytes"],
            "num_threads": options["num_threads"],
            "max_num_seqs": options["max_num_seqs"],
            "max_num_batched_tokens": options["max_num_batched_tokens"],
            "prefix_caching": options["prefix_caching"],
            "notes": ["its cache is sized in whole GiB"],
        }

    def add(self, request_id: str, prompt_token_ids: list[int], num_output_tokens: int) -> None:
        params = SamplingParams(
            temperature=0.0,
            max_tokens=num_output_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._engine.add_request(request_id, {"prompt_token_ids": prompt_token_ids}, params)

    def step(self, emit: Any) -> None:
        for output in self._engine.step():
            emit(output.request_id, list(output.outputs[0].token_ids), output.finished)

    def stats(self) -> dict[str, float]:
        return {}
