"""Measured blocks in a file, a line each as they end, so that a run that was stopped goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from octavo.errors import ConfigError


class BlockLog:
    """One file; its first line says of what, and another run does not add to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, of: dict[str, Any], *, resumes: bool) -> None:
        """Start afresh, or go on with what is there.

        Args:
            of: what is measured; must be the same as before to go on.

        Raises:
            ConfigError: there is nothing to go on with, it is of something else, or cannot be written.
        """
        head = json.dumps({"of": of}, sort_keys=True)
        try:
            if not resumes:
                self.path.write_text(head + "\n", encoding="utf-8")
                return
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or error}") from None
        if not lines or lines[0] != head:
            raise ConfigError(f"{self.path} is of another comparison; run without --resume to start afresh")

    def read(self) -> list[dict[str, dict[str, float]]]:
        """Whole lines only: the last one of a run that was killed may be half written."""
        blocks = []
        for line in self.path.read_text(encoding="utf-8").splitlines()[1:]:
            try:
                blocks.append(json.loads(line)["values"])
            except (ValueError, KeyError):
                continue
        return blocks

    def append(self, values: dict[str, dict[str, float]], noise: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"values": values, "noise": noise}) + "\n")
