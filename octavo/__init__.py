"""Octavo serves large language models.

Public names, nothing else. They load on first use, so that `import octavo` is instant and torch-free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from octavo.version import __version__

if TYPE_CHECKING:
    from octavo.llm import LLM
    from octavo.outputs import CompletionOutput, Logprob, RequestOutput
    from octavo.sampling_params import SamplingParams
    from octavo.service_params import ServiceParams

__all__ = [
    "LLM",
    "CompletionOutput",
    "Logprob",
    "RequestOutput",
    "SamplingParams",
    "ServiceParams",
    "__version__",
]

_HOMES = {
    "LLM": "octavo.llm",
    "CompletionOutput": "octavo.outputs",
    "Logprob": "octavo.outputs",
    "RequestOutput": "octavo.outputs",
    "SamplingParams": "octavo.sampling_params",
    "ServiceParams": "octavo.service_params",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'octavo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
