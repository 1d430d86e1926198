"""Talks to a running server's admin socket: HTTP over a Unix socket, with the standard library."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from octavo.errors import EngineUnavailableError, OctavoError, RequestError

# A prompt may have to be computed before it is pinned, behind all that runs.
_ANSWER_SECONDS = 600.0


class AdminClient:
    """One server's admin socket, by its path. Connects for each question."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, method: str, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer's JSON object.

        Raises:
            RequestError: the server refused the question.
            EngineUnavailableError: nobody answers there, or not a server of ours.
        """
        connection = _UnixConnection(self._path)
        text = None if body is None else json.dumps(body)
        try:
            connection.request(method, route, text, {"Content-Type": "application/json"} if text else {})
            response = connection.getresponse()
            data = response.read()
        except OSError as error:
            raise EngineUnavailableError(
                f"{self._path}: no server answers there ({error.strerror or error}); start one with "
                f"`octavo serve --admin-socket {self._path}`"
            ) from None
        except http.client.HTTPException:
            raise self._stranger() from None
        finally:
            connection.close()
        return self._read(response.status, data)

    def _read(self, status: int, data: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._stranger()
        if status == http.HTTPStatus.OK:
            return answer
        raise _as_error(status, answer)

    def _stranger(self) -> EngineUnavailableError:
        return EngineUnavailableError(f"{self._path}: not the admin socket of an Octavo server")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._unix_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_ANSWER_SECONDS)
        self.sock.connect(self._unix_path)


def _as_error(status: int, answer: dict[str, Any]) -> OctavoError:
    error = answer.get("error")
    message = str(error.get("message")) if isinstance(error, dict) else f"the server answered {status}"
    is_refused = http.HTTPStatus.BAD_REQUEST <= status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    if is_refused and status != http.HTTPStatus.TOO_MANY_REQUESTS:
        return RequestError(message)
    return EngineUnavailableError(message)
