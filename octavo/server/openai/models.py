"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from octavo.server.parts import ServerParts
from octavo.server.replies import json_response


async def list_models(request: Request) -> Response:
    """The one served model, as a list."""
    parts: ServerParts = request.app.state.parts
    return json_response({"object": "list", "data": [_model(parts)] if parts.model_name else []})


async def get_model(request: Request) -> Response:
    """The served model. Raises UnknownModelError: it has another name."""
    parts: ServerParts = request.app.state.parts
    parts.check_model(request.path_params["model"])
    return json_response(_model(parts))


def _model(parts: ServerParts) -> dict[str, Any]:
    facts = parts.front.facts
    return {
        "id": parts.model_name,
        "object": "model",
        "created": parts.created_seconds,
        "owned_by": "octavo",
        "root": parts.model_name,
        "parent": None,
        "max_model_len": None if facts is None else facts.max_model_len,
    }
