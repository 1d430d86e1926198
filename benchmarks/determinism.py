"""What it costs that a request's bits do not depend on its batch: `python benchmarks/determinism.py`.

Every step of a mixed workload is run on the kernels as they are, and on the same with one promise given
up, several times in turn. What is compared is each step's least time, so that what else the machine does
counts for nobody.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from octavo.config import ComputeConfig, limit_openmp_spinning

limit_openmp_spinning()  # before torch is imported, as in the product

# ruff: noqa: E402
import torch

from octavo.bench.machine import describe_machine
from octavo.bench.workload import WorkloadSpec, make_workload
from octavo.checkpoint.source import ModelSource, resolve_model
from octavo.compute.executor import worker as worker_module
from octavo.compute.executor.worker import Worker
from octavo.compute.kernels import KernelTable, native_table, reference
from octavo.compute.kernels.cpu import build
from octavo.compute.kernels.cpu.library import load_library
from octavo.compute.kernels.cpu.sources import SOURCE_FOLDER
from octavo.control.cache.block_manager import BlockManager
from octavo.control.engine import Engine
from octavo.control.scheduler.scheduler import Scheduler
from octavo.families import describe_model
from octavo.step import StepPlan, StepResult

NUM_BLOCKS = 1024
BLOCK_SIZE = 16
MAX_NUM_BATCHED_TOKENS = 512
INVARIANT, AGAIN = "invariant", "invariant_again"
WHY = {
    INVARIANT: "the kernels as they are",
    AGAIN: "the same once more: what it seems to cost or save is the machine's noise",
    "torch_products": "matrix products by torch (MKL), whose sums depend on the number of rows",
    "attention_unsplit": "attention over a context in one piece, as in a batch that keeps all threads busy",
}


def make_tables(folder: Path, dtype: str) -> dict[str, KernelTable]:
    """The kernels to compare. The second library is built of the same sources with one number changed."""
    library = load_library()
    sources = shutil.copytree(SOURCE_FOLDER, folder / "src")
    header = sources / "isa.h"
    before = header.read_text()
    after = before.replace("kPieceTokens = 256", "kPieceTokens = 4096")
    if after == before:
        raise SystemExit("isa.h no longer says how long a piece of attention is")
    header.write_text(after)
    build.SOURCE_FOLDER = sources
    build.build_library(folder / "unsplit.so")
    # Without the recorded pass, which torch's products cannot be part of: all pay for the interpreter alike.
    native = replace(native_table(library), make_program=None)
    unsplit = load_library(folder / "unsplit.so", isa_name=library.isa_name)
    tables = {INVARIANT: native, "attention_unsplit": replace(native_table(unsplit), make_program=None)}
    if dtype == "float32":
        tables["torch_products"] = replace(
            native,
            pack_weight=reference.pack_weight,
            weight_rows=reference.weight_rows,
            linear=reference.linear,
        )
    return tables


def make_worker(source: ModelSource, table: KernelTable, dtype: str, num_threads: int) -> Worker:
    """The model as the product loads it, but for the choice of kernels."""
    worker_module.for_device = lambda *_: table  # type: ignore[assignment]
    compute = ComputeConfig(device="cpu", dtype=dtype, num_threads=num_threads)
    worker = Worker.load(describe_model(source), compute)
    worker.allocate_kv(NUM_BLOCKS, BLOCK_SIZE)
    return worker


def share_weights(worker: Worker, other: Worker) -> None:
    """Let a worker read the other's matrices: where in memory they lie was seen to matter by a tenth."""
    decoder, source = worker._decoder, other._decoder
    for layer, source_layer in zip(decoder._layers, source._layers, strict=True):
        for part, names in (("_attention", ("_project", "_output")), ("_mlp", ("_expand", "_down"))):
            for name in names:
                source_linear = getattr(getattr(source_layer, part), name)
                getattr(getattr(layer, part), name).weight = source_linear.weight
    decoder._head.weight = source._head.weight
    decoder._embedding.weight = source._embedding.weight


@dataclass
class ComparingExecutor:
    """Runs each plan on all workers in turn, and answers with the first's result."""

    workers: dict[str, Worker]
    num_turns: int
    steps: list[dict[str, Any]] = field(default_factory=list)
    _plans: deque[StepPlan] = field(default_factory=deque)

    def submit(self, plan: StepPlan) -> None:
        self._plans.append(plan)

    def collect(self) -> StepResult:
        plan = self._plans.popleft()
        seconds: dict[str, list[float]] = {name: [] for name in self.workers}
        names = list(self.workers)
        results: dict[str, StepResult] = {}
        for turn in range(self.num_turns):
            # Another one begins each turn. Writing the same KV twice is harmless.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                started_seconds = time.perf_counter()
                results[name] = self.workers[name].run(plan)
                seconds[name].append(time.perf_counter() - started_seconds)
        best = {name: min(values) for name, values in seconds.items()}
        self.steps.append({"num_tokens": plan.num_tokens, "num_sequences": len(plan.slices), **best})
        print(f"step {len(self.steps)}: {plan.num_tokens} tokens", end="\r", flush=True)
        return results[INVARIANT]

    def close(self) -> None:
        self.workers.clear()


def run(spec: WorkloadSpec, dtype: str, num_turns: int, num_threads: int) -> dict[str, Any]:
    source = resolve_model(None)
    with tempfile.TemporaryDirectory() as folder:
        tables = make_tables(Path(folder), dtype)
    workers = {name: make_worker(source, table, dtype, num_threads) for name, table in tables.items()}
    share_weights(workers["attention_unsplit"], workers[INVARIANT])
    executor = ComparingExecutor(workers | {AGAIN: workers[INVARIANT]}, num_turns)
    description = describe_model(source)
    engine = Engine(
        Scheduler(
            BlockManager(NUM_BLOCKS, BLOCK_SIZE),
            max_num_seqs=64,
            max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
        ),
        executor,
        eos_token_ids=description.eos_token_ids,
        vocab_size=description.spec.vocab_size,
        max_model_len=2048,
        max_queued_requests=spec.num_requests,
    )
    for index, request in enumerate(make_workload(spec, range(1000, 40_000))):
        engine.submit(str(index), request.prompt_token_ids, request.params)
    while engine.has_work:
        engine.step()
    names = executor.steps[0].keys()
    return summarise(executor.steps) | {
        "weights": workers[INVARIANT].dtype_name,
        "kv_bytes_per_element": workers[INVARIANT].kv_bytes_per_element,
        "steps": {name: [round(step[name], 6) for step in executor.steps] for name in names},
    }


def summarise(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Price: the share of throughput that is given up against each other way, and against the best."""
    ways = [name for name in WHY if name in steps[0]]
    total = {name: sum(step[name] for step in steps) for name in ways}
    # The hardest rival: whichever is fastest for each step, as if one always knew beforehand. The least of
    # several noisy numbers is always less: so much less as the same twice would be, too.
    fastest = sum(min(step[name] for name in ways if name != AGAIN) for step in steps)
    fastest_of_same = sum(min(step[INVARIANT], step[AGAIN]) for step in steps)
    decodes = [step for step in steps if step["num_tokens"] == step["num_sequences"]]
    prefills = [step for step in steps if step["num_tokens"] > step["num_sequences"]]
    others = [name for name in ways if name != INVARIANT]
    return {
        "seconds": {name: round(value, 3) for name, value in total.items()},
        "price_against": {name: round(1 - total[name] / total[INVARIANT], 4) for name in others},
        "price_against_fastest_of_each_step": round(1 - fastest / total[INVARIANT], 4),
        "noise_in_fastest_of_each_step": round(1 - fastest_of_same / total[INVARIANT], 4),
        "median_ratio": {
            kind: {name: round(median(step[name] / step[INVARIANT] for step in some), 4) for name in others}
            for kind, some in (("decode_steps", decodes), ("prefill_steps", prefills))
            if some
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--num-requests", type=int, default=12)
    parser.add_argument("--num-turns", type=int, default=5, help="how often each way runs a step")
    parser.add_argument("--num-threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/determinism.json")
    arguments = parser.parse_args()
    spec = WorkloadSpec(num_requests=arguments.num_requests, mean_output=32, max_output=96, max_prompt=700)
    report: dict[str, Any] = {
        "benchmark": "determinism",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(describe_machine()),
        "model": resolve_model(None).name,
        "num_threads": arguments.num_threads,
        "num_turns": arguments.num_turns,
        "max_num_batched_tokens": MAX_NUM_BATCHED_TOKENS,
        "workload": asdict(spec),
        "ways": WHY,
    }
    for name, dtype in (("float32", "float32"), ("default_format", "auto")):
        report[name] = run(spec, dtype, arguments.num_turns, arguments.num_threads)
        print(name, json.dumps(report[name] | {"steps": len(report[name]["steps"]["num_tokens"])}, indent=1))
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
