"""The starter model gives transformers' greedy tokens, on prompts of many kinds and lengths.

transformers reads the same GGUF file by its own way. It is then fed our prompt and output at once: where
its argmax is our token at every place, greedy decoding would have given the same tokens one by one.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from octavo.checkpoint.source import ModelSource, resolve_model
from octavo.compute.executor.worker import Worker
from octavo.config import ComputeConfig
from octavo.control.text.tokenizer import Tokenizer
from octavo.families import describe_model
from octavo.sampling_params import SamplingParams
from octavo.step import SampleRequest, SequenceSlice, StepPlan

NUM_OUTPUT_TOKENS = 64
MAX_CHUNK = 512
BLOCK_SIZE = 16
CLOSE_CALL = 1e-2
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)

STORY = (
    "The lighthouse keeper counted the ships by their lamps. On the night of the storm there were eleven, "
    "and ten came home. He wrote the number in the ledger, shut it, and went down to the harbour with "
    "a lantern, though everyone told him that nobody could be alive out there. "
)
CODE = (
    "def merge(left: list[int], right: list[int]) -> list[int]:\n    merged = []\n    i = j = 0\n"
    "    while i < len(left) and j < len(right):\n        if left[i] <= right[j]:\n"
    "            merged.append(left[i])\n            i += 1\n        else:\n"
)
TABLE = "city,country,population\nParis,France,2102650\nRome,Italy,2748109\nMadrid,Spain,3332035\n"
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)

# Text, and how many tokens of it (repeated as often as it takes): 5 to 600.
PROMPTS = (
    ("The capital of France is", 5),
    ("1, 1, 2, 3, 5, 8, 13,", 14),
    ("Once upon a time, in a village by the sea,", 11),
    ("import numpy as np\n\n", 6),
    ("Le petit prince habitait une planète à peine plus grande que lui", 16),
    ("Die Würde des Menschen ist unantastbar. Sie zu achten", 17),
    ("日本の首都は東京です。中国の首都は", 24),
    ("Привет! Как дела? ", 30),
    ("Roses are red, 🌹 violets are blue, 💙 ", 18),
    ("$$\\int_0^1 x^2 \\, dx = \\frac{1}{3}$$ and therefore ", 40),
    (CHAT.format("What is gravity? Answer in one sentence."), 33),
    (CHAT.format("Write a haiku about the sea."), 31),
    (CHAT.format("List three colours and say why people like them."), 36),
    (TABLE, 60),
    (CODE, 97),
    (STORY, 128),
    (TABLE, 161),
    (CODE + TABLE, 250),
    (CHAT.format(STORY), 333),
    (STORY + CODE, 600),
)


@pytest.fixture(scope="module")
def source() -> ModelSource:
    return resolve_model(None)


@pytest.fixture(scope="module")
def prompts(source: ModelSource) -> list[list[int]]:
    tokenizer = Tokenizer.load(source)
    prompts = []
    for text, num_tokens in PROMPTS:
        token_ids = tokenizer.encode(text)
        prompts.append((token_ids * (1 + num_tokens // len(token_ids)))[:num_tokens])
    return prompts


def greedy_outputs(source: ModelSource, prompts: list[list[int]]) -> list[list[int]]:
    """Prefill in chunks, one prompt after the other; then decode all of them together."""
    worker = Worker.load(describe_model(source), ComputeConfig(device="cpu", dtype="float32"))
    num_blocks = [-(-(len(prompt) + NUM_OUTPUT_TOKENS) // BLOCK_SIZE) for prompt in prompts]
    worker.allocate_kv(sum(num_blocks), BLOCK_SIZE)
    free_block_ids = random.Random(3).sample(range(sum(num_blocks)), sum(num_blocks))
    block_ids = [[free_block_ids.pop() for _ in range(count)] for count in num_blocks]

    def push(pieces: list[tuple[int, list[int], int]]) -> dict[int, int]:
        slices = [
            SequenceSlice(i, tokens, start, block_ids[i], SampleRequest(GREEDY, 0, start + len(tokens)))
            for i, tokens, start in pieces
        ]
        result = worker.run(StepPlan(0, slices))
        assert result.failures == {}
        return {i: token.token_id for i, token in result.tokens.items()}

    outputs = []
    for i, prompt in enumerate(prompts):
        for start in range(0, len(prompt), MAX_CHUNK):
            chosen = push([(i, prompt[start : start + MAX_CHUNK], start)])
        outputs.append([chosen[i]])
    for step in range(NUM_OUTPUT_TOKENS - 1):
        rows = [
            (i, output[-1:], len(prompt) + step)
            for i, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))
        ]
        for i, token_id in push(rows).items():
            outputs[i].append(token_id)
    return outputs


def load_in_transformers(source: ModelSource) -> Any:
    """The file's model, its tensors read, dequantised and renamed by transformers."""
    settings = load_gguf_checkpoint(str(source.path))["config"]
    config = transformers.AutoConfig.for_model(**settings)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    tensors = load_gguf_checkpoint(str(source.path), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert unexpected == []
    assert missing == ["lm_head.weight"]  # tied to the embedding
    model.tie_weights()
    return model.eval()


def test_greedy_tokens_of_transformers(
    source: ModelSource, prompts: list[list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = greedy_outputs(source, prompts)
    reference = load_in_transformers(source)
    close_calls = 0
    for prompt, output in zip(prompts, outputs, strict=True):
        assert len(output) == NUM_OUTPUT_TOKENS
        with torch.inference_mode():
            token_ids = torch.tensor([prompt + output[:-1]])
            logits = reference(token_ids, logits_to_keep=NUM_OUTPUT_TOKENS).logits[0]
        for place, (row, token_id) in enumerate(zip(logits, output, strict=True)):
            best = row.topk(2)
            if int(best.indices[0]) == token_id:
                continue
            gap = float(best.values[0] - best.values[1])
            with capsys.disabled():
                print(
                    f"prompt of {len(prompt)} tokens, place {place}: {token_id}, transformers "
                    f"{best.indices.tolist()}, gap {gap:.2e}"
                )
            assert token_id == int(best.indices[1])
            assert gap < CLOSE_CALL
            close_calls += 1
    assert close_calls <= len(prompts)  # a wrong model would part everywhere, a right one hardly ever


def test_prompts_are_varied(prompts: list[list[int]]) -> None:
    lengths = sorted(len(prompt) for prompt in prompts)
    assert len({tuple(prompt) for prompt in prompts}) == len(prompts) == 20
    assert (lengths[0], lengths[-1]) == (5, 600)
