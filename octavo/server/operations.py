"""Routes for operators: health, load, metrics, version. Answered from memory; the model is never run.

state            /live   /ready, /health   new requests
starting         200     503               503 + Retry-After
ready, busy      200     200               run or queue
queue full       200     200, load: full   429 + Retry-After
hung step        200     503               queue
draining         200     503               503; what runs may finish
engine dead      503     503               503
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from octavo.server.front import EngineState
from octavo.server.parts import ServerParts
from octavo.server.replies import json_response
from octavo.version import __version__


async def ready(request: Request) -> Response:
    """Whether to send requests here. Overload is not unreadiness: else balancers drop every replica."""
    parts: ServerParts = request.app.state.parts
    front = parts.front
    state = "hung" if front.state is EngineState.READY and front.is_hung else front.state.value
    load = "full" if front.is_full else "busy" if front.num_live else "idle"
    return json_response({"status": state, "load": load}, 200 if front.is_ready else 503)


async def live(request: Request) -> Response:
    """Whether the server is worth keeping: only an engine that is given up says no."""
    parts: ServerParts = request.app.state.parts
    is_live = parts.front.is_live
    return json_response({"status": "live" if is_live else "dead"}, 200 if is_live else 503)


async def root(request: Request) -> Response:
    """A line for whoever opens the address in a browser."""
    parts: ServerParts = request.app.state.parts
    if not parts.front.is_ready:
        return PlainTextResponse(f"Octavo is {parts.front.state.value}\n", 503)
    return PlainTextResponse("Octavo is running\n")


async def load(request: Request) -> Response:
    """How many prompts are in the engine."""
    parts: ServerParts = request.app.state.parts
    return json_response({"server_load": parts.front.num_live})


async def version(request: Request) -> Response:
    return json_response({"version": __version__})


async def metrics(request: Request) -> Response:
    """Prometheus's page."""
    parts: ServerParts = request.app.state.parts
    parts.metrics.model_name = parts.model_name
    parts.front.record_queue()
    return Response(parts.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
