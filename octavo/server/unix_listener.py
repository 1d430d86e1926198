"""A listening Unix socket that only its owner may use, and the file that stands for it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from octavo.errors import ConfigError

_PROBE_SECONDS = 1.0
_BACKLOG = 64


class UnixListener:
    """Listens from when it is made until `close`, which removes the file.

    A file that a dead server has left is replaced; one on which somebody listens, or that is no
    socket, is left alone.

    Raises:
        ConfigError: it cannot be made, and why.
    """

    def __init__(self, path: str, flag: str) -> None:
        self._path = Path(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._remove_stale(flag)
            # Nobody else may connect, not even between bind and a later chmod.
            earlier_mask = os.umask(0o177)
            try:
                self.socket.bind(path)
            finally:
                os.umask(earlier_mask)
            self._identity = _identity(self._path)
            self.socket.listen(_BACKLOG)
        except OSError as error:
            self.socket.close()
            raise ConfigError(f"{flag} {path}: cannot listen there: {error.strerror or error}") from None
        except ConfigError:
            self.socket.close()
            raise

    def close(self) -> None:
        """Stop listening and remove the file, if it is still ours. Idempotent."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._identity:
                self._path.unlink()

    def _remove_stale(self, flag: str) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ConfigError(f"{flag} {self._path}: a file is in the way that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_SECONDS)
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
            except TimeoutError:
                pass  # somebody listens, and is busy
        raise ConfigError(f"{flag} {self._path}: another process listens there")


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
