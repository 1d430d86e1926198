"""A process seen from outside (age and memory, from /proc; Linux only) and its garbage collector."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from pathlib import Path

_PROC = Path("/proc")


def seconds_since_process_start() -> float:
    """What a person has waited for this process so far, interpreter and imports included."""
    started_ticks = int(_stat_fields(os.getpid())[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def peak_rss_bytes(process_id: int) -> int:
    """Resident memory of a process and its living descendants, each at its own peak.

    Each process counts the pages that it shares with others too, so this is an upper bound.
    """
    return sum(_peak_of_one(member) for member in process_family(process_id))


def own_peak_rss_bytes() -> int:
    """Resident memory of this process alone, at its peak."""
    return _peak_of_one(os.getpid())


def process_family(process_id: int) -> set[int]:
    """The process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat_fields(int(entry.name))[1])
            except OSError:  # it ended meanwhile
                continue
            children.setdefault(parent, []).append(int(entry.name))
    family, unvisited = set[int](), [process_id]
    while unvisited:
        member = unvisited.pop()
        family.add(member)
        unvisited += children.get(member, ())
    return family


def signal_family(process_id: int, signal_number: int) -> None:
    """Send a signal to a process and its living descendants; those that have ended meanwhile are left out."""
    for member in process_family(process_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal_number)


def _peak_of_one(process_id: int) -> int:
    try:
        lines = (_PROC / str(process_id) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _stat_fields(process_id: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; the second may hold spaces."""
    return (_PROC / str(process_id) / "stat").read_text().rpartition(")")[2].split()


def calm_garbage_collector() -> None:
    """For a process whose heap is loaded and will now make many short-lived objects in every step.

    What is there is taken out of the collector's sight, and it looks less often: with 4,096 sequences a
    full collection in the middle of a step was measured at ten times the step's planning.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
