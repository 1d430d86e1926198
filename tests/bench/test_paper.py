"""The paper's numbers, as the tables beside the measured ones need them."""

from __future__ import annotations

import pytest

from octavo.bench import paper


def test_each_number_is_where_it_is_looked_for():
    assert paper.kv_usage_percent()["Orca (Max)"]["internal_frag"] == 57.3
    assert paper.mean_batches("ShareGPT")["vLLM"] == 30.42
    assert paper.mean_batches("Alpaca")["OrcaOracle"] == 72.75
    assert paper.mean_tokens("Alpaca") == (19.31, 58.45)
    assert paper.num_kv_slots("13B") == 15_700
    assert paper.alpaca_saving_percent("beam", 6) == 55.16
    assert paper.sharegpt_saving_percent("parallel") == "16.2-30.5"
    assert (paper.prefix_speedup(80), paper.prefix_speedup(341)) == (1.67, 3.58)
    assert paper.prefix_speedup(8) is None
    assert paper.prefix_speedup(1) is None


def test_the_shares_of_each_system_are_all_of_its_memory():
    for shares in paper.kv_usage_percent().values():
        assert sum(shares.values()) == pytest.approx(100, abs=0.2)
