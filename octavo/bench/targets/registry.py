"""Targets by name: what `--target NAME[=URL|OPTIONS]` means, and which peers are installed where.

Owns the names; loads no engine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.bench.targets.exports import exported_folder
from octavo.bench.targets.llama_server import llama_server
from octavo.bench.targets.local_server import octavo_http
from octavo.bench.targets.octavo_in_process import OctavoInProcess
from octavo.bench.targets.openai_url import OpenAiUrl
from octavo.bench.targets.peer_process import PeerProcess, PeerProgram
from octavo.bench.targets.settings import TargetSettings, change_config, serve_flags
from octavo.bench.targets.target import Ability, Target, TargetError
from octavo.bench.targets.tgi_url import TgiUrl
from octavo.checkpoint.source import SourceKind
from octavo.config import peers_folder
from octavo.errors import ConfigError

_LONGEST_CONTEXT = 4096  # tokens, of engines that set room aside for it
_STEPPED = frozenset({Ability.STREAM, Ability.TOKEN_IDS, Ability.IGNORE_EOS, Ability.CONTINUOUS})


@dataclass(frozen=True, slots=True)
class TargetName:
    """One `--target`, taken apart.

    Attributes:
        label: what it is called in tables.
        kind: one of KINDS.
        url: of a server that runs already.
        options: the others.
    """

    label: str
    kind: str
    url: str | None
    options: tuple[tuple[str, str], ...]


def parse_target(text: str) -> TargetName:
    """`[LABEL:]KIND`, `[LABEL:]KIND=URL`, `LABEL=URL` or `[LABEL:]KIND=option=value,...`.

    Raises:
        ConfigError: there is no such kind, or an option has no value.
    """
    head, _, rest = text.partition("=")
    label, _, kind = head.rpartition(":")
    label = label or head
    if rest.startswith(("http://", "https://")):
        known = kind if kind in ("tgi", "vllm", "octavo") else "openai"
        return TargetName(label, known, rest, ())
    if kind not in KINDS:
        raise ConfigError(f"--target {text}: there is no target {kind!r} (there are: {', '.join(KINDS)})")
    if KINDS[kind].needs_url:
        raise ConfigError(f"--target {text}: it needs a URL, for example {kind}=http://127.0.0.1:8000")
    options = []
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"--target {text}: {part!r} is no option; write for example dtype=float32")
        options.append((key, value))
    return TargetName(label, kind, None, tuple(options))


def make_target(name: TargetName, settings: TargetSettings) -> Target:
    """The target, not yet started.

    Raises:
        ConfigError: an option is unknown or wrong.
        TargetError: it is not installed, or cannot read this model.
    """
    if name.url is not None:
        if name.kind == "tgi":
            return TgiUrl(name.label, name.url)
        return OpenAiUrl(name.label, name.url, tells_token_ids=name.kind in ("octavo", "vllm"))
    return KINDS[name.kind].make(name, settings)


def installed_peers() -> list[str]:
    """Kinds of engines other than Octavo that scripts/peers has installed."""
    return [
        kind
        for kind, made in KINDS.items()
        if made.peer is not None and (peers_folder() / made.peer / "installed").exists()
    ]


def _octavo(name: TargetName, settings: TargetSettings) -> Target:
    config = change_config(settings.config, dict(name.options))
    return OctavoInProcess(config, name=name.label, flags=serve_flags(config))


def _octavo_http(name: TargetName, settings: TargetSettings) -> Target:
    config = change_config(settings.config, dict(name.options))
    model = [] if config.model.model is None else [config.model.model]
    facts = {
        "weights": f"{settings.source.path.name}, as `octavo` reads it",
        "kv_bytes": config.cache.kv_cache_memory,
        "num_threads": config.compute.num_threads,
        "max_num_seqs": config.scheduler.max_num_seqs,
        "max_num_batched_tokens": config.scheduler.max_num_batched_tokens,
        "prefix_caching": config.cache.prefix_caching,
    }
    return octavo_http(name.label, model, serve_flags(config), python=sys.executable, facts=facts)


def _openvino(name: TargetName, settings: TargetSettings) -> Target:
    options = {"model": _gguf(name, settings), **settings.for_peer()}
    properties = {}
    for key, value in name.options:
        if key in options and key != "model":
            options[key] = _whole_number(name, key, value)
        else:
            properties[key] = value
    return _worker(name, "openvino", "openvino_engine", {**options, "properties": properties})


def _llama_cpp(name: TargetName, settings: TargetSettings) -> Target:
    options = {"model": _gguf(name, settings), **settings.for_peer()}
    return _worker(name, "llama-cpp", "llama_cpp_engine", _change(name, options))


def _llama_server(name: TargetName, settings: TargetSettings) -> Target:
    options = _change(name, {"model": _gguf(name, settings), **settings.for_peer()})
    return llama_server(name.label, _environment_of(name, "llama-cpp"), options)


def _transformers(name: TargetName, settings: TargetSettings) -> Target:
    # A static batch of everything at once is rarely its best; 16 is what the Anyscale study gave it.
    options = _float_options(name, settings) | {"max_num_seqs": 16}
    return _worker(name, "transformers", "hf_static_engine", _change(name, options))


def _transformers_continuous(name: TargetName, settings: TargetSettings) -> Target:
    options = _float_options(name, settings)
    return _worker(name, "transformers", "hf_continuous_engine", _change(name, options))


def _vllm(name: TargetName, settings: TargetSettings) -> Target:
    options = _float_options(name, settings)
    wanted = settings.config.model.max_model_len or _LONGEST_CONTEXT
    options["max_model_len"] = min(wanted, _longest_context(options["model"]))
    options["enforce_eager"] = False  # true spares its compilation, minutes on two cores
    options = _change(name, options)
    whole_gib = max(1, options["kv_bytes"] >> 30)
    options["kv_bytes"] = whole_gib << 30
    return _worker(
        name,
        "vllm",
        "vllm_engine",
        options,
        {
            "VLLM_CPU_KVCACHE_SPACE": str(whole_gib),
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{options['num_threads'] - 1}",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "HF_HUB_OFFLINE": "1",
        },
    )


def _longest_context(folder: str) -> int:
    """Of a Hugging Face folder's model; vLLM refuses to be asked for more."""
    config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    return int(config.get("max_position_embeddings") or config.get("n_positions") or _LONGEST_CONTEXT)


def _float_options(name: TargetName, settings: TargetSettings) -> dict[str, Any]:
    """Of peers that read Hugging Face folders: the same weights, unpacked into floats."""
    dtype = dict(name.options).get("dtype", "float32")
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"{name.label}: dtype must be float32 or bfloat16, not {dtype!r}")
    _environment_of(name, KINDS[name.kind].peer or name.kind)
    folder = exported_folder(settings.source, dtype=dtype)
    return {"model": str(folder), "dtype": dtype, **settings.for_peer()}


def _gguf(name: TargetName, settings: TargetSettings) -> str:
    source = settings.source
    if source.kind is not SourceKind.GGUF:
        raise TargetError(f"{name.label} reads GGUF files only, and {source.path} is none")
    return str(source.path)


def _change(name: TargetName, options: dict[str, Any]) -> dict[str, Any]:
    """With the target's own options in place of the common ones."""
    for key, value in name.options:
        if key not in options or key == "model":
            raise ConfigError(f"{name.label} has no option {key!r} (it has {', '.join(sorted(options))})")
        options[key] = value if key == "dtype" else _whole_number(name, key, value)
    return options


def _whole_number(name: TargetName, key: str, text: str) -> int | bool:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name.label}: option {key}={text} is no whole number") from None


def _environment_of(name: TargetName, peer: str) -> Path:
    folder = peers_folder() / peer
    if not (folder / "installed").exists():
        raise TargetError(f"{name.label} is not installed; install it with: scripts/peers {peer}")
    return folder


def _worker(
    name: TargetName,
    peer: str,
    module: str,
    options: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> Target:
    threads = {"OMP_NUM_THREADS": str(options["num_threads"])}
    if peer == "transformers":
        threads["GOMP_SPINCOUNT"] = "1000"  # as Octavo does for its own torch: see limit_openmp_spinning
    program = PeerProgram(
        python=_environment_of(name, peer) / "bin" / "python",
        module=module,
        options=options,
        abilities=_STEPPED - {Ability.CONTINUOUS} if module == "hf_static_engine" else _STEPPED,
        environment=threads | dict(environment or {}),
    )
    return PeerProcess(name.label, program)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Attributes:
    peer: the environment that scripts/peers makes for it, or None.
    """

    about: str
    make: Callable[[TargetName, TargetSettings], Target]
    peer: str | None = None
    needs_url: bool = False


def _refuse(name: TargetName, settings: TargetSettings) -> Target:
    raise ConfigError(f"{name.label} needs a URL")


KINDS: dict[str, _Kind] = {
    "octavo": _Kind("Octavo's engine in this process", _octavo),
    "octavo-http": _Kind("`octavo serve`, started for this and driven over HTTP", _octavo_http),
    "openai": _Kind("any server with OpenAI's completions, by URL", _refuse, needs_url=True),
    "tgi": _Kind("text-generation-inference, by URL", _refuse, needs_url=True),
    "openvino": _Kind("OpenVINO GenAI, continuous batching", _openvino, "openvino"),
    "llama-server": _Kind("llama.cpp's server, started for this", _llama_server, "llama-cpp"),
    "llama-cpp": _Kind("llama.cpp in a process, many sequences", _llama_cpp, "llama-cpp"),
    "vllm": _Kind("vLLM in a process", _vllm, "vllm"),
    "transformers": _Kind("transformers' generate, static batches", _transformers, "transformers"),
    "transformers-continuous": _Kind(
        "transformers' continuous batching", _transformers_continuous, "transformers"
    ),
}
