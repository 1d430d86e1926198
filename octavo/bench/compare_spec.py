"""What `octavo bench compare` is asked for beside the works. Settings only."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.bench.cpu_spec import CpuSpec
from octavo.config import setting
from octavo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CompareSpec:
    """How often the targets take turns."""

    blocks: int = setting(5, "blocks that count, after one that does not", parse=int, metavar="N")
    works: CpuSpec

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ConfigError(f"--blocks must be at least 1, not {self.blocks}")
