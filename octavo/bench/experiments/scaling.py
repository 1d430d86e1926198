"""Tensor parallelism and KV capacity, exact to the block; its speed is not measured here, nor guessed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from octavo.bench import paper
from octavo.bench.experiments.experiment import Condition, Findings, Prediction, Setup, Table
from octavo.bench.experiments.lengths import data_file
from octavo.bench.experiments.panels import plain_bars, series_colour
from octavo.bench.experiments.results import Results
from octavo.build import build_text
from octavo.control.cache.cache_size import block_bytes, num_blocks_within

_WORKERS = (1, 2, 4, 8)
_BYTES_PER_ELEMENT = 2


class Scaling:
    name = "scaling"
    title = "KV blocks under tensor parallelism"
    hypothesis = (
        "Every worker holds a share of the weights, and what is left holds KV blocks. Where weights fill "
        "most of one worker, a second one multiplies the blocks by far more than two: r(n) = (n - w) / (1 "
        "- w), with w the weights' share of one worker's memory."
    )
    design = (
        "Arithmetic, with the functions that size the real cache: each worker has weights / 0.9225 bytes, "
        "which is what the post's 13.9 at two workers implies. Each holds 1/n of the weights and of every "
        "block."
    )
    needs_octavo = True

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        return ()

    def calculate(self, setup: Setup) -> dict[str, Any]:
        spec = build_text(setup.config.model).description.spec
        block_size = setup.config.cache.block_size
        per_block = block_bytes(spec, block_size, _BYTES_PER_ELEMENT)
        theory = data_file("theory_expectations.json")["tp_kv_block_ratio"]
        share = float(theory["w"])
        # As many weights as make the blocks of one worker many enough for the ratio to have three digits.
        weight_bytes = 20_000 * per_block
        worker_bytes = round(weight_bytes / share)
        blocks = {}
        for num_workers in _WORKERS:
            if spec.attention.num_kv_heads % num_workers == 0 or num_workers == 1:
                left = worker_bytes - weight_bytes // num_workers
                blocks[str(num_workers)] = num_blocks_within(left, per_block // num_workers)
            else:
                left = num_workers * worker_bytes - weight_bytes
                blocks[str(num_workers)] = num_blocks_within(left, per_block)
        return {
            "weights_share": share,
            "block_bytes": per_block,
            "weight_bytes": weight_bytes,
            "worker_bytes": worker_bytes,
            "blocks": blocks,
            "ratios": {count: number / blocks["1"] for count, number in blocks.items()},
            "model": {str(count): (count - share) / (1 - share) for count in _WORKERS},
        }

    def conclude(self, setup: Setup, results: Results) -> Findings:
        found = results.calculated
        post = paper.paper_numbers()["vllm_distributed_inference_post_2025_02_17"]
        groups = [f"{count} workers" if count > 1 else "1 worker" for count in _WORKERS]
        bars = [
            {"value": found["ratios"][str(count)], "low": None, "high": None, "n": 0} for count in _WORKERS
        ]
        linear = [{"value": float(count), "low": None, "high": None, "n": 0} for count in _WORKERS]
        panel = plain_bars(
            name="blocks",
            title="KV blocks, as a multiple of one worker's",
            subtitle=f"weights fill {100 * found['weights_share']:.2f} % of one worker; exact arithmetic",
            axis="blocks over those of one worker",
            unit="×",
            groups=groups,
            series=[
                {"label": "blocks", "colour": series_colour(0), "bars": bars},
                {"label": "proportional", "colour": series_colour(7), "bars": linear},
            ],
            marks=[
                {"group": groups[1], "value": post["tp1_to_tp2_kv_blocks_ratio"], "label": "the post: 13.9×"}
            ],
        )
        return Findings(
            predictions=_predict(found, post),
            panels=[panel],
            tables=[_table(found)],
            threats=[
                "Capacity is not speed: throughput more than doubles only where the batch was limited by KV "
                "memory. Octavo has no tensor parallelism, so the post's 3.9× cannot be tested here.",
            ],
        )


def _predict(found: dict[str, Any], post: dict[str, Any]) -> list[Prediction]:
    rows = [
        Prediction(
            quantity=f"KV blocks, {count} workers over 1",
            predicted=f"{found['model'][str(count)]:.2f}×",
            claimed=f"{post['tp1_to_tp2_kv_blocks_ratio']}×" if count == 2 else "–",
            source=post["source"] if count == 2 else "",
            measured=f"{found['ratios'][str(count)]:.2f}× (calculated to the block)",
            remark="w was taken from this very number" if count == 2 else "",
        )
        for count in _WORKERS[1:]
    ]
    rows.append(
        Prediction(
            quantity="throughput, 2 workers over 1",
            predicted="above 2× only where KV memory limits the batch",
            claimed=f"{post['tp1_to_tp2_token_throughput_ratio']}×",
            source=post["source"],
            measured="cannot be tested here",
            remark="no tensor parallelism, and one machine",
        )
    )
    return rows


def _table(found: dict[str, Any]) -> Table:
    rows = [
        [
            str(count),
            f"{found['blocks'][str(count)]:,}",
            f"{found['ratios'][str(count)]:.3f}×",
            f"{found['model'][str(count)]:.3f}×",
        ]
        for count in _WORKERS
    ]
    mean_gap = statistics.fmean(
        abs(found["ratios"][str(count)] / found["model"][str(count)] - 1) for count in _WORKERS
    )
    return Table(
        title="KV blocks by number of workers",
        header=("workers", "blocks", "ratio", "r(n)"),
        rows=rows,
        notes=(f"Whole blocks differ from the formula by {100 * mean_gap:.3f} % on average.",),
    )
