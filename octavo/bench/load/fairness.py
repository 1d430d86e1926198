"""What each target was given, item by item, so that a reader can see what was equal and what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.bench.targets.target import TargetDescription

_ITEMS = (
    ("engine", "engine"),
    ("version", "version"),
    ("weights", "weights"),
    ("products", "compute_format"),
    ("keys and values", "kv_format"),
    ("KV MiB", "kv_bytes"),
    ("threads", "num_threads"),
    ("largest batch", "max_num_seqs"),
    ("tokens in a step", "max_num_batched_tokens"),
    ("prefix cache", "prefix_caching"),
    ("notes", "notes"),
)


def fairness_rows(descriptions: Sequence[TargetDescription]) -> list[tuple[str, list[str], bool]]:
    """Item, its value for each target, and whether they are all alike."""
    rows = []
    for item, field in _ITEMS:
        values = [_text(field, getattr(one, field)) for one in descriptions]
        if any(values):
            rows.append((item, values, len(set(values)) == 1))
    return rows


CONFORMANCE_HEADER = ("", "lengths", "same first token", "same beginning", "tokens a chunk", "compared")
CONFORMANCE_NOTE = (
    "Greedy outputs beside the first target's, before anything is timed. Other number formats part sooner or "
    "later; a target that begins differently for more than half of the prompts is not compared."
)


def conformance_rows(
    conformance: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]
) -> list[list[str]]:
    """What each target made of the first one's prompts, and why one is out; cells under CONFORMANCE_HEADER.

    Args:
        conformance: fields of load.conformance.Conformance by target.
        failures: the line that ended a target, or a condition on it.
    """
    rows = []
    for name, one in conformance.items():
        num_prompts = one.get("num_prompts", 0)  # older results have no count
        num_same = round(one["first_agreement"] * num_prompts)
        out = one["failure"] or failures.get(name)
        seen = [
            "exact" if one["has_exact_lengths"] else "not as asked",
            f"{num_same} of {num_prompts} prompts",
            f"{100 * one['agreement']:.0f} %",
            f"{one['tokens_per_chunk']:.2f}",
        ]
        rows.append([name, *(seen if num_prompts else ["–"] * len(seen)), f"no: {out}" if out else "yes"])
    rows += [
        [name, "–", "–", "–", "–", f"no: {line}"]
        for name, line in failures.items()
        if name not in conformance
    ]
    return rows


def _text(field: str, value: object) -> str:
    if value is None:
        return "unknown"
    if field == "kv_bytes" and isinstance(value, int):
        return f"{value / 2**20:,.0f}"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)
