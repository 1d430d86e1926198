"""A small HTTP/1.1 client for streamed replies: stamps what arrives when the socket gives it.

As cheap as it can be, because it shares the cores with the server under test.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools
import msgspec

from octavo.bench.targets.target import TargetError

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: TCP, or a socket in the file system.

    Attributes:
        path: what comes before every route.
        unix_path: in place of host and port.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    is_secure: bool = False
    unix_path: str | None = None

    @classmethod
    def of_url(cls, url: str) -> Address:
        """Raises TargetError: it is no http or https URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TargetError(f"{url!r} is no address of a server; write for example http://127.0.0.1:8000")
        is_secure = parts.scheme == "https"
        return cls(
            host=parts.hostname,
            port=port or (443 if is_secure else 80),
            path=parts.path.rstrip("/").removesuffix("/v1"),
            is_secure=is_secure,
        )

    def __str__(self) -> str:
        return self.unix_path or f"{self.host}:{self.port}{self.path}"


class _Connection(asyncio.Protocol):
    """One connection; pieces of the reply's body with their arrival go into `pieces`, then None."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.status: asyncio.Future[int] | None = None
        self.is_reusable = False
        self.error: str | None = None
        self.transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._arrival_ns = 0
        self._has_ended = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def send(self, data: bytes) -> asyncio.Future[int]:
        """Send a request; what comes back is the status of its reply, once it is there."""
        self._parser = httptools.HttpResponseParser(self)
        self._has_ended, self.is_reusable, self.error = False, False, None
        self.status = asyncio.get_running_loop().create_future()
        if self.transport is not None:
            self.transport.write(data)
        return self.status

    def data_received(self, data: bytes) -> None:
        self._arrival_ns = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"the reply is no HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_reusable = False
        self._end(f"the connection broke{f': {error}' if error else ''}")

    def close(self) -> None:
        self.is_reusable = False
        if self.transport is not None:
            self.transport.abort()

    # What the parser calls.

    def on_headers_complete(self) -> None:
        if self.status is not None and not self.status.done():
            self.status.set_result(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        self.pieces.put_nowait((self._arrival_ns, body))

    def on_message_complete(self) -> None:
        self.is_reusable = self._parser.should_keep_alive()
        self._end(None)

    def _end(self, error: str | None) -> None:
        if self._has_ended:
            return
        self._has_ended, self.error = True, error
        self.pieces.put_nowait(None)
        if self.status is not None and not self.status.done():
            self.status.set_result(0)


class HttpClient:
    """Requests to one server. Connections are kept and used again."""

    def __init__(self, address: Address, *, headers: Mapping[str, str] | None = None) -> None:
        self.address = address
        self._idle: list[_Connection] = []
        lines = {"Host": address.host or "localhost", "Content-Type": "application/json", **(headers or {})}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    async def fetch(self, method: str, route: str, body: object = None) -> tuple[int, bytes]:
        """Status and body, whatever the status. Raises TargetError: the server cannot be reached."""
        connection, status = await self._send(method, route, body)
        content = bytearray()
        try:
            while (piece := await connection.pieces.get()) is not None:
                content += piece[1]
            self._check(connection)
            return status, bytes(content)
        finally:
            self._release(connection)

    async def stream(self, route: str, body: object) -> AsyncIterator[tuple[int, bytes]]:
        """The data of each server-sent event of a POST, with its arrival. `[DONE]` is not among them.

        Raises:
            TargetError: the server cannot be reached, refused the request, or broke off.
        """
        connection, status = await self._send("POST", route, body)
        rest = b""
        try:
            while (piece := await connection.pieces.get()) is not None:
                arrival_ns, data = piece
                rest += data
                if status != 200:
                    continue
                *events, rest = rest.replace(b"\r\n", b"\n").split(b"\n\n")
                for event in events:
                    start = event.find(b"data:")
                    if start >= 0 and (text := event[start + 5 :].strip()) != b"[DONE]":
                        yield arrival_ns, text
            self._check(connection)
            if status != 200:
                raise TargetError(f"{self.address} answered {status}: {error_text(rest)}")
        finally:
            self._release(connection)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _send(self, method: str, route: str, body: object) -> tuple[_Connection, int]:
        """The connection, once the reply's status is there; 0 where it broke before."""
        content = b"" if body is None else msgspec.json.encode(body)
        head = (
            f"{method} {self.address.path}{route} HTTP/1.1\r\n{self._headers}Content-Length: {len(content)}"
        )
        data = f"{head}\r\n\r\n".encode() + content
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                status = await connection.send(data)
                if status:
                    return connection, status
                connection.close()  # the server had given up a connection that was idle
        connection = await self._connect()
        return connection, await connection.send(data)

    async def _connect(self) -> _Connection:
        loop, address = asyncio.get_running_loop(), self.address
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if address.unix_path is not None:
                    _, made = await loop.create_unix_connection(_Connection, address.unix_path)
                else:
                    _, made = await loop.create_connection(
                        _Connection, address.host, address.port, ssl=address.is_secure or None
                    )
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer"
            raise TargetError(f"{address} cannot be reached: {reason}") from None
        return made

    def _check(self, connection: _Connection) -> None:
        if connection.error is not None:
            raise TargetError(f"{self.address}: {connection.error}")

    def _release(self, connection: _Connection) -> None:
        if connection.is_reusable and connection.pieces.empty():
            self._idle.append(connection)
        else:
            connection.close()


def error_text(body: bytes) -> str:
    """What an error's body says, in one line: the OpenAI form, or its first characters."""
    try:
        content = msgspec.json.decode(body)
        error = content.get("error", content)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (msgspec.DecodeError, AttributeError):
        text = body.decode(errors="replace")
    return " ".join(text.split())[:300] or "nothing"
