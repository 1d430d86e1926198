"""The kinds of work that engines are compared by: mixed, prefill, decoding of so many streams."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from octavo.bench.cpu_spec import CpuSpec
from octavo.bench.load.metrics import is_whole
from octavo.bench.load.workload_file import draw_requests
from octavo.bench.prompts import ordinary_token_ids
from octavo.bench.targets.target import BenchRequest, RunRecord, TargetError
from octavo.bench.workload import WorkloadSpec
from octavo.build import TextParts


class WorkKind(StrEnum):
    MIXED = "mixed"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Work:
    """Attributes:
    name: as tables show it.
    requests: all at once.
    """

    name: str
    kind: WorkKind
    requests: list[BenchRequest]


def make_works(spec: CpuSpec, text: TextParts, *, block: int) -> list[Work]:
    """The works of one block: lengths are the same in every block, tokens are not, so that no cache of
    prefixes helps anybody."""
    ordinary = ordinary_token_ids(text)
    tokens = random.Random(f"{spec.seed}/{block}")

    def request(name: str, num_prompt: int, num_output: int) -> BenchRequest:
        prompt = tokens.choices(ordinary, k=num_prompt)
        return BenchRequest(
            request_id=f"{block}/{name}",
            prompt_token_ids=prompt,
            prompt_text=text.tokenizer.decode(prompt, skip_special_tokens=False),
            num_output_tokens=num_output,
        )

    drawn = draw_requests(WorkloadSpec(num_requests=spec.num_requests, seed=spec.seed), text)
    mixed = [
        request(f"mixed/{one.request_id}", len(one.prompt_token_ids), one.num_output_tokens) for one in drawn
    ]
    works = [
        Work(f"mixed, {spec.num_requests} at once", WorkKind.MIXED, mixed),
        Work(f"prefill {spec.prefill}", WorkKind.PREFILL, [request("prefill", spec.prefill, 1)]),
    ]
    for num_streams in spec.streams:
        # The first token comes with the prompt, and streams begin in different steps: room for both.
        streams = [
            request(f"decode/{num_streams}/{number}", spec.context, 2 * spec.num_decoded + 1)
            for number in range(num_streams)
        ]
        works.append(Work(f"decode, {num_streams} streams", WorkKind.DECODE, streams))
    return works


def warm_up_spec(spec: CpuSpec) -> CpuSpec:
    """Enough of each kind for engines that compile or allocate at first use."""
    return replace(spec, num_requests=min(spec.num_requests, 8), num_decoded=min(spec.num_decoded, 8))


def rate_of(work: Work, run: RunRecord) -> float:
    """Tokens a second: of the output, of the prompt, or while all streams decode.

    Raises:
        TargetError: a request failed, an output has another length, or streams never decoded together.
    """
    for record in run.requests:
        if not is_whole(record):
            raise TargetError(
                record.error
                or f"{run.target}: {record.num_output_tokens} tokens came where "
                f"{record.num_requested_tokens} were asked for"
            )
    start_ns = min(record.scheduled_ns for record in run.requests)
    end_ns = max(record.chunk_ns[-1] for record in run.requests)
    if work.kind is WorkKind.MIXED:
        return sum(record.num_output_tokens for record in run.requests) / (end_ns - start_ns) * 1e9
    if work.kind is WorkKind.PREFILL:
        return sum(record.num_prompt_tokens for record in run.requests) / (end_ns - start_ns) * 1e9
    return _decode_rate(run)


def _decode_rate(run: RunRecord) -> float:
    """From the last stream's first token to the first stream's last one, so that all decode throughout."""
    from_ns = max(record.chunk_ns[0] for record in run.requests)
    to_ns = min(record.chunk_ns[-1] for record in run.requests)
    count = sum(_arrived(record.chunk_ns, record.chunk_tokens, from_ns, to_ns) for record in run.requests)
    if to_ns <= from_ns or count < len(run.requests):
        raise TargetError(f"{run.target}: {len(run.requests)} streams never decoded together")
    return count / (to_ns - from_ns) * 1e9


def _arrived(stamps: Sequence[int], counts: Sequence[int], from_ns: int, to_ns: int) -> int:
    return sum(count for stamp, count in zip(stamps, counts, strict=True) if from_ns < stamp <= to_ns)
