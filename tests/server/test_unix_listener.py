"""The admin socket's file: whose it is, what it may replace, and that it goes away."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from octavo.errors import ConfigError
from octavo.server.unix_listener import UnixListener


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))


def test_it_listens_for_its_owner_alone_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    listener = UnixListener(str(path), "--admin-socket")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connect(path)
    listener.close()
    listener.close()
    assert not path.exists()


def test_a_dead_servers_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    listener = UnixListener(str(path), "--admin-socket")
    connect(path)
    listener.close()


def test_what_is_alive_or_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    listener = UnixListener(str(path), "--admin-socket")
    with pytest.raises(ConfigError, match="another process listens"):
        UnixListener(str(path), "--admin-socket")
    connect(path)
    listener.close()
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        UnixListener(str(path), "--admin-socket")
    assert path.read_text() == "precious"


def test_a_file_that_somebody_else_put_there_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    listener = UnixListener(str(path), "--admin-socket")
    path.unlink()
    path.write_text("another's")
    listener.close()
    assert path.exists()


@pytest.mark.parametrize("name", ["no/such/folder/a.sock", "x" * 200])
def test_an_impossible_place_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--admin-socket .*cannot listen there") as caught:
        UnixListener(str(tmp_path / name), "--admin-socket")
    assert "\n" not in str(caught.value)
