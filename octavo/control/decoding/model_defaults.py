"""What a model's makers recommend for decoding, under what a request asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What shapes the draw of a token. Beam search draws none, and refuses them.
_DRAWING_FIELDS = frozenset({"temperature", "top_k", "top_p", "min_p"})


def over_model_defaults(wanted: Mapping[str, Any], recommended: Mapping[str, Any]) -> dict[str, Any]:
    """Fields for SamplingParams: the request's, then the model's, as far as they go with the request."""
    if wanted.get("use_beam_search"):
        recommended = {name: value for name, value in recommended.items() if name not in _DRAWING_FIELDS}
    return {**recommended, **wanted}
