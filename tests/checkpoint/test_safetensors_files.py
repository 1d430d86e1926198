"""Which files hold a folder's weights, and what is said when one is missing or an index lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from octavo.checkpoint.safetensors_files import find_safetensors
from octavo.errors import CheckpointError, UnsupportedModelError

INDEX = "model.safetensors.index.json"


def test_a_single_file_comes_before_an_index(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / INDEX).write_text("damaged")
    assert find_safetensors(tmp_path).paths == (tmp_path / "model.safetensors",)


def test_an_index_lists_each_shard_once(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors", "unused.safetensors"):
        (tmp_path / name).touch()
    weight_map = {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    files = find_safetensors(tmp_path)
    assert files.paths == (tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert files.path_by_tensor == {name: tmp_path / shard for name, shard in weight_map.items()}


def test_one_file_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    assert find_safetensors(tmp_path).paths == (tmp_path / "weights.safetensors",)
    (tmp_path / "more.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"holds 2 \.safetensors files but no"):
        find_safetensors(tmp_path)


def test_a_missing_shard_names_file_and_tensor(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: tensor 'x': this shard is missing"):
        find_safetensors(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "..", "", 7, None]
)
def test_an_index_cannot_reach_outside_its_folder(tmp_path: Path, shard: object) -> None:
    (tmp_path.parent / "x.safetensors").touch()
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(CheckpointError, match=r"tensor 'w': names .* no file in this folder"):
        find_safetensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a JSON list"),
        ("{}", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"a": ' * 100_000, "not valid JSON"),
        ('{"a": ' + "9" * 10_000 + "}", "not valid JSON"),
    ],
)
def test_a_damaged_index_is_one_line(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=expected) as caught:
        find_safetensors(tmp_path)
    assert "\n" not in str(caught.value)


def test_pickle_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UnsupportedModelError, match=r"pytorch_model\.bin: a pickle checkpoint"):
        find_safetensors(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no weights"):
        find_safetensors(tmp_path)
