"""The OpenAPI 3.1 document, made from the request structs: it cannot say anything else than the code."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.openai.schema import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody
from octavo.server.replies import json_response
from octavo.version import __version__

_POSTS: dict[str, tuple[type[msgspec.Struct], str]] = {
    "/v1/completions": (CompletionBody, "Continue a prompt"),
    "/v1/chat/completions": (ChatBody, "Answer a conversation"),
    "/tokenize": (TokenizeBody, "Token ids of a text or conversation"),
    "/detokenize": (DetokenizeBody, "Text of token ids"),
}
_GETS = {
    "/v1/models": "The served model, as a list",
    "/v1/models/{model}": "The served model",
    "/health": "200 when requests are taken, 503 when not",
    "/ready": "The same",
    "/live": "503 only when the engine is given up",
    "/ping": "The same as /health",
    "/load": "Prompts in the engine",
    "/metrics": "Prometheus metrics",
    "/version": "Octavo's version",
}
_ERROR_SCHEMA = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


async def openapi(request: Request) -> Response:
    return json_response(openapi_document())


def openapi_document() -> dict[str, Any]:
    """The whole document as plain data."""
    bodies = [body for body, _ in _POSTS.values()]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    error = {
        "description": "Refused or failed",
        "content": _json_content({"$ref": "#/components/schemas/Error"}),
    }
    ok = {"description": "Done"}
    paths: dict[str, Any] = {}
    for (path, (_, summary)), schema in zip(_POSTS.items(), schemas, strict=True):
        paths[path] = {
            "post": {
                "summary": summary,
                "requestBody": {"required": True, "content": _json_content(schema)},
                "responses": {"200": ok, "default": error},
            }
        }
    for path, summary in _GETS.items():
        operation: dict[str, Any] = {"summary": summary, "responses": {"200": ok, "default": error}}
        if "{model}" in path:
            operation["parameters"] = [
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        paths[path] = {"get": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Octavo", "version": __version__},
        "paths": paths,
        "components": {"schemas": {**components, "Error": _ERROR_SCHEMA}},
    }


def _json_content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
