"""`--target`: what its forms mean and what is refused."""

from __future__ import annotations

import pytest

from octavo.bench.targets.registry import TargetName, installed_peers, make_target, parse_target
from octavo.bench.targets.settings import TargetSettings
from octavo.bench.targets.target import TargetError
from octavo.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("octavo", TargetName("octavo", "octavo", None, ())),
        ("fp32:octavo=dtype=float32", TargetName("fp32", "octavo", None, (("dtype", "float32"),))),
        ("mine=http://127.0.0.1:1", TargetName("mine", "openai", "http://127.0.0.1:1", ())),
        ("vllm=http://127.0.0.1:1", TargetName("vllm", "vllm", "http://127.0.0.1:1", ())),
        ("a:tgi=http://127.0.0.1:1/x", TargetName("a", "tgi", "http://127.0.0.1:1/x", ())),
    ],
)
def test_forms(text, name):
    assert parse_target(text) == name


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("unknown", "there is no target 'unknown'"),
        ("tgi", "needs a URL"),
        ("octavo=dtype", "'dtype' is no option"),
    ],
)
def test_wrong_forms_are_refused(text, line):
    with pytest.raises(ConfigError, match=line):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("octavo=colour=red", "no option 'colour'"),
        ("octavo=num_threads=many", "num_threads=many"),
        ("octavo=prefix_caching=perhaps", "true or false"),
        ("mine=http:///", "no address of a server"),
    ],
)
def test_wrong_options_are_refused(tiny_config, text, line):
    with pytest.raises((ConfigError, TargetError), match=line):
        make_target(parse_target(text), TargetSettings.of(tiny_config))


def test_what_is_not_installed_says_how_to_install_it(tiny_config, monkeypatch, tmp_path):
    monkeypatch.setenv("OCTAVO_PEERS", str(tmp_path))
    assert installed_peers() == []
    for kind, peer in (("vllm", "vllm"), ("transformers-continuous", "transformers")):
        with pytest.raises(TargetError, match=f"scripts/peers {peer}"):
            make_target(parse_target(kind), TargetSettings.of(tiny_config))


def test_peers_that_read_gguf_refuse_folders(tiny_config):
    with pytest.raises(TargetError, match="GGUF"):
        make_target(parse_target("openvino"), TargetSettings.of(tiny_config))
