"""The front's end of the socket to the engine process, and that process's life.

Starts it, sends it messages, hands its messages to a receiver, and says how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from typing import Protocol

import msgspec

from octavo.config import EngineConfig
from octavo.messages import FrameDecoder, StartEngine, ToEngine, ToFront, encode_frame

_REAP_SECONDS = 1.0


class EngineMessageReceiver(Protocol):
    """Who is told what the engine says."""

    def receive(self, message: object) -> None: ...

    def lose_engine(self) -> None: ...


class EngineProcess:
    """A running engine process and our end of its socket pair.

    Spawned before anything else of the server is even imported, so that both load side by side.
    """

    def __init__(self, config: EngineConfig) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            # A session of its own: Ctrl-C in the terminal must reach the front alone, which drains.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "octavo.engine_process", str(fd)],
                pass_fds=(fd,),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.sendall(encode_frame(StartEngine(config)))
        self.connection = ours

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it at once and reap it. Idempotent."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    async def wait_ended(self, timeout_seconds: float) -> None:
        """Give it time to end on its own, then kill it."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while self._process.poll() is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        self.kill()

    def describe_end(self) -> str:
        """Why it is no more, in words, with what may be done about it."""
        try:
            code = self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return "the engine process closed its connection and does not end"
        if code >= 0:
            return f"the engine process ended with exit code {code}"
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL:
            return (
                f"the engine process was killed ({name}); if the system ran out of memory, "
                "lower --kv-cache-memory or take a smaller model"
            )
        return f"the engine process was ended by {name}"


class EngineLink(asyncio.Protocol):
    """Messages over the socket, on the event loop."""

    def __init__(self, receiver: EngineMessageReceiver) -> None:
        self._receiver = receiver
        self._decoder = FrameDecoder(ToFront)
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, process: EngineProcess, receiver: EngineMessageReceiver) -> EngineLink:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(receiver), sock=process.connection)
        return link

    def send(self, message: ToEngine) -> None:
        """Never blocks. A message to an engine that is gone is dropped: its loss is told elsewhere.

        Raises:
            OverflowError: a number does not fit the wire; nothing was sent.
        """
        frame = encode_frame(message)
        if self._transport is not None:
            self._transport.write(frame)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"the engine's socket needs a stream transport, not {transport!r}")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            messages = list(self._decoder.feed(data))
        except (msgspec.MsgspecError, ValueError):
            # The engine speaks nonsense: treat it as gone rather than guess.
            if self._transport is not None:
                self._transport.abort()
            return
        for message in messages:
            self._receiver.receive(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._receiver.lose_engine()
