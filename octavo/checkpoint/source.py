"""Turns what a person calls a model into files: a folder, a GGUF file, a hub id, or nothing at all.

Decides only where the model is; does not look inside its files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from octavo.checkpoint.safetensors_files import PICKLE_REFUSAL, PICKLE_SUFFIXES
from octavo.checkpoint.starter import find_starter
from octavo.errors import ConfigError, ModelNotFoundError, UnsupportedModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "tokenizer*", "*.model"]
# Other copies of the same weights, and folders that no transformers model is loaded from.
_HUB_IGNORED = ["consolidated*", "original/*", "*.onnx*", "onnx/*", "*/*.safetensors"]
_HUB_TIMEOUT_SECONDS = 10.0
# What llama.cpp's tools append to a model's name: ".Q4_K_M", "-q8_0", ".F16", "-IQ2_XS"...
_QUANTIZATION_SUFFIX = re.compile(r"[.-](?:I?Q\d\w*|BF16|F16|F32|FP16|FP32)$", re.IGNORECASE)


class SourceKind(Enum):
    FOLDER = "folder"  # config.json beside safetensors files
    GGUF = "gguf"  # everything in one file


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine.

    Attributes:
        name: what the API calls it: a hub id, a folder's name, or a file's without its number format.
        path: the folder, or the GGUF file.
    """

    name: str
    path: Path
    kind: SourceKind


def resolve_model(model: str | None, *, revision: str | None = None) -> ModelSource:
    """Find the model that `model` names; None takes the starter model.

    Args:
        model: a Hugging Face folder, a .gguf file, a folder with one .gguf file, or a hub id "org/name"
            (which is downloaded unless it is in the hub's cache).
        revision: branch, tag or commit of a hub id.

    Raises:
        ModelNotFoundError: there is no such file, folder or reachable hub id.
        ConfigError: a revision of something that is not on the hub.
        UnsupportedModelError: it is there, but holds only formats that are not read, such as pickle.
    """
    if model is None:
        _refuse_revision(revision)
        return _gguf_source(find_starter())
    try:
        path = Path(model).expanduser()
        if path.exists():
            _refuse_revision(revision)
        if path.is_file():
            return _resolve_file(path)
        if model and path.is_dir():
            return _resolve_folder(path)
    except (OSError, RuntimeError) as error:  # no permission, a name too long, no such home
        raise ModelNotFoundError(f"{model!r}: cannot be looked at: {error}") from None
    if path.suffix not in (".gguf", ".safetensors", *PICKLE_SUFFIXES) and _HUB_ID.fullmatch(model):
        return _download(model, revision)
    raise ModelNotFoundError(
        f"{model!r}: no such file or folder (a model on the hub is written org/name, "
        "for example HuggingFaceTB/SmolLM2-135M-Instruct)"
    )


def _refuse_revision(revision: str | None) -> None:
    if revision is not None:
        raise ConfigError(f"--revision {revision}: only a hub id has revisions, and the model is a local one")


def _resolve_file(path: Path) -> ModelSource:
    if path.suffix in PICKLE_SUFFIXES:
        raise UnsupportedModelError(f"{path}: {PICKLE_REFUSAL}")
    if path.suffix in (".safetensors", ".json"):
        raise UnsupportedModelError(f"{path}: name the folder that holds the model, not a file of it")
    # Whatever it is called, the reader looks at its first bytes and refuses what is not GGUF.
    return _gguf_source(path)


def _resolve_folder(folder: Path) -> ModelSource:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    # A folder with a tokenizer alone is a source too: of that tokenizer.
    if "config.json" in names or "tokenizer.json" in names:
        return ModelSource(folder.resolve().name, folder, SourceKind.FOLDER)
    gguf_names = [name for name in names if name.endswith(".gguf")]
    if len(gguf_names) == 1:
        return _gguf_source(folder / gguf_names[0])
    if gguf_names:
        raise ModelNotFoundError(f"{folder}: holds {len(gguf_names)} .gguf files; name one of them")
    for name in names:
        if name.endswith(PICKLE_SUFFIXES):
            raise UnsupportedModelError(f"{folder / name}: {PICKLE_REFUSAL}")
    raise ModelNotFoundError(f"{folder}: not a model folder: it has no config.json and no .gguf file")


def _gguf_source(path: Path) -> ModelSource:
    return ModelSource(_QUANTIZATION_SUFFIX.sub("", path.stem) or path.stem, path, SourceKind.GGUF)


def _download(hub_id: str, revision: str | None) -> ModelSource:
    # Imported here: it is not needed, and takes time, where the model is already on the disk.
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        # Asked first because, unlike snapshot_download, it does not wait for a silent network for minutes.
        HfApi().model_info(hub_id, revision=revision, timeout=_HUB_TIMEOUT_SECONDS)
        folder = snapshot_download(
            hub_id, revision=revision, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_IGNORED
        )
    except GatedRepoError:
        reason = "the hub lets only people in who accepted its terms; log in with: hf auth login"
    except RepositoryNotFoundError:
        reason = "no such file or folder here, and no such model on the hub"
    except RevisionNotFoundError:
        reason = f"the hub has no revision {revision!r} of it"
    except HfHubHTTPError as error:
        reason = f"the hub refused it: {_first_line(error)}"
    # The library lets its HTTP client's own exceptions through, whose type depends on its version.
    except Exception as error:
        cached = _find_cached(hub_id, revision)
        if cached is not None:
            return cached
        reason = (
            "no such file or folder here, and the hub cannot be reached to download it "
            f"({_first_line(error)}); name a local folder or .gguf file"
        )
    else:
        source = _resolve_folder(Path(folder))
        return ModelSource(hub_id, source.path, source.kind)
    raise ModelNotFoundError(f"{hub_id!r}: {reason}")


def _find_cached(hub_id: str, revision: str | None) -> ModelSource | None:
    """What an earlier download left, or None."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = snapshot_download(hub_id, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    source = _resolve_folder(Path(folder))
    return ModelSource(hub_id, source.path, source.kind)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
