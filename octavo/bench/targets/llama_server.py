"""llama.cpp's own server as a target: which flags make it comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octavo.bench.targets.local_server import LocalServer, ServerCommand
from octavo.bench.targets.target import TargetDescription
from octavo.build import build_text
from octavo.config import ModelConfig

_KV_BYTES_PER_VALUE = 2  # its default format, f16
_MAX_CONTEXT = 1 << 17


def llama_server(name: str, environment: Path, options: Mapping[str, Any]) -> LocalServer:
    """One server with as many slots as sequences may run, all in one cache.

    Args:
        environment: where scripts/peers has put it.
        options: model, num_threads, kv_bytes, max_num_seqs, max_num_batched_tokens, prefix_caching.
    """
    spec = build_text(ModelConfig(model=options["model"])).description.spec
    bytes_per_token = spec.kv_bytes_per_token(_KV_BYTES_PER_VALUE)
    num_slots = min(int(options["max_num_seqs"]), 64)
    context = min(int(options["kv_bytes"]) // bytes_per_token, _MAX_CONTEXT)

    def make_argv(port: int) -> list[str]:
        threads, batch = str(options["num_threads"]), str(options["max_num_batched_tokens"])
        return [
            str(environment / "llama.cpp" / "bin" / "llama-server"),
            *("--model", str(options["model"]), "--host", "127.0.0.1", "--port", str(port)),
            *("--threads", threads, "--threads-batch", threads),
            *("--parallel", str(num_slots), "--cont-batching", "--kv-unified", "--ctx-size", str(context)),
            *("--batch-size", batch, "--ubatch-size", batch, "--log-verbosity", "0"),
            *("--cache-ram", "0"),
        ]

    def describe(description: TargetDescription, argv: Sequence[str]) -> TargetDescription:
        return replace(
            description,
            engine="llama.cpp, llama-server",
            weights=f"{Path(options['model']).name}, as stored",
            compute_format="8-bit activations with low-bit weights",
            kv_format="16-bit float",
            kv_bytes=context * bytes_per_token,
            num_threads=int(options["num_threads"]),
            max_num_seqs=num_slots,
            max_num_batched_tokens=int(options["max_num_batched_tokens"]),
            prefix_caching=bool(options["prefix_caching"]),
            flags=tuple(argv[1:]),
        )

    command = ServerCommand(
        engine="llama.cpp",
        make_argv=make_argv,
        describe=describe,
        extra={"cache_prompt": bool(options["prefix_caching"])},
    )
    return LocalServer(name, command)
