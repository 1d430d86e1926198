"""Every knob on one page: frozen, composed dataclasses. The environment is read here and nowhere else.

Command-line flags and docs/config.md are generated from these fields: `max_num_seqs` becomes
`--max-num-seqs`. Facts derived from a setting are returned as values, never written back.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octavo.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")
KV_DTYPES = (*DTYPES, "int8")
QUANTIZATIONS = ("none", "int8", "int4")
POLICIES = ("fcfs", "priority", "fair")

_BYTE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TOKEN_UNITS = {"": 1, "K": 1024, "M": 1024**2}


def parse_bytes(text: str) -> int:
    """'512MB', '2GiB', '1.5G' or plain bytes -> bytes (units are powers of 1024)."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if match is None:
        raise ConfigError(f"{text!r} is not a size; write for example 512MB or 2GB")
    return int(float(match[1]) * _BYTE_UNITS[match[2]])


def parse_tokens(text: str) -> int:
    """'4096', '4k' or '1M' -> tokens (k = 1024)."""
    match = re.fullmatch(r"\s*([0-9]+)\s*([KM]?)\s*", text.upper())
    if match is None:
        raise ConfigError(f"{text!r} is not a number of tokens; write for example 4096 or 4k")
    return int(match[1]) * _TOKEN_UNITS[match[2]]


def parse_weights(text: str) -> tuple[tuple[str, float], ...]:
    """'alice=2,bob=0.5' -> (("alice", 2.0), ("bob", 0.5))."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        key, _, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not key.strip() or not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"{part!r} is not KEY=WEIGHT with a weight above 0; write for example alice=2")
        weights[key.strip()] = weight
    return tuple(weights.items())


def setting(
    default: Any,
    help: str,
    *,
    parse: Callable[[str], Any] = str,
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
    env: str | None = None,
) -> Any:
    """A field with what its flag needs: help, parser of its text, allowed words, environment variable."""
    metadata = {"help": help, "parse": parse, "choices": choices, "metavar": metavar, "env": env}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, from where."""

    model: str | None = setting(
        None,
        "Hugging Face folder, .gguf file or hub id; none takes the installed starter model",
        metavar="MODEL",
    )
    tokenizer: str | None = setting(
        None, "folder or file to take the tokenizer from instead of the model", metavar="PATH"
    )
    chat_template: str | None = setting(
        None, "file with a Jinja chat template to use instead of the model's own", metavar="FILE"
    )
    revision: str | None = setting(None, "branch, tag or commit of a hub id", metavar="REV")
    max_model_len: int | None = setting(
        None,
        "longest context in tokens, prompt and output together (e.g. 4k); default: the model's own",
        parse=parse_tokens,
        metavar="TOKENS",
    )


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where and how to calculate."""

    device: str = setting("auto", "cpu or cuda; auto takes a GPU where there is one", choices=DEVICES)
    dtype: str = setting(
        "auto",
        "number format of weights and KV; auto: on cpu float32, with matrices kept as they are stored where "
        "that takes fewer bits; on cuda bfloat16",
        choices=DTYPES,
    )
    quantization: str = setting(
        "none",
        "round matrices when they are loaded, each 32 inputs with a scale: int8, or int4 with embedding and "
        "head in int8; for float weights on cpu",
        choices=QUANTIZATIONS,
    )
    repack_cache: str | None = setting(
        None,
        "folder for matrices as the cpu kernels lay them out, for the next start to map; default: none",
        metavar="DIR",
    )
    num_threads: int | None = setting(
        None, "threads for calculation; default: one per available core", parse=int, metavar="N"
    )

    def __post_init__(self) -> None:
        if self.quantization not in QUANTIZATIONS:
            names = ", ".join(QUANTIZATIONS)
            raise ConfigError(f"--quantization must be one of {names}, not {self.quantization!r}")
        if self.quantization != "none" and self.dtype != "auto":
            raise ConfigError(f"--quantization has an effect only with --dtype auto, not {self.dtype}")


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The paged KV cache."""

    block_size: int = setting(16, "tokens in a KV block", parse=int, metavar="TOKENS")
    kv_cache_memory: int | None = setting(
        None,
        "memory for the KV pool (e.g. 512MB); default: 40%% of the memory that is free beside the weights",
        parse=parse_bytes,
        metavar="SIZE",
    )
    prefix_caching: bool = setting(
        True, "keep the KV of finished requests and reuse it for prompts that begin the same", parse=bool
    )
    swap_space: int = setting(
        0,
        "host memory to which preempted sequences may be swapped (e.g. 4GB); 0: they are recomputed",
        parse=parse_bytes,
        metavar="SIZE",
    )

    kv_cache_dtype: str = setting(
        "auto",
        "number format of keys and values; auto: float16 on cpu where --dtype is auto, else that of --dtype",
        choices=KV_DTYPES,
    )

    def __post_init__(self) -> None:
        _check_at_least("--block-size", self.block_size, 1)
        if self.block_size > 1024:
            raise ConfigError(f"--block-size must be at most 1024, not {self.block_size}")
        if self.kv_cache_memory is not None:
            _check_at_least("--kv-cache-memory", self.kv_cache_memory, 1)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What one step may hold."""

    max_num_seqs: int = setting(256, "sequences that may be in one step", parse=int, metavar="N")
    max_num_batched_tokens: int = setting(
        512,
        "tokens that one step may compute; longer prompts are prefilled in chunks",
        parse=parse_tokens,
        metavar="TOKENS",
    )
    max_queued_requests: int = setting(
        1024, "requests that may wait; more are refused with 429", parse=int, metavar="N"
    )
    max_queued_tokens: int | None = setting(
        None,
        "prompt tokens that may wait (e.g. 64k); more are refused with 429; default: no limit",
        parse=parse_tokens,
        metavar="TOKENS",
    )
    queue_timeout: float | None = setting(
        None,
        "seconds that a request may wait to begin before it is given up; default: no limit",
        parse=float,
        metavar="SECONDS",
    )
    policy: str = setting(
        "fcfs",
        "who runs first: fcfs, by arrival; priority, by the request's priority; fair, keys share by weight",
        choices=POLICIES,
    )
    fair_weights: tuple[tuple[str, float], ...] = setting(
        (),
        "weights of keys under --policy fair, 1 for those not named (e.g. alice=2,bob=0.5)",
        parse=parse_weights,
        metavar="KEY=WEIGHT,...",
    )
    target_itl_ms: float | None = setting(
        None,
        "time between two tokens of a request to aim at: steps take in less prefill while they are slower",
        parse=float,
        metavar="MILLISECONDS",
    )
    seed: int | None = setting(
        None, "makes requests without a seed of their own repeatable", parse=int, metavar="N"
    )

    def __post_init__(self) -> None:
        _check_at_least("--max-num-seqs", self.max_num_seqs, 1)
        _check_at_least("--max-num-batched-tokens", self.max_num_batched_tokens, 1)
        _check_at_least("--max-queued-requests", self.max_queued_requests, 1)
        if self.max_queued_tokens is not None:
            _check_at_least("--max-queued-tokens", self.max_queued_tokens, 1)
        for flag, value in (("--queue-timeout", self.queue_timeout), ("--target-itl-ms", self.target_itl_ms)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{flag} must be above 0, not {value:g}")
        if self.policy not in POLICIES:
            raise ConfigError(f"--policy must be one of {', '.join(POLICIES)}, not {self.policy!r}")
        if self.fair_weights and self.policy != "fair":
            raise ConfigError("--fair-weights has an effect only with --policy fair")
        if self.max_num_seqs > self.max_num_batched_tokens:
            raise ConfigError(
                f"--max-num-seqs ({self.max_num_seqs}) must not exceed --max-num-batched-tokens "
                f"({self.max_num_batched_tokens}): each running sequence needs a token a step"
            )
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"--seed must fit in 64 bits with its sign, not {self.seed}")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """All that the engine needs to know."""

    model: ModelConfig = field(default_factory=ModelConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The HTTP front."""

    host: str = setting("127.0.0.1", "address to listen on", metavar="ADDRESS")
    port: int = setting(8000, "port to listen on; 0 takes a free one", parse=int, metavar="PORT")
    api_key: str | None = setting(
        None,
        "key that clients must send as 'Authorization: Bearer KEY'; better set in the environment",
        metavar="KEY",
        env="OCTAVO_API_KEY",
    )
    served_model_name: str | None = setting(
        None, "name of the model in the API; default: the model's own", metavar="NAME"
    )
    drain_timeout: float = setting(
        30.0, "seconds that SIGTERM leaves running requests to finish", parse=float, metavar="SECONDS"
    )
    max_body_bytes: int = setting(
        16 * 2**20, "largest request body accepted (e.g. 16MB)", parse=parse_bytes, metavar="SIZE"
    )
    admin_socket: str | None = setting(
        None,
        "path of a Unix socket for operators: the block map, and pinning, listing and dropping prefixes",
        metavar="PATH",
    )
    log_requests: bool = setting(False, "log one line for each finished request", parse=bool)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be from 0 to 65535, not {self.port}")
        if not (math.isfinite(self.drain_timeout) and self.drain_timeout >= 0):
            raise ConfigError(f"--drain-timeout must be 0 or more seconds, not {self.drain_timeout:g}")
        _check_at_least("--max-body-bytes", self.max_body_bytes, 1024)
        if self.api_key is not None and not self.api_key:
            raise ConfigError("--api-key must not be empty; leave it out to serve without a key")
        if self.served_model_name is not None and not self.served_model_name:
            raise ConfigError("--served-model-name must not be empty; leave it out for the model's own name")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """All that `octavo serve` needs to know."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    server: ServerConfig = field(default_factory=ServerConfig)


def environment_defaults(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Field name -> text, for each setting whose environment variable is set."""
    environ = os.environ if environ is None else environ
    variables = {
        name: spec.metadata["env"]
        for group in (ModelConfig, ComputeConfig, CacheConfig, SchedulerConfig, ServerConfig)
        for name, spec in group.__dataclass_fields__.items()
        if spec.metadata.get("env")
    }
    return {name: environ[variable] for name, variable in variables.items() if variable in environ}


def cache_folder() -> Path:
    """Where files are kept that can be made again (XDG_CACHE_HOME, or ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo"


def peers_folder() -> Path:
    """Where scripts/peers installs other engines (OCTAVO_PEERS)."""
    return Path(os.environ.get("OCTAVO_PEERS") or cache_folder() / "peers")


def child_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with these variables changed, for a process that it starts."""
    return dict(os.environ) | dict(variables)


def limit_openmp_spinning() -> None:
    """Let torch's idle OpenMP threads sleep soon. Must come before torch is imported.

    They spin for milliseconds by default, which takes the cores from the native kernels' threads and from
    the front process: steps were measured 3 to 20 times slower while anything else wanted a core.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _check_at_least(flag: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError(f"{flag} must be at least {low}, not {value}")
