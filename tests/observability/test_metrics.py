"""The metrics page, read back by Prometheus's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from octavo.observability.histogram import Histogram
from octavo.observability.metrics import CacheFacts, ServerMetrics


def test_a_histogram_counts_at_or_below_each_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 5.0):
        histogram.observe(value)
    histogram.observe(2.0, 3)
    assert histogram.cumulative() == [("1", 2.0), ("2", 6.0), ("+Inf", 7.0)]
    assert histogram.total == 14.0
    assert histogram.num_values == 7


def test_the_page_carries_the_usual_names_and_values() -> None:
    metrics = ServerMetrics(model_name='we"ird\nname', blocks_used=3, blocks_free=1)
    metrics.cache = CacheFacts(16, 4, 1024)
    metrics.generation_tokens = 7
    metrics.finished["stop"] += 2
    metrics.time_to_first_token.observe(0.05)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    (usage,) = families["vllm:kv_cache_usage_perc"].samples
    assert usage.value == 0.75
    assert usage.labels == {"model_name": 'we"ird\nname', "engine": "0"}
    assert families["vllm:generation_tokens"].samples[0].name == "vllm:generation_tokens_total"
    assert families["vllm:generation_tokens"].samples[0].value == 7
    (success,) = families["vllm:request_success"].samples
    assert success.labels["finished_reason"] == "stop"
    assert success.value == 2
    first = {each.name: each.value for each in families["vllm:time_to_first_token_seconds"].samples}
    assert first["vllm:time_to_first_token_seconds_count"] == 1
    assert first["vllm:time_to_first_token_seconds_sum"] == 0.05
    assert families["vllm:cache_config_info"].samples[0].labels["num_gpu_blocks"] == "4"


def test_prefix_lookups_are_counted_in_tokens_and_only_where_there_are_any() -> None:
    for caches_prefixes, queries in ((True, 30), (False, 0)):
        metrics = ServerMetrics(caches_prefixes=caches_prefixes, kv_sharing_ratio=0.25, num_swapped=2)
        metrics.count_prompt(20, 0)
        metrics.count_prompt(10, 7 if caches_prefixes else 0)
        families = {each.name: each for each in text_string_to_metric_families(metrics.render().decode())}
        assert families["vllm:prefix_cache_queries"].samples[0].value == queries
        assert families["vllm:prefix_cache_hits"].samples[0].value == (7 if caches_prefixes else 0)
        assert families["vllm:prompt_tokens"].samples[0].value == 30
        assert families["octavo:kv_sharing_ratio"].samples[0].value == 0.25
        assert families["octavo:num_sequences_swapped"].samples[0].value == 2


def test_the_page_can_be_rendered_again_and_again() -> None:
    metrics = ServerMetrics()
    assert metrics.render() == metrics.render()
