"""Where the KV memory goes: the categories of the vLLM paper's figure 2, summed step by step.

One set of definitions for all allocators, so that their numbers can stand side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(slots=True)
class SlotUse:
    """The slots of the KV memory at one moment; together they are all of it.

    Attributes:
        states: hold a token's keys and values.
        reserved: set aside for tokens that this request will come to have.
        internal: set aside for a request that will never fill them.
        external: nobody's, and too scattered or too few for what waits; what an allocator's rounding
            adds; and what does not make a whole block.
        free: nobody's, and fit for any request.
    """

    states: int = 0
    reserved: int = 0
    internal: int = 0
    external: int = 0
    free: int = 0

    @property
    def total(self) -> int:
        return self.states + self.reserved + self.internal + self.external + self.free

    def add_request(self, num_filled: int, num_final: int, num_set_aside: int) -> None:
        """Count a request's own slots.

        Args:
            num_filled: tokens in the cache.
            num_final: tokens that it will have in the cache at its end.
            num_set_aside: slots that nobody else can have.
        """
        num_useful = min(num_set_aside, num_final)
        self.states += num_filled
        self.reserved += num_useful - num_filled
        self.internal += num_set_aside - num_useful


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryUse:
    """One allocator's mean use of the memory while requests waited for it.

    Attributes:
        name: "max", "pow2", "oracle" or "paged-16".
        states, reserved, internal, external, free: shares of the KV memory, mean of the steps; see SlotUse.
        mean_running: requests that ran at once, mean of the same steps.
        num_steps: steps that the means are of.
        num_all_steps: steps that the whole trace took.
    """

    name: str
    states: float
    reserved: float
    internal: float
    external: float
    free: float
    mean_running: float
    num_steps: int
    num_all_steps: int
    num_preemptions: int

    @property
    def waste(self) -> float:
        """Memory that is set aside or lost, and holds nothing."""
        return self.reserved + self.internal + self.external

    def as_json(self) -> dict[str, Any]:
        """Percentages, as the paper has them."""
        shares = {
            f"{name}_percent": round(100 * getattr(self, name), 3)
            for name in ("states", "reserved", "internal", "external", "free", "waste")
        }
        rest = {field.name: getattr(self, field.name) for field in fields(self)}
        return (
            {name: rest[name] for name in ("name", "mean_running")}
            | shares
            | {name: rest[name] for name in ("num_steps", "num_all_steps", "num_preemptions")}
        )


class UseMeter:
    """Sums up steps; means at the end.

    Raises:
        ValueError: a step's slots do not add up to the memory.
    """

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._sum = SlotUse()
        self._running = 0
        self._num_steps = 0

    def add(self, use: SlotUse, num_running: int) -> None:
        """Count one step."""
        if use.total != self._num_slots:
            raise ValueError(f"{use} is {use.total} slots, and the memory has {self._num_slots}")
        for field in fields(SlotUse):
            setattr(self._sum, field.name, getattr(self._sum, field.name) + getattr(use, field.name))
        self._running += num_running
        self._num_steps += 1

    def means(self, name: str, *, num_all_steps: int, num_preemptions: int = 0) -> MemoryUse:
        """What it came to; all shares 0 if no step was counted."""
        slots = max(self._num_slots * self._num_steps, 1)
        shares = {field.name: getattr(self._sum, field.name) / slots for field in fields(SlotUse)}
        return MemoryUse(
            name=name,
            mean_running=self._running / max(self._num_steps, 1),
            num_steps=self._num_steps,
            num_all_steps=num_all_steps,
            num_preemptions=num_preemptions,
            **shares,
        )
