"""What a measurement ran on: processor, memory, versions. Without this line a number means nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from octavo.version import __version__

# Instruction sets that low-bit and attention kernels care about, as /proc/cpuinfo spells them.
_NOTABLE_FLAGS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Attributes:
    cpu: the processor's name.
    num_cores: cores that this process may use.
    instruction_sets: the notable ones that the processor has.
    memory_bytes: of the whole machine.
    """

    cpu: str
    num_cores: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    system: str
    python: str
    torch: str
    octavo: str


def describe_machine() -> Machine:
    """This machine, and the versions in use. Imports nothing heavy."""
    facts = _read_cpu_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    return Machine(
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        instruction_sets=tuple(flag for flag in _NOTABLE_FLAGS if flag in flags),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        torch=metadata.version("torch"),
        octavo=__version__,
    )


def _read_cpu_facts() -> dict[str, str]:
    """The first core's entry of /proc/cpuinfo; nothing where there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first_core = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first_core.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
