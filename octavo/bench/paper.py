"""What the vLLM paper printed (arXiv:2309.06180, SOSP 2023), to stand beside what is measured here.

Reads data/vllm_paper_numbers.json: facts with citation; no text or figure of the paper is copied.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

CITATION = "Kwon et al., SOSP 2023, arXiv:2309.06180"


@cache
def paper_numbers() -> dict[str, Any]:
    """The whole file."""
    text = resources.files("octavo.bench").joinpath("data/vllm_paper_numbers.json").read_text("utf-8")
    numbers: dict[str, Any] = json.loads(text)
    return numbers


def kv_usage_percent() -> dict[str, dict[str, float]]:
    """Figure 2: per system, the shares of the KV memory."""
    usage: dict[str, dict[str, float]] = paper_numbers()["fig2_kv_usage_pct_printed"]
    return usage


def mean_batches(data_set: str) -> dict[str, float]:
    """Figure 13: mean number of requests in a batch, per system, on "ShareGPT" at 2 or "Alpaca" at 30
    requests/s."""
    printed: dict[str, dict[str, float]] = paper_numbers()["fig13_batched_requests_printed"]
    return next(batches for name, batches in printed.items() if name.startswith(data_set))


def mean_tokens(data_set: str) -> tuple[float, float]:
    """Figure 11: mean prompt and output tokens of "ShareGPT" or "Alpaca"."""
    means = paper_numbers()["fig11_mean_tokens_printed"][data_set]
    return means["input"], means["output"]


def num_kv_slots(model: str) -> int:
    """Table 1: tokens that fit into the KV memory of "13B", "66B" or "175B"."""
    return int(paper_numbers()["table1_configs"][model]["max_kv_slots"])


def alpaca_saving_percent(method: str, width: int) -> float:
    """Figure 15: KV blocks saved by sharing, by "parallel" sampling or "beam" search of a width."""
    return float(paper_numbers()["fig15_block_saving_pct_Alpaca_printed"][method][str(width)])


def sharegpt_saving_percent(method: str) -> str:
    """The range that the paper's text states for ShareGPT, widths 2 to 6."""
    return str(paper_numbers()["sharegpt_saving_pct_printed"][method])


def prefix_speedup(num_prefix_tokens: int) -> float | None:
    """Figure 16: throughput with a shared prefix of 80 or 341 tokens over Orca (Oracle)'s."""
    printed = paper_numbers()["fig16_shared_prefix_printed"]
    found = next((key for key in printed if key.endswith(f"_{num_prefix_tokens}_tokens")), None)
    return None if found is None else float(printed[found])
