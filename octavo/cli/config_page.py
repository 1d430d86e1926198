"""Writes docs/config.md from config.py: `python -m octavo.cli.config_page > docs/config.md`."""

from __future__ import annotations

import sys
from dataclasses import Field, fields
from typing import Any

from octavo.cli.config_flags import default_text, flag_of, group_title
from octavo.config import CacheConfig, ComputeConfig, ModelConfig, SchedulerConfig, ServerConfig

_HEAD = """\
# Settings

Made by `python -m octavo.cli.config_page` from `octavo/config.py`; a test compares. Every setting is a
flag of the commands that have a use for it (`octavo COMMAND --help`). Sizes are written 512MB or 2GB
(powers of 1024), numbers of tokens 4096 or 4k.
"""
_GROUPS: tuple[type[Any], ...] = (ModelConfig, ComputeConfig, CacheConfig, SchedulerConfig, ServerConfig)


def render_page() -> str:
    """The whole page, as Markdown."""
    return _HEAD + "".join(map(_render_group, _GROUPS))


def _render_group(group: type[Any]) -> str:
    rows = "".join(map(_render_row, fields(group)))
    return f"\n## {group_title(group)}\n\n| flag | default | meaning |\n|---|---|---|\n{rows}"


def _render_row(field: Field[Any]) -> str:
    metadata = field.metadata
    name = "MODEL" if field.name == "model" else flag_of(field.name)
    value = "\\|".join(metadata["choices"]) if metadata["choices"] else metadata["metavar"]
    if field.default is True:
        name = flag_of(f"no_{field.name}")
    shown = f"`{name}`" if value in (None, "MODEL") else f"`{name}` {value}"
    meaning = metadata["help"].replace("%%", "%").replace("|", "\\|")
    if metadata["env"] is not None:
        meaning += f"; environment: `{metadata['env']}`"
    default = default_text(field)
    return f"| {shown} | {'' if default is None else f'`{default}`'} | {meaning} |\n"


if __name__ == "__main__":
    sys.stdout.write(render_page())
