"""Whether a target does what is measured, before anything is timed: exact lengths, the same greedy text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.bench.load.client import run_load
from octavo.bench.load.metrics import is_whole
from octavo.bench.prose import read_prose
from octavo.bench.targets.target import Ability, BenchRequest, Target, TargetError
from octavo.build import TextParts

_NUM_PROMPTS = 8
_NUM_PROMPT_TOKENS = 32
_NUM_OUTPUT_TOKENS = 12
# Other number formats part sooner or later, but not at the first token of most prompts.
_FEWEST_FIRST_TOKENS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformance:
    """What was found of one target.

    Attributes:
        has_exact_lengths: every output was as long as asked, with EOS ignored.
        num_prompts: how many were tried; none where it failed before.
        first_agreement: share of prompts whose first piece of output is the reference's.
        agreement: share of the reference's output that comes before the first difference, mean of prompts;
            in tokens where the target tells them, else in characters.
        tokens_per_chunk: 1 where tokens are streamed one by one.
        failure: one line where it must not be compared, else None.
    """

    target: str
    has_exact_lengths: bool
    num_prompts: int
    first_agreement: float
    agreement: float
    tokens_per_chunk: float
    failure: str | None


@dataclass(frozen=True, slots=True)
class Reference:
    """Prompts, and what the first target makes of them."""

    requests: list[BenchRequest]
    outputs: list[tuple[int, ...]]
    texts: list[str]


def probe_requests(text: TextParts) -> list[BenchRequest]:
    """Prompts of real text."""
    prose = read_prose(None, min_chars=40 * _NUM_PROMPTS * _NUM_PROMPT_TOKENS).text
    token_ids = text.tokenizer.encode(prose, add_special_tokens=False)
    stride = max(_NUM_PROMPT_TOKENS, (len(token_ids) - _NUM_PROMPT_TOKENS) // _NUM_PROMPTS)
    requests = []
    for number in range(_NUM_PROMPTS):
        prompt = token_ids[number * stride : number * stride + _NUM_PROMPT_TOKENS]
        requests.append(
            BenchRequest(
                request_id=f"probe/{number}",
                prompt_token_ids=prompt,
                prompt_text=text.tokenizer.decode(prompt, skip_special_tokens=False),
                num_output_tokens=_NUM_OUTPUT_TOKENS,
            )
        )
    return requests


async def make_reference(target: Target, text: TextParts) -> Reference:
    """Raises TargetError: it fails."""
    requests = probe_requests(text)
    outputs = [
        tuple(token_id for chunk in chunks for token_id in chunk.token_ids)
        for chunks in await target.generate_batch(requests)
    ]
    texts = [text.tokenizer.decode(output, skip_special_tokens=False) for output in outputs]
    return Reference(requests, outputs, texts)


async def check_conformance(target: Target, reference: Reference, *, must_be_equal: bool) -> Conformance:
    """Run the prompts, streamed and then as a batch.

    Args:
        must_be_equal: the same engine in the same number format: any difference is a failure.
    """
    try:
        run = await run_load(
            target,
            reference.requests,
            [0.0] * len(reference.requests),
            workload="conformance",
            timeout_seconds=120,
        )
        batched = await target.generate_batch(reference.requests)
    except TargetError as error:
        return _failed(target, str(error))
    errors = [record.error for record in run.requests if record.error is not None]
    if errors:
        return _failed(target, errors[0])
    pairs: list[tuple[Sequence[object], Sequence[object]]]
    if Ability.TOKEN_IDS in target.abilities:
        made = [tuple(i for chunk in chunks for i in chunk.token_ids) for chunks in batched]
        pairs = list(zip(made, reference.outputs, strict=True))
    else:
        texts = ["".join(chunk.text for chunk in chunks) for chunks in batched]
        pairs = list(zip(texts, reference.texts, strict=True))
    num_tokens = sum(record.num_output_tokens for record in run.requests)
    num_chunks = sum(len(record.chunk_ns) for record in run.requests)
    has_exact_lengths = all(is_whole(record) for record in run.requests)
    agreement = sum(_agreement(*pair) for pair in pairs) / len(pairs)
    first = sum(bool(made) and made[0] == wanted[0] for made, wanted in pairs) / len(pairs)
    failure = None
    if not has_exact_lengths:
        failure = "outputs are not as long as asked"
    elif must_be_equal and agreement < 1:
        failure = f"greedy outputs are not the reference's (the same for {agreement:.0%})"
    elif first < _FEWEST_FIRST_TOKENS:
        failure = f"greedy outputs begin differently for {1 - first:.0%} of the prompts"
    return Conformance(
        target=target.name,
        has_exact_lengths=has_exact_lengths,
        num_prompts=len(pairs),
        first_agreement=first,
        agreement=agreement,
        tokens_per_chunk=num_tokens / max(num_chunks, 1),
        failure=failure,
    )


def _failed(target: Target, reason: str) -> Conformance:
    return Conformance(
        target=target.name,
        has_exact_lengths=False,
        num_prompts=0,
        first_agreement=0.0,
        agreement=0.0,
        tokens_per_chunk=0.0,
        failure=reason,
    )


def _agreement(made: Sequence[object], wanted: Sequence[object]) -> float:
    """The common beginning, as a share of what is wanted."""
    length = next(
        (index for index, (a, b) in enumerate(zip(made, wanted, strict=False)) if a != b),
        min(len(made), len(wanted)),
    )
    return length / max(len(wanted), 1)
