"""The starter model, what is asked of it, and what comes of each request when it is served alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from octavo.checkpoint.source import ModelSource, resolve_model
from octavo.compute.executor import worker as worker_module
from octavo.compute.executor.worker import Worker
from octavo.compute.kernels import reference_table
from octavo.config import ComputeConfig
from octavo.control.text.tokenizer import Tokenizer
from octavo.families import describe_model
from octavo.sampling_params import SamplingParams
from tests.same_tokens.recorded_engine import RecordedEngine, Trail, Wish

NUM_OUTPUT_TOKENS = 12

STORY = (
    "The lighthouse keeper counted the ships by their lamps. On the night of the storm there were eleven, "
    "and ten came home. He wrote the number in the ledger, shut it, and went down to the harbour with "
    "a lantern, though everyone told him that nobody could be alive out there. "
)
CODE = (
    "def merge(left: list[int], right: list[int]) -> list[int]:\n    merged = []\n    i = j = 0\n"
    "    while i < len(left) and j < len(right):\n        if left[i] <= right[j]:\n"
)
# Name, text (repeated as often as it takes), how many tokens of it, and how to choose. The longest reaches
# over the border of two pieces of native attention; seeds and prompts have nothing in common.
REQUESTS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("greedy-5", "The capital of France is", 5, {"temperature": 0.0}),
    ("plain-15", "Roses are red, violets are", 15, {"temperature": 1.0, "seed": 11}),
    (
        "nucleus-23",
        "Le petit prince habitait une plan\u00e8te",
        23,
        {"temperature": 0.8, "top_p": 0.9, "seed": 2},
    ),
    ("greedy-39", "city,country\nParis,France\nRome,Italy\n", 39, {"temperature": 0.0, "logprobs": 2}),
    (
        "penalties-77",
        CODE,
        77,
        {"temperature": 0.7, "top_k": 50, "presence_penalty": 0.4, "frequency_penalty": 0.2, "seed": 5},
    ),
    ("greedy-130", STORY, 130, {"temperature": 0.0, "repetition_penalty": 1.1}),
    (
        "min-p-199",
        "Dear Sir,\n\n" + CODE + STORY,
        199,
        {"temperature": 1.2, "min_p": 0.02, "logprobs": 3, "seed": -7},
    ),
    ("plain-300", "Chapter 1. " + STORY, 300, {"temperature": 1.0, "seed": 2**40}),
)

MakeEngine = Callable[..., RecordedEngine]


@pytest.fixture(scope="session")
def source() -> ModelSource:
    return resolve_model(None)


def load(source: ModelSource, **settings: str) -> Worker:
    worker = Worker.load(describe_model(source), ComputeConfig(device="cpu", num_threads=2, **settings))
    if worker.kernels_name == "reference":
        pytest.skip("the promise is of the native kernels, and they are not built here")
    return worker


@pytest.fixture(scope="session")
def worker(source: ModelSource) -> Worker:
    """The model in float32."""
    return load(source, dtype="float32")


@pytest.fixture(scope="session")
def make_engine(worker: Worker) -> MakeEngine:
    """An engine of one test's own, on the one model."""
    return lambda **settings: RecordedEngine(worker, **settings)


@pytest.fixture(scope="session")
def make_torch_engine(source: ModelSource) -> MakeEngine:
    """The same on torch's kernels alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_module, "for_device", lambda *_: reference_table("to compare with"))
        worker = Worker.load(describe_model(source), ComputeConfig(device="cpu", dtype="float32"))
    assert worker.kernels_name == "reference"
    return lambda **settings: RecordedEngine(worker, **settings)


@pytest.fixture(scope="session")
def make_default_engine(source: ModelSource) -> MakeEngine:
    """The same with weights and KV as they are unless somebody says otherwise."""
    worker = load(source)
    if worker.dtype_name == "float32":
        pytest.skip("float32 is the default, and the other tests' format")
    return lambda **settings: RecordedEngine(worker, **settings)


@pytest.fixture(scope="session")
def wishes(source: ModelSource) -> dict[str, Wish]:
    tokenizer = Tokenizer.load(source)
    made = {}
    for name, text, num_tokens, fields in REQUESTS:
        token_ids = tokenizer.encode(text)
        prompt = (token_ids * (1 + num_tokens // len(token_ids)))[:num_tokens]
        params = SamplingParams(max_tokens=NUM_OUTPUT_TOKENS, ignore_eos=True, **fields)
        made[name] = Wish(name, tuple(prompt), params)
    return made


class Alone:
    """Trails of requests served alone: whole prefill, no prefix cache. Each is computed once."""

    def __init__(self, make_engine: MakeEngine) -> None:
        self._engine = make_engine(num_blocks=24)
        self._trails: dict[str, Trail] = {}

    def __call__(self, wish: Wish) -> Trail:
        key = repr((wish.prompt, wish.params))  # parameters are not hashable
        if key not in self._trails:
            request_id = self._engine.submit(wish)
            self._engine.finish()
            self._trails[key] = self._engine.trail(request_id)
        return self._trails[key]


@pytest.fixture(scope="session")
def alone(make_engine: MakeEngine) -> Alone:
    return Alone(make_engine)
