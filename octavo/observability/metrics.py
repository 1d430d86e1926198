"""The numbers that /metrics shows, under the names that the field's dashboards query.

The front records; recording touches only plain Python numbers, so a step costs microseconds.
Prometheus's own types are made when somebody scrapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from octavo.observability.histogram import Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3),
    *(0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_SECONDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
_STEP_TOKENS = (1.0, *(float(8 * 2**power) for power in range(12)))
_COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class CacheFacts:
    """The KV cache's fixed size, for `cache_config_info`."""

    block_size: int
    num_blocks: int
    kv_bytes: int


@dataclass(eq=False)
class ServerMetrics:
    """Everything counted since the start. Written by the front, read by `render`.

    Names follow vLLM's; each field's Prometheus name and meaning stand in `_GAUGES`, `_COUNTERS` and
    `_HISTOGRAMS` below.
    """

    model_name: str = ""
    cache: CacheFacts | None = None
    caches_prefixes: bool = True

    num_requests_running: int = 0
    num_requests_waiting: int = 0
    blocks_used: int = 0
    blocks_free: int = 0
    blocks_cached: int = 0
    host_blocks_used: int = 0
    num_swapped: int = 0
    kv_waste_ratio: float = 0.0
    kv_sharing_ratio: float = 0.0
    num_queued_prompts: int = 0
    num_queued_tokens: int = 0

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prompt_tokens_cached: int = 0
    prefix_cache_queries: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    time_to_first_token: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    inter_token_latency: Histogram = field(default_factory=lambda: Histogram(_TOKEN_SECONDS))
    time_per_output_token: Histogram = field(default_factory=lambda: Histogram(_TOKEN_SECONDS))
    e2e_latency: Histogram = field(default_factory=lambda: Histogram(_REQUEST_SECONDS))
    queue_time: Histogram = field(default_factory=lambda: Histogram(_REQUEST_SECONDS))
    prefill_time: Histogram = field(default_factory=lambda: Histogram(_REQUEST_SECONDS))
    decode_time: Histogram = field(default_factory=lambda: Histogram(_REQUEST_SECONDS))
    request_prompt_tokens: Histogram = field(default_factory=lambda: Histogram(_TOKENS))
    request_generation_tokens: Histogram = field(default_factory=lambda: Histogram(_TOKENS))
    params_n: Histogram = field(default_factory=lambda: Histogram(_COUNTS))
    params_max_tokens: Histogram = field(default_factory=lambda: Histogram(_TOKENS))
    step_tokens: Histogram = field(default_factory=lambda: Histogram(_STEP_TOKENS))

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use, from 0 to 1."""
        num_blocks = self.blocks_used + self.blocks_free
        return self.blocks_used / num_blocks if num_blocks else 0.0

    def count_prompt(self, num_tokens: int, num_cached_tokens: int) -> None:
        """A request began to answer."""
        self.prompt_tokens += num_tokens
        self.prompt_tokens_cached += num_cached_tokens
        if self.caches_prefixes:
            self.prefix_cache_queries += num_tokens

    def render(self) -> bytes:
        """The page in Prometheus's text format (version 0.0.4)."""
        # Imported when first scraped: it is not needed to start.
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client: this object is a collector."""
        from prometheus_client.core import (  # noqa: PLC0415
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        names, values = ("model_name", "engine"), (self.model_name, "0")
        for name, attribute, help_text in _GAUGES:
            gauge = GaugeMetricFamily(name, help_text, labels=names)
            gauge.add_metric(values, getattr(self, attribute))
            yield gauge
        for name, attribute, help_text in _COUNTERS:
            counter = CounterMetricFamily(name, help_text, labels=names)
            counter.add_metric(values, getattr(self, attribute))
            yield counter
        for name, label, attribute, help_text in _LABELLED_COUNTERS:
            counter = CounterMetricFamily(name, help_text, labels=(*names, label))
            for label_value, count in getattr(self, attribute).items():
                counter.add_metric((*values, label_value), count)
            yield counter
        for name, attribute, help_text in _HISTOGRAMS:
            histogram: Histogram = getattr(self, attribute)
            family = HistogramMetricFamily(name, help_text, labels=names)
            family.add_metric(values, histogram.cumulative(), histogram.total)
            yield family
        if self.cache is not None:
            cache_labels = ("block_size", "num_gpu_blocks", "kv_bytes")
            info = GaugeMetricFamily(
                "vllm:cache_config_info", "Size of the KV cache; always 1", labels=(*names, *cache_labels)
            )
            sizes = (self.cache.block_size, self.cache.num_blocks, self.cache.kv_bytes)
            info.add_metric((*values, *map(str, sizes)), 1)
            yield info


_GAUGES = (
    ("vllm:num_requests_running", "num_requests_running", "Sequences in the running batch"),
    ("vllm:num_requests_waiting", "num_requests_waiting", "Sequences that wait to be computed"),
    ("vllm:kv_cache_usage_perc", "kv_usage", "Share of KV blocks in use, 0 to 1"),
    ("vllm:gpu_cache_usage_perc", "kv_usage", "The same under its older name"),
    ("octavo:kv_blocks_used", "blocks_used", "KV blocks that sequences hold"),
    ("octavo:kv_blocks_free", "blocks_free", "KV blocks that nobody holds"),
    ("octavo:kv_blocks_cached", "blocks_cached", "Free KV blocks that still hold a known prefix"),
    ("octavo:kv_waste_ratio", "kv_waste_ratio", "Reserved but empty KV slots over used slots"),
    ("octavo:kv_sharing_ratio", "kv_sharing_ratio", "KV blocks saved by sharing over those needed without"),
    ("octavo:num_sequences_swapped", "num_swapped", "Sequences whose KV is in host memory"),
    ("octavo:host_blocks_used", "host_blocks_used", "Blocks of the host pool that hold their KV"),
    ("octavo:queued_prompts", "num_queued_prompts", "Prompts that have not begun"),
    ("octavo:queued_prompt_tokens", "num_queued_tokens", "Tokens of prompts that have not begun"),
)
_COUNTERS = (
    ("vllm:prompt_tokens", "prompt_tokens", "Prompt tokens of requests that began to answer"),
    ("vllm:generation_tokens", "generation_tokens", "Tokens generated"),
    ("vllm:prompt_tokens_cached", "prompt_tokens_cached", "Prompt tokens whose KV was reused"),
    ("vllm:prefix_cache_queries", "prefix_cache_queries", "Prompt tokens looked up in the prefix cache"),
    ("vllm:prefix_cache_hits", "prompt_tokens_cached", "Prompt tokens found in the prefix cache"),
    ("vllm:num_preemptions", "num_preemptions", "Sequences that lost their KV blocks for a while"),
    ("octavo:steps", "num_steps", "Forward passes"),
)
_LABELLED_COUNTERS = (
    ("vllm:request_success", "finished_reason", "finished", "Sequences ended, by reason"),
    ("vllm:admission_rejections", "reason", "rejected", "Requests refused before they ran, by reason"),
)
_HISTOGRAMS = (
    ("vllm:time_to_first_token_seconds", "time_to_first_token", "From arrival to the first token"),
    ("vllm:inter_token_latency_seconds", "inter_token_latency", "Between tokens of a sequence"),
    (
        "vllm:request_time_per_output_token_seconds",
        "time_per_output_token",
        "A request's mean time per token after its first",
    ),
    ("vllm:time_per_output_token_seconds", "time_per_output_token", "The same under its older name"),
    ("vllm:e2e_request_latency_seconds", "e2e_latency", "From arrival to the end"),
    ("vllm:request_queue_time_seconds", "queue_time", "From arrival to the first step with the request"),
    ("vllm:request_prefill_time_seconds", "prefill_time", "From there to the first token"),
    ("vllm:request_decode_time_seconds", "decode_time", "From the first token to the end"),
    ("vllm:request_prompt_tokens", "request_prompt_tokens", "Prompt tokens of a request"),
    ("vllm:request_generation_tokens", "request_generation_tokens", "Tokens generated for a request"),
    ("vllm:request_params_n", "params_n", "n of a request"),
    ("vllm:request_params_max_tokens", "params_max_tokens", "max_tokens of a request"),
    ("vllm:iteration_tokens_total", "step_tokens", "Tokens computed in a step"),
)
