"""Talks to a running server: the streamed chat endpoint of the OpenAI API, over the standard library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

from octavo.config import ServerConfig, environment_defaults
from octavo.errors import ConfigError, EngineUnavailableError, OctavoError, RequestError

_CONNECT_SECONDS = 10.0
_MAX_BODY_BYTES = 4 * 2**20


class ServerChat:
    """A chat model behind a URL.

    Raises:
        ConfigError: the URL is no http or https URL.
        EngineUnavailableError: nobody listens there, or not an OpenAI server.
    """

    def __init__(self, url: str, wanted: dict[str, Any]) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"--url {url!r} is no address of a server; write for example http://127.0.0.1:8000"
            )
        self._is_secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, port
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._where = f"{parts.scheme}://{parts.netloc}{self._path}"
        self._wanted = {name: value for name, value in wanted.items() if value is not None}
        self._headers = {"Content-Type": "application/json"}
        api_key = environment_defaults().get("api_key")
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._model = self._find_model()

    @property
    def title(self) -> str:
        return f"{self._model} (at {self._where})"

    def answer(self, messages: list[dict[str, Any]]) -> Generator[str]:
        """The answer, piece by piece. Closing the generator closes the connection, which stops it.

        Raises:
            RequestError: the server refused the request.
            EngineUnavailableError: it cannot be reached, or broke off.
        """
        body = {"model": self._model, "messages": messages, "stream": True} | self._wanted
        connection = self._connect()
        try:
            response = self._ask(connection, "POST", "/v1/chat/completions", json.dumps(body))
            for event in self._read_events(response):
                if "error" in event:
                    raise EngineUnavailableError(_error_message(event))
                for choice in event.get("choices", ()):
                    yield choice.get("delta", {}).get("content") or ""
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnavailableError(f"{self._where}: the connection broke: {error}") from None
        finally:
            connection.close()

    def close(self) -> None:
        """Nothing is kept open between answers."""

    def _find_model(self) -> str:
        connection = self._connect()
        try:
            response = self._ask(connection, "GET", "/v1/models", None)
            return str(json.loads(response.read(_MAX_BODY_BYTES))["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            raise EngineUnavailableError(f"{self._where}: not a server of the OpenAI API") from None
        except OSError as error:
            raise EngineUnavailableError(
                f"{self._where}: no server answers there ({error.strerror or error}); "
                "start one with `octavo serve`"
            ) from None
        except http.client.HTTPException:
            raise EngineUnavailableError(f"{self._where}: not a server of the OpenAI API") from None
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=_CONNECT_SECONDS)

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None
    ) -> http.client.HTTPResponse:
        connection.connect()
        # A long prompt on a slow machine may take minutes to its first token; Ctrl-C always ends it.
        connection.sock.settimeout(None if method == "POST" else _CONNECT_SECONDS)
        connection.request(method, self._path + path, body, self._headers)
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise _as_error(response.status, response.read(_MAX_BODY_BYTES))
        return response

    def _read_events(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        """The JSON objects of an event stream, up to `[DONE]`."""
        while line := response.readline(_MAX_BODY_BYTES):
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            try:
                event = json.loads(data)
            except ValueError:
                raise EngineUnavailableError(f"{self._where}: sent an event that is no JSON") from None
            if isinstance(event, dict):
                yield event
        raise EngineUnavailableError(f"{self._where}: the server broke off in the middle of the answer")


def _as_error(status: int, body: bytes) -> OctavoError:
    try:
        message = _error_message(json.loads(body))
    except (ValueError, AttributeError):
        message = f"the server answered with status {status}"
    if status == http.HTTPStatus.UNAUTHORIZED:
        message += f" (set {ServerConfig.__dataclass_fields__['api_key'].metadata['env']})"
    is_refused = http.HTTPStatus.BAD_REQUEST <= status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    return RequestError(message) if is_refused else EngineUnavailableError(message)


def _error_message(body: dict[str, Any]) -> str:
    error = body.get("error")
    if isinstance(error, dict):
        return str(error.get("message", "the server reported an error"))
    return str(error or "the server reported an error")
