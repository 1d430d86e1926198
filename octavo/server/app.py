"""The ASGI application: which path leads where, and who may walk it."""

from __future__ import annotations

import hashlib
import hmac

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.server import operations
from octavo.server.openai.chat import create_chat_completion
from octavo.server.openai.completions import create_completion
from octavo.server.openai.models import get_model, list_models
from octavo.server.openai.tokenize import detokenize, tokenize
from octavo.server.openapi import openapi
from octavo.server.parts import ServerParts
from octavo.server.replies import contain_faults, http_error, plain_error

# Probes and scrapers carry no key. Every other path needs one where one is set.
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/live", "/ping", "/metrics"})


def make_app(parts: ServerParts) -> ASGIApp:
    """The whole application, around the given parts."""
    gets = {
        "/": operations.root,
        "/health": operations.ready,
        "/ready": operations.ready,
        "/live": operations.live,
        "/ping": operations.ready,
        "/metrics": operations.metrics,
        "/version": operations.version,
        "/load": operations.load,
        "/openapi.json": openapi,
        "/v1/models": list_models,
        "/v1/models/{model:path}": get_model,
    }
    posts = {
        "/v1/completions": create_completion,
        "/v1/chat/completions": create_chat_completion,
        "/tokenize": tokenize,
        "/detokenize": detokenize,
    }
    routes = [Route(path, contain_faults(endpoint), methods=["GET"]) for path, endpoint in gets.items()]
    routes += [Route(path, contain_faults(endpoint), methods=["POST"]) for path, endpoint in posts.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error})
    app.router.redirect_slashes = False
    app.state.parts = parts
    key = parts.config.server.api_key
    return app if key is None else KeyGuard(app, key)


class KeyGuard:
    """Lets through what is open to all or carries the key.

    Decides on the path alone, never on a URL rebuilt from the client's Host header.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._digest = _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._has_key(scope):
            response = plain_error(
                401, "no valid API key: send 'Authorization: Bearer KEY'", code="invalid_api_key"
            )
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(values) != 1:
            return False
        scheme, _, key = values[0].partition(b" ")
        # Digests have one length, so that the comparison's time says nothing about the key.
        return scheme.lower() == b"bearer" and hmac.compare_digest(_digest(key.strip()), self._digest)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
