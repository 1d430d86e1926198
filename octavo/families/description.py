"""Describes a model that has been found: its family, spec, tensor names, end tokens and sampling defaults.

Reads headers and settings only: no tensor is touched, no tensor library imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from octavo.checkpoint.gguf import GgufFile
from octavo.checkpoint.json_file import read_json_object
from octavo.checkpoint.safetensors_files import find_safetensors
from octavo.checkpoint.safetensors_header import read_safetensors_shapes
from octavo.checkpoint.source import ModelSource, SourceKind
from octavo.errors import UnsupportedModelError
from octavo.families import gpt2, llama, mistral, opt, qwen2, qwen3
from octavo.families.config_reader import ConfigReader
from octavo.families.family import Family
from octavo.families.gguf_header import GgufHeader
from octavo.families.stored_tensors import StoredTensor, match_stored_tensors
from octavo.families.weight_map import TensorSource, expand_weight_map
from octavo.model_spec import DecoderSpec

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    opt.FAMILY,
    gpt2.FAMILY,
    mistral.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
)

_HEAD_NAME = r"lm_head\.weight"


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """All that is known of a model before its weights are read.

    Attributes:
        weight_map: parameter (as spec.parameter_shapes names it) -> where the checkpoint keeps it.
        ignored_tensors: patterns of stored tensors that no parameter needs.
        eos_token_ids: tokens that end an answer.
        default_sampling: what the model's makers recommend: temperature, top_k, top_p, min_p,
            repetition_penalty, as far as they do.
    """

    source: ModelSource
    family: str
    spec: DecoderSpec
    weight_map: dict[str, TensorSource]
    ignored_tensors: tuple[str, ...]
    eos_token_ids: tuple[int, ...]
    default_sampling: dict[str, float | int]


def describe_model(source: ModelSource) -> ModelDescription:
    """Read a model's headers and settings.

    Raises:
        CheckpointError: a file is missing or damaged, or a setting is missing or absurd.
        UnsupportedModelError: an unknown family, or a variant that is not run.
    """
    return _describe_gguf(source) if source.kind is SourceKind.GGUF else _describe_folder(source)


def _describe_folder(source: ModelSource) -> ModelDescription:
    path = source.path / "config.json"
    config = ConfigReader(path, read_json_object(path))
    family_name = config.find_text("model_type")
    if family_name is None:
        raise config.invalid("model_type", "is missing")
    family = next((family for family in FAMILIES if family.name == family_name), None)
    if family is None:
        known = ", ".join(family.name for family in FAMILIES)
        raise UnsupportedModelError(f"{path}: unknown model family {family_name!r} (known: {known})")
    spec = family.read(config)
    weight_map = expand_weight_map(spec, family.templates(spec))
    # A tied checkpoint may still carry a copy of the embedding as its head.
    ignored_tensors = family.ignored_tensors + ((_HEAD_NAME,) if spec.is_head_tied else ())
    match_stored_tensors(
        spec,
        weight_map,
        {
            name: StoredTensor(shape, path)
            for path in find_safetensors(source.path).paths
            for name, shape in read_safetensors_shapes(path).items()
        },
        ignored_tensors=ignored_tensors,
        family=family.name,
        path=source.path,
    )
    generation = _read_generation_config(source.path)
    # The generation settings are the newer of the two, and alone in having all of a chat model's ends.
    eos_token_ids = generation.token_ids("eos_token_id") or config.token_ids("eos_token_id")
    return ModelDescription(
        source=source,
        family=family.name,
        spec=spec,
        weight_map=weight_map,
        ignored_tensors=ignored_tensors,
        eos_token_ids=_reachable(eos_token_ids, spec),
        default_sampling=_read_default_sampling(generation),
    )


def _describe_gguf(source: ModelSource) -> ModelDescription:
    with GgufFile(source.path) as file:
        header = GgufHeader(file)
        readings = {family.name: family.gguf for family in FAMILIES if family.gguf is not None}
        if header.architecture not in readings:
            raise UnsupportedModelError(
                f"{source.path}: unknown GGUF architecture {header.architecture!r} "
                f"(known: {', '.join(readings)})"
            )
        reading = readings[header.architecture]
        spec = reading.read(header)
        weight_map = expand_weight_map(spec, reading.templates(spec))
        match_stored_tensors(
            spec,
            weight_map,
            {name: StoredTensor(tensor.shape, source.path) for name, tensor in file.tensors.items()},
            ignored_tensors=(),
            family=header.architecture,
            path=source.path,
        )
        ends = [
            token_id
            for kind in ("eos", "eot", "eom")
            for token_id in header.tokenizer.token_ids(f"{kind}_token_id")
        ]
    return ModelDescription(
        source=source,
        family=header.architecture,
        spec=spec,
        weight_map=weight_map,
        ignored_tensors=(),
        eos_token_ids=_reachable(ends, spec),
        default_sampling={},
    )


def _read_generation_config(folder: Path) -> ConfigReader:
    path = folder / "generation_config.json"
    return ConfigReader(path, read_json_object(path) if path.is_file() else {})


def _read_default_sampling(generation: ConfigReader) -> dict[str, float | int]:
    """Only where the file asks for sampling: without do_sample, its numbers have no effect."""
    if not generation.flag("do_sample", default=False):
        return {}
    defaults: dict[str, float | int] = {}
    for key in ("temperature", "top_p", "min_p", "repetition_penalty"):
        number = generation.find_float(key, allows_zero=True)
        if number is not None:
            defaults[key] = number
    top_k = generation.find_int("top_k", low=0)
    if top_k is not None:
        defaults["top_k"] = top_k
    return defaults


def _reachable(token_ids: Iterable[int], spec: DecoderSpec) -> tuple[int, ...]:
    """Each id once, without those beyond the vocabulary: what cannot come can end nothing."""
    return tuple(dict.fromkeys(token_id for token_id in token_ids if token_id < spec.vocab_size))
