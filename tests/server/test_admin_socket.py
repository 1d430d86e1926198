"""The admin socket of a real server: pins, listing, dropping, the block map, and who cannot reach it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.server_process import ServerProcess, running_server, serve_flags


def connect(path: Path) -> httpx.Client:
    """HTTP over the Unix socket."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://octavo", timeout=30.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("admin") / "octavo.sock"


@pytest.fixture(scope="module")
def admin_server(path: Path) -> Iterator[ServerProcess]:
    with running_server("--admin-socket", str(path)) as server:
        yield server


@pytest.fixture
def admin(admin_server: ServerProcess, path: Path) -> Iterator[httpx.Client]:
    with connect(path) as client:
        client.delete("/cache")
        yield client


def test_a_prompt_is_computed_pinned_listed_and_let_go(
    admin: httpx.Client, admin_server: ServerProcess
) -> None:
    prompt = "You are a helpful assistant that answers in rhymes." * 3
    num_tokens = len(admin_server.post("/tokenize", {"prompt": prompt}).json()["tokens"])
    pinned = admin.post("/cache/pins", json={"prompt": prompt, "ttl_seconds": 60, "cache_salt": "tenant"})
    assert pinned.status_code == 200
    pin = pinned.json()
    assert 0 < pin["num_tokens"] <= num_tokens
    assert 0 < pin["expires_in_seconds"] < 61
    listing = admin.get("/cache").json()
    assert [each["pin_id"] for each in listing["pins"]] == [pin["pin_id"]]
    assert listing["num_cached_blocks"] > 0
    (ours,) = [each for each in listing["prefixes"] if each["cache_salt"] == "tenant"]
    assert prompt.startswith(ours["text_start"])
    body = {"prompt": prompt + " Hello", "max_tokens": 1, "cache_salt": "tenant"}
    details = admin_server.post("/v1/completions", body).json()["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] >= pin["num_tokens"]
    again = admin.post("/cache/pins", json={"prompt": prompt, "cache_salt": "tenant"}).json()
    assert again["pin_id"] != pin["pin_id"]
    assert 3000 < again["expires_in_seconds"] < 3601
    for pin_id in (pin["pin_id"], again["pin_id"]):
        assert admin.delete(f"/cache/pins/{pin_id}").json() == {"pin_id": pin_id}
    assert admin.get("/cache").json()["pins"] == []
    gone = admin.delete(f"/cache/pins/{pin['pin_id']}")
    assert gone.status_code == 404
    assert set(gone.json()["error"]) == {"message", "type", "param", "code"}


def test_token_ids_are_pinned_as_they_are(admin: httpx.Client) -> None:
    pin = admin.post("/cache/pins", json={"prompt": list(range(500, 540))}).json()
    assert 0 < pin["num_tokens"] <= 40


def test_dropping_forgets_everything_once(admin: httpx.Client) -> None:
    admin.post("/cache/pins", json={"prompt": "To be or not to be, that is the question. " * 3})
    assert admin.delete("/cache").json()["num_blocks"] > 0
    listing = admin.get("/cache").json()
    assert (listing["pins"], listing["prefixes"], listing["num_cached_blocks"]) == ([], [], 0)
    assert admin.delete("/cache").json() == {"num_blocks": 0}


def test_the_block_map(admin: httpx.Client, admin_server: ServerProcess) -> None:
    block_map = admin.get("/debug/blocks").json()
    num_blocks = admin_server.metric("octavo:kv_blocks_free") + admin_server.metric("octavo:kv_blocks_used")
    assert block_map["num_blocks"] == num_blocks
    assert block_map["block_size"] == 16


@pytest.mark.parametrize(
    ("method", "path_", "body", "status", "param"),
    [
        ("POST", "/cache/pins", {}, 400, "prompt"),
        ("POST", "/cache/pins", {"prompt": ""}, 400, "prompt"),
        ("POST", "/cache/pins", {"prompt": []}, 400, "prompt"),
        ("POST", "/cache/pins", {"prompt": "shorter than a block"}, 400, "prompt"),
        ("POST", "/cache/pins", {"prompt": [10**6]}, 400, "prompt"),
        ("POST", "/cache/pins", {"prompt": [500] * 9000}, 400, "prompt"),
        ("POST", "/cache/pins", {"prompt": "a", "ttl_seconds": 0}, 400, "ttl_seconds"),
        ("POST", "/cache/pins", {"prompt": "a", "ttl_seconds": "long"}, 400, "ttl_seconds"),
        ("POST", "/cache/pins", {"prompt": "a", "cache_salt": ""}, 400, "cache_salt"),
        ("POST", "/cache/pins", {"prompt": [5], "add_special_tokens": True}, 400, "add_special_tokens"),
        ("POST", "/cache/pins", {"prompt": "a", "zzz": 1}, 400, "zzz"),
        ("DELETE", "/cache/pins/none", None, 404, None),
        ("DELETE", "/cache/pins/99999999999999999999999", None, 404, None),
        ("GET", "/v1/models", None, 404, None),
        ("POST", "/debug/blocks", None, 405, None),
    ],
)
def test_wrong_requests_have_openais_error_body(
    admin: httpx.Client, method: str, path_: str, body: object, status: int, param: str | None
) -> None:
    response = admin.request(method, path_, json=body)
    error = response.json()["error"]
    assert response.status_code == status, error
    assert error["param"] == param
    assert error["message"]


def test_it_is_its_owners_alone_and_not_on_the_network(admin_server: ServerProcess, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for route in ("/cache", "/cache/pins", "/debug/blocks"):
        assert admin_server.get(route).status_code == 404


def test_a_place_that_is_taken_or_impossible_is_one_line(
    admin_server: ServerProcess, path: Path, tmp_path: Path
) -> None:
    for place, reason in ((path, "another process listens"), (tmp_path / "no" / "a.sock", "cannot listen")):
        refused = ServerProcess(serve_flags("--admin-socket", str(place)))
        assert refused.wait_exit() == 2
        (line,) = refused.lines
        assert line.startswith(f"octavo: error: --admin-socket {place}: ")
        assert reason in line
        refused.kill()
    assert admin_server.get("/ready").status_code == 200


def test_the_file_goes_with_the_server_and_a_dead_ones_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "octavo.sock"
    with running_server("--admin-socket", str(path), "--no-prefix-caching") as server:
        server.kill()
    assert path.exists()  # it was killed
    with running_server("--admin-socket", str(path), "--no-prefix-caching") as server:
        with connect(path) as admin:
            refused = admin.post("/cache/pins", json={"prompt": "a"})
        assert refused.status_code == 400
        assert "--no-prefix-caching" in refused.json()["error"]["message"]
        server.process.terminate()
        assert server.wait_exit() == 0
    assert not path.exists()
