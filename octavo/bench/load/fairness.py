"""What each target was given, item by item, so that a reader can see what was equal and what was not."""

from __future__ import annotations

from collections.abc import Sequence

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


def _text(field: str, value: object) -> str:
    if value is None:
        return "unknown"
    if field == "kv_bytes" and isinstance(value, int):
        return f"{value / 2**20:,.0f}"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)
