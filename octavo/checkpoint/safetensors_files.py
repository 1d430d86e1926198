"""Finds the safetensors files of a model folder: one file, or the shards that an index lists.

Looks at names and at the index only; the tensors themselves are read in compute/models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from octavo.checkpoint.json_file import read_json_object
from octavo.errors import CheckpointError, UnsupportedModelError

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PICKLE_REFUSAL = (
    "a pickle checkpoint, which can run code when it is loaded, so Octavo does not read it; "
    "convert it to safetensors (in transformers: save_pretrained)"
)


@dataclass(frozen=True)
class SafetensorsFiles:
    """Attributes:
    paths: every file, each once.
    path_by_tensor: the file that the index gives each tensor; None without an index.
    """

    paths: tuple[Path, ...]
    path_by_tensor: Mapping[str, Path] | None


def find_safetensors(folder: Path) -> SafetensorsFiles:
    """The files that hold the folder's weights.

    Raises:
        CheckpointError: there are none, a shard is missing, or the index is damaged.
        UnsupportedModelError: the weights are there as pickle only.
    """
    if (folder / SINGLE_NAME).is_file():
        return SafetensorsFiles((folder / SINGLE_NAME,), None)
    if (folder / INDEX_NAME).is_file():
        return _read_index(folder / INDEX_NAME)
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return SafetensorsFiles((found[0],), None)
    if found:
        raise CheckpointError(folder, f"holds {len(found)} .safetensors files but no {INDEX_NAME}")
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLE_SUFFIXES:
            raise UnsupportedModelError(f"{path}: {PICKLE_REFUSAL}")
    raise CheckpointError(folder, f"has no weights: neither {SINGLE_NAME} nor {INDEX_NAME} is there")


def _read_index(index: Path) -> SafetensorsFiles:
    shard_names = read_json_object(index).get("weight_map")
    if not isinstance(shard_names, dict) or not shard_names:
        raise CheckpointError(index, "has no weight_map that says which shard holds which tensor")
    path_by_tensor: dict[str, Path] = {}
    for tensor, name in shard_names.items():
        # A plain file name: an index must not be able to reach outside its folder.
        if not isinstance(name, str) or name != Path(name).name or not name.endswith(".safetensors"):
            raise CheckpointError(index, f"names {name!r}, which is no file in this folder", tensor=tensor)
        path_by_tensor[tensor] = index.parent / name
    paths = tuple(sorted(set(path_by_tensor.values())))
    for path in paths:
        if not path.is_file():
            first = next(tensor for tensor, shard in path_by_tensor.items() if shard == path)
            raise CheckpointError(path, f"this shard is missing, though {index.name} lists it", tensor=first)
    return SafetensorsFiles(paths, path_by_tensor)
