"""The step bench: every call of a pass is told, and only where a pass is recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octavo.bench.step import run_step
from octavo.bench.step_spec import StepSpec
from octavo.config import ModelConfig
from octavo.errors import ConfigError
from tests.tiny_models import make_tiny_model, write_byte_tokenizer

SPEC = StepSpec(streams=(1, 3), context=20, prefill=24, repeats=2)


def test_the_calls_of_each_step(tiny_config) -> None:
    done: list[None] = []
    report = run_step(tiny_config, SPEC, on_done=lambda: done.append(None))
    assert len(done) == 3
    assert [step["num_tokens"] for step in report["steps"]] == [1, 3, 24]
    for step in report["steps"]:
        kernels = {kernel["operation"]: kernel for kernel in step["kernels"]}
        assert {"rows", "linear", "rotate", "write_kv", "attention"} <= kernels.keys()
        assert all(kernel["milliseconds"] > 0 for kernel in step["kernels"])
        assert kernels["attention"]["gmacs_per_second"] > 0
        assert kernels["rotate"]["gmacs_per_second"] is None
        assert sum(kernel["milliseconds"] for kernel in step["kernels"]) <= 3 * step["milliseconds"]


def test_a_model_whose_pass_is_not_recorded(tmp_path, tiny_config) -> None:
    folder = write_byte_tokenizer(make_tiny_model("opt", tmp_path / "opt"))
    config = replace(tiny_config, model=ModelConfig(model=str(folder)))
    with pytest.raises(ConfigError, match="cannot be told apart here: there is no recording"):
        run_step(config, SPEC)


def test_a_context_beyond_the_models(tiny_config) -> None:
    with pytest.raises(ConfigError, match="the model's context ends at"):
        run_step(tiny_config, replace(SPEC, context=100_000))
