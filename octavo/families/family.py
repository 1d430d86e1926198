"""What a family is: functions from its settings to a DecoderSpec and to the names of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from octavo.families.config_reader import ConfigReader
from octavo.families.gguf_header import GgufHeader
from octavo.families.weight_map import TensorSource
from octavo.model_spec import DecoderSpec

WeightTemplates = Mapping[str, TensorSource]


@dataclass(frozen=True, kw_only=True)
class GgufReading:
    """How llama.cpp's files describe the family.

    Attributes:
        read: the file's header -> the spec.
        templates: the spec -> where each module's tensors lie, as expand_weight_map takes them.
    """

    read: Callable[[GgufHeader], DecoderSpec]
    templates: Callable[[DecoderSpec], WeightTemplates]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How transformers' folders describe the family, and llama.cpp's files where it knows it.

    Attributes:
        name: `model_type` in config.json, and the architecture in GGUF.
        read: config.json -> the spec.
        templates: the spec -> where each module's tensors lie, as expand_weight_map takes them.
        ignored_tensors: patterns of stored tensors that are known and not needed (whole names).
        gguf: None where llama.cpp has no such architecture.
    """

    name: str
    read: Callable[[ConfigReader], DecoderSpec]
    templates: Callable[[DecoderSpec], WeightTemplates]
    ignored_tensors: tuple[str, ...] = ()
    gguf: GgufReading | None = None
