"""`octavo cache` against a server that is one in all but the model."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

LISTING = {
    "num_cached_blocks": 7,
    "pins": [{"pin_id": 3, "num_tokens": 40, "num_blocks": 3, "expires_in_seconds": 3661.2}],
    "prefixes": [
        {
            "token_ids": [1, 2],
            "num_tokens": 40,
            "num_blocks": 3,
            "is_in_use": True,
            "cache_salt": "ten\x1b[2Jant",
            "text_start": "You are [bold]helpful[/bold]\nand \x1b[31mkind",
        }
    ],
}


class Answers(BaseHTTPRequestHandler):
    """Answers as the admin socket does, and keeps what it was asked."""

    asked: list[tuple[str, str, Any]]

    def do_GET(self) -> None:
        self._answer(LISTING)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["prompt"] == "too long":
            self._answer({"error": {"message": "the prompt has 9000 tokens"}}, 400, body)
        else:
            self._answer(LISTING["pins"][0], body=body)  # type: ignore[index]

    def do_DELETE(self) -> None:
        if self.path == "/cache":
            self._answer({"num_blocks": 7})
        elif self.path == "/cache/pins/3":
            self._answer({"pin_id": 3})
        else:
            self._answer({"error": {"message": "there is no pin 4"}}, 404)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, answer: Any, status: int = 200, body: Any = None) -> None:
        self.asked.append((self.command, self.path, body))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class UnixServer(ThreadingMixIn, UnixStreamServer):
    def get_request(self) -> Any:
        connection, _ = super().get_request()
        return connection, ("local", 0)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    Answers.asked = []
    path = tmp_path / "a.sock"
    with UnixServer(str(path), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_list_shows_a_table_without_anybodys_escapes(run, path):
    exit_code, out, err = run("cache", "list", "--socket", path)
    assert (exit_code, err) == (0, "")
    assert "1 h 1 min 1 s" in out
    assert "You are [bold]helpful[/bold]\\nand \\u001b[31mkind" in out
    assert "ten\\u001b[2Jant" in out
    assert "\x1b[2J" not in out
    assert "\x1b[31m" not in out
    assert out.endswith("7 blocks cached, 1 pins\n")


def test_list_as_json(run, path):
    _, out, _ = run("cache", "list", "--socket", path, "--json")
    assert json.loads(out) == LISTING


def test_pin_unpin_and_drop(run, path, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("You are helpful.")
    exit_code, out, _ = run(
        "cache", "pin", "--file", file, "--socket", path, "--ttl", "60", "--cache-salt", "tenant"
    )
    assert (exit_code, out) == (0, "pin 3: 40 tokens in 3 blocks, kept for 1 h 1 min 1 s\n")
    assert run("cache", "unpin", "3", "--socket", path) == (0, "pin 3 given up\n", "")
    assert run("cache", "drop", "--socket", path) == (0, "7 blocks forgotten\n", "")
    body = {"prompt": "You are helpful.", "ttl_seconds": 60.0, "cache_salt": "tenant"}
    assert Answers.asked == [
        ("POST", "/cache/pins", body),
        ("DELETE", "/cache/pins/3", None),
        ("DELETE", "/cache", None),
    ]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "line"),
    [
        (("pin", "too long"), 2, "the prompt has 9000 tokens"),
        (("unpin", "4"), 2, "there is no pin 4"),
        (("unpin", "x"), 2, "PIN: 'x' is not a whole number (see octavo cache unpin --help)"),
        (("pin", "a", "--file", "b"), 2, "give PROMPT or --file, not both"),
    ],
)
def test_what_is_refused_is_one_line(run, path, arguments, exit_code, line):
    assert run("cache", *arguments, "--socket", path) == (exit_code, "", f"octavo: error: {line}\n")


def test_nobody_there_is_one_line(run, tmp_path):
    missing = tmp_path / "missing.sock"
    exit_code, _, err = run("cache", "list", "--socket", missing)
    assert exit_code == 1
    assert err == (
        f"octavo: error: {missing}: no server answers there (No such file or directory); start one with "
        f"`octavo serve --admin-socket {missing}`\n"
    )


def test_a_stranger_there_is_one_line(run, tmp_path):
    path = tmp_path / "stranger.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind(str(path))
        stranger.listen()

        def mumble() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example.org ready\r\n")

        thread = threading.Thread(target=mumble)
        thread.start()
        exit_code, _, err = run("cache", "list", "--socket", path)
        thread.join()
    assert exit_code == 1
    assert err == f"octavo: error: {path}: not the admin socket of an Octavo server\n"
