"""Who did the same work, as tables show it: counts, and the reason of whoever is out."""

from __future__ import annotations

from dataclasses import asdict

from octavo.bench.load.conformance import Conformance
from octavo.bench.load.fairness import CONFORMANCE_HEADER, conformance_rows


def found(target: str, num_prompts: int, failure: str | None = None) -> Conformance:
    return Conformance(
        target=target,
        has_exact_lengths=True,
        num_prompts=num_prompts,
        first_agreement=0.625,
        agreement=0.4,
        tokens_per_chunk=1.0,
        failure=failure,
    )


def test_agreement_is_told_with_its_count_and_whoever_is_out_with_the_reason():
    conformance = {
        "near": asdict(found("near", 8)),
        "far": asdict(found("far", 8, "outputs are not as long as asked")),
        "broken": asdict(found("broken", 0, "it does not answer")),
    }
    rows = conformance_rows(conformance, {"near": "it broke later", "absent": "it is not installed"})
    assert all(len(row) == len(CONFORMANCE_HEADER) for row in rows)
    assert [row[0] for row in rows] == ["near", "far", "broken", "absent"]
    assert rows[0][2] == "5 of 8 prompts" and rows[0][-1] == "no: it broke later"
    assert rows[1][-1] == "no: outputs are not as long as asked"
    assert rows[2][1:5] == ["–"] * 4 and rows[2][-1] == "no: it does not answer"
    assert rows[3][-1] == "no: it is not installed"


def test_a_target_that_agrees_is_compared():
    ((*_, compared),) = conformance_rows({"near": asdict(found("near", 8))}, {})
    assert compared == "yes"
